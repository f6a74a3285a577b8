#include "tests/support/private_nix.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/base/unix_socket.h"

namespace nixq {
namespace {

constexpr char kProgramPath[] =
    "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:"
    "/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin";
constexpr char kSettings[] =
    "sandbox = false\n"
    "build-users-group =\n"
    "substituters =\n"
    "experimental-features = nix-command ca-derivations\n"
    "max-jobs = 2\n";
// Generous: machines are slow under sanitizers, and nothing is measured here.
constexpr absl::Duration kCommandLimit = absl::Minutes(4);
constexpr int kStartTries = 6000;
constexpr int kTryPauseMs = 10;
constexpr size_t kMaxOutputBytes = size_t{64} * 1024 * 1024;

// The processes whose parent is `pid`.
std::vector<pid_t> ChildrenOf(pid_t pid) {
  std::vector<pid_t> children;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc", error)) {
    auto number = ParseUint(entry.path().filename().string());
    if (!number.has_value()) continue;
    auto stat = ReadFile(entry.path().string() + "/stat", size_t{64} * 1024);
    if (!stat.ok()) continue;
    // "pid (name) state parent ...", and the name may have anything in it.
    const auto words =
        SplitWords(std::string_view(*stat).substr(stat->rfind(')') + 1));
    if (words.size() > 1 && ParseUint(words[1]) == uint64_t(pid)) {
      children.push_back(static_cast<pid_t>(*number));
    }
  }
  return children;
}

bool IsAlive(pid_t pid) {
  auto stat =
      ReadFile(absl::StrFormat("/proc/%d/stat", pid), size_t{64} * 1024);
  return stat.ok() && stat->find(") Z ") == std::string::npos;
}

std::string Derivation(const std::string& name, const std::string& script,
                       const std::string& more = "") {
  return absl::StrFormat(
      "derivation { name = \"%s\"; system = builtins.currentSystem; "
      "builder = \"/bin/sh\"; args = [ \"-c\" \"%s\" ]; %s }",
      name, script, more);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrivateNix>> PrivateNix::Create(
    const std::string& settings) {
  auto nix = std::unique_ptr<PrivateNix>(new PrivateNix());
  // Short, because sockets live there.
  std::string base = "/tmp/nixq-XXXXXX";
  if (mkdtemp(base.data()) == nullptr) return ErrnoError(errno, "mkdtemp");
  nix->base_ = std::filesystem::canonical(base).string();
  NIXQ_ASSIGN_OR_RETURN(nix->store_dir_,
                        StoreDir::Parse(nix->base_ + "/store"));
  for (const char* directory : {"store", "var", "etc", "home"}) {
    NIXQ_RETURN_IF_ERROR(MakeDirectories(nix->base_ + "/" + directory, 0755));
  }
  NIXQ_RETURN_IF_ERROR(WriteFileAtomically(nix->base_ + "/etc/nix.conf",
                                           kSettings + settings, 0644));
  NIXQ_RETURN_IF_ERROR(nix->Run({"nix-store", "--init"}).status());
  return nix;
}

PrivateNix::~PrivateNix() {
  StopDaemon();
  if (base_.empty()) return;
  // Store paths are read-only, which stops everybody but root.
  (void)Run({"/bin/sh", "-c", "chmod -R u+w \"$0\"; rm -rf \"$0\"", base_});
}

std::vector<std::string> PrivateNix::environment() const {
  return {std::string("PATH=") + kProgramPath,
          "HOME=" + base_ + "/home",
          "XDG_CACHE_HOME=" + base_ + "/home/cache",
          "NIX_STORE_DIR=" + store_dir_->path(),
          "NIX_STATE_DIR=" + state_dir(),
          "NIX_LOCALSTATE_DIR=" + state_dir(),
          "NIX_LOG_DIR=" + base_ + "/log",
          "NIX_DATA_DIR=" + base_ + "/share",
          "NIX_CONF_DIR=" + base_ + "/etc",
          "NIX_DAEMON_SOCKET_PATH=" + socket_path(),
          "NIX_USER_CONF_FILES=/dev/null"};
}

absl::Status PrivateNix::StartDaemon() {
  NIXQ_ASSIGN_OR_RETURN(
      PipedChild daemon,
      PipedChild::Start(
          {"/bin/sh", "-c", "exec nix-daemon --daemon 2>>\"$0\"/daemon.log",
           base_},
          environment()));
  daemon_ = std::move(daemon);
  const Cancellation never;
  for (int i = 0; i < kStartTries; ++i) {
    if (ConnectUnixSocket(socket_path(), absl::Minutes(1), never).ok()) {
      return absl::OkStatus();
    }
    poll(nullptr, 0, kTryPauseMs);
  }
  return absl::DeadlineExceededError("nix-daemon does not listen");
}

void PrivateNix::StopDaemon() {
  if (!daemon_.has_value()) return;
  // A worker has a session of its own and outlives the daemon.
  const std::vector<pid_t> workers = ChildrenOf(daemon_->pid());
  daemon_.reset();
  for (pid_t worker : workers) kill(worker, SIGKILL);
  for (pid_t worker : workers) {
    for (int i = 0; IsAlive(worker) && i < kStartTries; ++i) {
      poll(nullptr, 0, kTryPauseMs);
    }
  }
  unlink(socket_path().c_str());
}

absl::StatusOr<std::string> PrivateNix::Run(
    const std::vector<std::string>& argv) const {
  const Cancellation never;
  SubprocessOptions options;
  options.argv = argv;
  options.environment = environment();
  options.stall_limit = kCommandLimit;
  options.max_output_bytes = kMaxOutputBytes;
  NIXQ_ASSIGN_OR_RETURN(SubprocessResult result, RunSubprocess(options, never));
  if (result.exit_code == 0) return std::move(result.standard_output);
  return absl::InternalError(
      absl::StrFormat("%s: exit code %d, signal %d: %s", Join(argv, " "),
                      result.exit_code, result.signal, result.standard_error));
}

absl::StatusOr<std::vector<StorePath>> PrivateNix::Build(
    const std::string& expression) const {
  NIXQ_ASSIGN_OR_RETURN(const std::string output,
                        Run({"nix-build", "--no-out-link", "-E", expression}));
  std::vector<StorePath> paths;
  for (std::string_view line : SplitWords(output)) {
    NIXQ_ASSIGN_OR_RETURN(StorePath path, store_dir_->ParsePath(line));
    paths.push_back(std::move(path));
  }
  return paths;
}

absl::StatusOr<StorePath> PrivateNix::Instantiate(
    const std::string& expression) const {
  NIXQ_ASSIGN_OR_RETURN(const std::string output,
                        Run({"nix-instantiate", "-E", expression}));
  // For one output of several, Nix appends its name: "x.drv!dev".
  std::string_view path = Trim(output);
  return store_dir_->ParsePath(path.substr(0, path.find('!')));
}

absl::StatusOr<StorePath> PrivateNix::AddFile(
    const std::string& name, const std::string& contents) const {
  const std::string file = base_ + "/home/" + name;
  NIXQ_RETURN_IF_ERROR(WriteFileAtomically(file, contents, 0644));
  NIXQ_ASSIGN_OR_RETURN(const std::string output,
                        Run({"nix-store", "--add", file}));
  return store_dir_->ParsePath(Trim(output));
}

absl::Status PrivateNix::CollectGarbage() const {
  return Run({"nix-store", "--gc"}).status();
}

bool PrivateNix::IsValid(const StorePath& path) const {
  return Run({"nix-store", "--check-validity", Print(path)}).ok();
}

DaemonClientOptions PrivateNix::SocketOptions() const {
  return DaemonClientOptions{*store_dir_, socket_path(), {}, {}};
}

DaemonClientOptions PrivateNix::StdioOptions() const {
  return DaemonClientOptions{
      *store_dir_, "", {"nix-daemon", "--stdio"}, environment()};
}

std::string SimpleExpression(const std::string& name) {
  return Derivation(name, "echo " + name + " > $out");
}

std::string ChainExpression(const std::string& name, int length) {
  return absl::StrFormat(
      "let link = i: derivation { name = \"%s-${toString i}\"; "
      "system = builtins.currentSystem; builder = \"/bin/sh\"; "
      "args = [ \"-c\" \"echo %s $below > $out\" ]; "
      "below = if i == 0 then \"\" else link (i - 1); }; in link %d",
      name, name, length - 1);
}

std::string DiamondExpression(const std::string& name) {
  return absl::StrFormat(
      "let bottom = %s; left = %s; right = %s; in %s",
      Derivation(name + "-bottom", "echo bottom > $out"),
      Derivation(name + "-left", "echo left $bottom > $out", "inherit bottom;"),
      Derivation(name + "-right", "echo right $bottom > $out",
                 "inherit bottom;"),
      Derivation(name + "-top", "echo $left $right > $out",
                 "inherit left right;"));
}

std::string MultiOutputExpression(const std::string& name) {
  return Derivation(name, "echo dev > $dev; echo doc > $doc; echo $dev > $out",
                    "outputs = [ \"out\" \"dev\" \"doc\" ];");
}

std::string SelfReferenceExpression(const std::string& name) {
  return Derivation(name, "echo $out > $out");
}

}  // namespace nixq
