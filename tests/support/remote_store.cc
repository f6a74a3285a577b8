#include "tests/support/remote_store.h"

#include <poll.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/cancel.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "tests/support/sshd.h"

namespace nixq {
namespace {

constexpr int kTries = 1000;
constexpr int kTryPauseMs = 10;
// The shell ends it when our end of the pipe closes, however we end.
constexpr char kRunDaemon[] =
    "nix-daemon --daemon 2>>\"$0\"/daemon.log & cat >/dev/null; kill 0";
constexpr char kProgramPath[] =
    "PATH=/usr/local/bin:/usr/bin:/bin:/nix/var/nix/profiles/default/bin:"
    "/run/current-system/sw/bin";

}  // namespace

absl::StatusOr<std::unique_ptr<RemoteStore>> RemoteStore::Start(
    const std::string& base, const StoreDir& store_dir,
    const Options& options) {
  auto store = std::unique_ptr<RemoteStore>(new RemoteStore(base, store_dir));
  for (const char* directory : {"/etc", "/home"}) {
    NIXQ_RETURN_IF_ERROR(MakeDirectories(base + directory, 0755));
  }
  NIXQ_RETURN_IF_ERROR(WriteFileAtomically(
      base + "/etc/nix.conf",
      absl::StrFormat("sandbox = false\nbuild-users-group =\n"
                      "experimental-features = nix-command\n"
                      "require-sigs = true\ntrusted-users =\n"
                      "trusted-public-keys = %s\nsubstituters = %s\n",
                      Join(options.trusted_public_keys, " "),
                      Join(options.substituters, " ")),
      0644));
  NIXQ_RETURN_IF_ERROR(store->Run({"nix-store", "--init"}).status());
  NIXQ_RETURN_IF_ERROR(store->StartDaemon());
  return store;
}

RemoteStore::~RemoteStore() { StopDaemon(); }

std::vector<std::string> RemoteStore::CommonEnvironment() const {
  return {"NIX_STORE_DIR=" + store_dir_.path(),
          "NIX_CONF_DIR=" + base_ + "/etc", "NIX_USER_CONF_FILES=/dev/null"};
}

std::vector<std::string> RemoteStore::session_environment() const {
  std::vector<std::string> environment = CommonEnvironment();
  environment.push_back("NIX_REMOTE=unix://" + socket_path());
  return environment;
}

std::vector<std::string> RemoteStore::StoreEnvironment() const {
  std::vector<std::string> environment = CommonEnvironment();
  environment.insert(
      environment.end(),
      {kProgramPath, "NIX_REMOTE=local?root=" + base_,
       "NIX_DAEMON_SOCKET_PATH=" + socket_path(), "HOME=" + base_ + "/home",
       "XDG_CACHE_HOME=" + base_ + "/home/cache"});
  return environment;
}

absl::StatusOr<std::string> RemoteStore::Run(
    const std::vector<std::string>& argv) const {
  const Cancellation never;
  SubprocessOptions run;
  run.argv = argv;
  run.environment = StoreEnvironment();
  NIXQ_ASSIGN_OR_RETURN(SubprocessResult result, RunSubprocess(run, never));
  if (result.exit_code == 0) return std::move(result.standard_output);
  return absl::InternalError(absl::StrFormat("%s: exit code %d: %s",
                                             Join(argv, " "), result.exit_code,
                                             result.standard_error));
}

bool RemoteStore::IsValid(const StorePath& path) const {
  return Run({"nix-store", "--check-validity", store_dir_.Print(path)}).ok();
}

absl::Status RemoteStore::CollectGarbage() const {
  return Run({"nix-store", "--gc"}).status();
}

absl::Status RemoteStore::Verify(const StorePath& path) const {
  return Run({"nix", "store", "verify", "--recursive", store_dir_.Print(path)})
      .status();
}

absl::Status RemoteStore::StartDaemon() {
  unlink(socket_path().c_str());
  NIXQ_ASSIGN_OR_RETURN(PipedChild daemon,
                        PipedChild::Start({"/bin/sh", "-c", kRunDaemon, base_},
                                          StoreEnvironment()));
  daemon_ = std::move(daemon);
  for (int i = 0; i < kTries; ++i) {
    if (Run({"nix", "store", "ping", "--store", "unix://" + socket_path()})
            .ok()) {
      return absl::OkStatus();
    }
    poll(nullptr, 0, kTryPauseMs);
  }
  return absl::DeadlineExceededError("the second nix-daemon does not listen");
}

void RemoteStore::StopDaemon() {
  if (!daemon_.has_value()) return;
  const std::vector<int> workers = DescendantsOf(daemon_->pid());
  daemon_.reset();
  KillAll(workers);
}

}  // namespace nixq
