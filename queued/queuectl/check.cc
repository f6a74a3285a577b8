// `queuectl check`: everything that has to be right for paths to arrive,
// looked at one by one, each with what to do about it.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"
#include "queued/local_nix.h"
#include "queued/queuectl/check_findings.h"
#include "queued/queuectl/commands.h"
#include "queued/status_socket.h"
#include "queued/surroundings_check.h"
#include "storage/base/process.h"
#include "storage/base/status.h"
#include "storage/nix/gc_roots.h"
#include "storage/nix/signature.h"

namespace nixq {
namespace {

bool FromSystemd(const std::string& file) {
  return file.starts_with("$CREDENTIALS_DIRECTORY/") ||
         file.starts_with("/run/credentials/");
}

void CheckKeys(const Context& context, Findings& findings) {
  if (context.config().signing_key_files.empty()) {
    findings.Add(Warn("signing", "no key is configured",
                      "clients that require signatures will not take "
                      "what is uploaded"));
  }
  for (const std::string& file : context.config().signing_key_files) {
    absl::StatusOr<SecretKey> key = SecretKey::Load(file);
    if (key.ok()) {
      findings.Add(Good("signing key " + key->name(),
                        "public key " + key->PublicKeyText()));
    } else if (file.starts_with("$CREDENTIALS_DIRECTORY/")) {
      findings.Add(Warn("signing key " + file,
                        "systemd hands it to the service, which does "
                        "not run",
                        "systemctl start nix-queued, then check again"));
    } else if (file.starts_with("/run/credentials/") &&
               absl::IsPermissionDenied(key.status())) {
      findings.Add(Warn("signing key " + file,
                        "only the service and root may look at it",
                        "sudo queuectl check"));
    } else {
      findings.Add(
          Bad("signing key " + file, key.status(),
              "nix-store --generate-binary-cache-key makes one; the daemon's "
              "user must be able to read it"));
    }
  }
}

// For root: what the daemon's user, who owns the state directory, may not do.
void CheckDaemonUser(const Context& context, Findings& findings) {
  const Config& config = context.config();
  struct stat owner;
  if (geteuid() != 0 || stat(config.state_dir.c_str(), &owner) != 0 ||
      owner.st_uid == 0) {
    return;
  }
  absl::StatusOr<std::string> name = UserName(owner.st_uid);
  if (!name.ok()) {
    findings.Add(Warn("daemon's user",
                      config.state_dir + ": its owner: " +
                          std::string(name.status().message()),
                      "chown it to the user that queued runs as"));
    return;
  }
  struct Need {
    std::string path;
    int mode;
    const char* verb;
  };
  std::vector<Need> needs;
  for (const std::string& file : config.signing_key_files) {
    if (!FromSystemd(file)) needs.push_back({file, R_OK, "read"});
  }
  needs.push_back({config.state_dir, W_OK | X_OK, "write"});
  needs.push_back({QueueFile(config.state_dir), W_OK, "write"});
  needs.push_back({config.roots_directory, W_OK | X_OK, "write"});
  for (const TargetConfig& target : config.targets) {
    if (target.kind != TargetKind::kDirectory) continue;
    needs.push_back({target.url.substr(std::string_view("file://").size()),
                     W_OK | X_OK, "write"});
  }
  for (const Need& need : needs) {
    if (access(need.path.c_str(), F_OK) != 0) continue;
    absl::StatusOr<bool> may = UserMay(owner.st_uid, need.path, need.mode);
    if (!may.ok() || *may) continue;
    findings.Add(Warn(
        "daemon's user",
        absl::StrFormat("%s may not %s %s", *name, need.verb, need.path),
        absl::StrFormat("%s owns %s, so queued is to run as that user: let it, "
                        "by owner, group or mode",
                        *name, config.state_dir)));
  }
}

void CheckStore(const Context& context, Findings& findings) {
  std::unique_ptr<DaemonClient> store = MakeDaemonClient(
      context.config(), context.surroundings(), context.store_dir());
  absl::StatusOr<DaemonInfo> info = store->Info();
  if (!info.ok()) {
    findings.Add(Bad("store", info.status(),
                     "is nix-daemon running, and may this user connect?"));
    return;
  }
  findings.Add(Good(
      "store", absl::StrFormat("%s, Nix %s at %s, protocol 1.%d",
                               context.store_dir().path(), info->nix_version,
                               info->transport, info->protocol_minor)));
}

std::string QueueHint(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return "start the daemon once: it makes the queue";
    case absl::StatusCode::kDataLoss:
      return "stop the daemon, move the file with its -wal and -shm away, keep "
             "them, and start the daemon anew: roots are enqueued again";
    case absl::StatusCode::kPermissionDenied:
      return "sudo queuectl check";
    case absl::StatusCode::kUnavailable:
      return "look again; if it stays, who has it open? fuser -v queue.db";
    default:
      return "";  // the text says what to do
  }
}

void CheckQueue(const Context& context, Findings& findings) {
  absl::StatusOr<Report> report = context.OpenReport();
  absl::Status status =
      report.ok() ? report->CheckIntegrity() : report.status();
  findings.Add(
      status.ok()
          ? Good("queue", QueueFile(context.config().state_dir) + " is whole")
          : Bad("queue", status, QueueHint(status)));
  absl::StatusOr<LiveStatus> live =
      ReadLiveStatus(context.config().state_dir, kDaemonLimit);
  if (live.ok()) {
    findings.Add(Good("daemon", absl::StrFormat("queued %s runs, pid %d",
                                                live->version, live->pid)));
    return;
  }
  const std::string socket = context.config().state_dir + "/status.sock";
  const bool not_for_us = access(socket.c_str(), W_OK) != 0 && errno == EACCES;
  findings.Add(Bad("daemon", live.status(),
                   not_for_us ? "sudo queuectl check"
                              : "systemctl start nix-queued, or start queued"));
}

void CheckRoots(const Context& context, Findings& findings) {
  const std::string& directory = context.config().roots_directory;
  const std::string trouble = RootsTrouble(context.config());
  if (!trouble.empty()) {
    findings.Add(
        Warn("roots", trouble, "see [roots] directory in queued.toml(5)"));
  }
  absl::StatusOr<GcRoots> roots =
      GcRoots::Open(directory, context.store_dir(), false);
  if (!roots.ok()) {
    findings.Add(Bad("roots", roots.status(),
                     "the first hook or daemon that may makes it"));
    return;
  }
  if (access(directory.c_str(), W_OK) != 0) {
    findings.Add(Warn("roots", directory + " is not writable for you",
                      "it has to be for the daemon's user"));
  }
  absl::StatusOr<GcRootListing> listing = roots->List();
  if (!listing.ok()) {
    findings.Add(Bad("roots", listing.status(), ""));
    return;
  }
  size_t dangling = 0;
  for (const GcRoot& root : listing->roots) dangling += root.dangling ? 1 : 0;
  findings.Add(
      Good("roots", absl::StrFormat("%d in %s, %d dangling, %d strangers",
                                    listing->roots.size(), directory, dangling,
                                    listing->strange.size())));
}

}  // namespace

int RunCheck(const std::string& config_file, const std::string& state_dir,
             bool json) {
  Findings findings(json);
  absl::StatusOr<Context> context = Context::Make(config_file, state_dir, json);
  if (!context.ok()) {
    findings.Add(Bad("configuration", context.status(), "see queued.toml(5)"));
    return findings.Finish();
  }
  findings.Add(Good("configuration", context->config().file));
  CheckDaemonUser(*context, findings);
  CheckKeys(*context, findings);
  CheckStore(*context, findings);
  CheckQueue(*context, findings);
  CheckRoots(*context, findings);
  CheckHook(*context, findings);
  CheckTargets(*context, findings);
  return findings.Finish();
}

}  // namespace nixq
