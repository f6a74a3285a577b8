// `queuectl check`: what Nix runs after builds, and where that writes.
#include <unistd.h>

#include <vector>

#include "absl/strings/str_format.h"
#include "queued/local_nix.h"
#include "queued/queuectl/check_findings.h"
#include "queued/status_socket.h"
#include "queued/surroundings_check.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/subprocess.h"
#include "storage/base/text.h"
#include "storage/queue/spool.h"

namespace nixq {
namespace {

constexpr absl::Duration kNixLimit = absl::Seconds(10);
constexpr size_t kMaxScriptBytes = size_t{64} << 10;
constexpr size_t kMaxWaiting = 1'000'000;

// How a child ended that did not do what it was asked.
absl::Status EndedBadly(const std::vector<std::string>& argv,
                        const SubprocessResult& result) {
  const std::string how =
      result.signal != 0 ? absl::StrFormat("ended by signal %d", result.signal)
                         : absl::StrFormat("exit code %d", result.exit_code);
  const std::string said(Trim(Printable(result.standard_error, 300)));
  return absl::UnknownError(absl::StrFormat("%s: %s%s", Join(argv, " "), how,
                                            said.empty() ? "" : ": " + said));
}

// The value of post-build-hook as Nix itself sees it.
absl::StatusOr<std::string> ConfiguredHook(const Context& context) {
  const Cancellation never;
  const std::string nix = context.config().nix_bin_dir.empty()
                              ? "nix"
                              : context.config().nix_bin_dir + "/nix";
  absl::Status last = absl::NotFoundError("nix is not there");
  // Nix 2.20 renamed `show-config`.
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"config", "show"},
        std::vector<std::string>{"show-config"}}) {
    SubprocessOptions options;
    options.argv = {nix, "--extra-experimental-features", "nix-command"};
    options.argv.insert(options.argv.end(), verb.begin(), verb.end());
    options.environment =
        ChildEnvironment(context.config(), context.surroundings());
    options.total_limit = kNixLimit;
    options.max_output_bytes = size_t{1} << 20;
    absl::StatusOr<SubprocessResult> result = RunSubprocess(options, never);
    if (!result.ok()) return result.status();
    if (result->exit_code != 0) {
      last = EndedBadly(options.argv, *result);
      continue;
    }
    for (const std::string& line : Split(result->standard_output, '\n')) {
      constexpr std::string_view kKey = "post-build-hook =";
      if (line.starts_with(kKey)) {
        return std::string(Trim(line.substr(kKey.size())));
      }
    }
    return std::string();
  }
  return last;
}

// Whether the hook is a script that sets the variable to the directory, as the
// NixOS module makes one.
bool ScriptSets(const std::string& hook, const std::string& variable,
                const std::string& directory) {
  absl::StatusOr<std::string> text = ReadFile(hook, kMaxScriptBytes);
  return text.ok() && text->starts_with("#!") &&
         text->find(variable + "=") != std::string::npos &&
         text->find(directory) != std::string::npos;
}

void CheckPlace(const std::string& hook, const std::string& variable,
                const std::string& of_hook, const std::string& of_daemon,
                Findings& findings) {
  if (SamePlace(of_hook, of_daemon) || ScriptSets(hook, variable, of_daemon)) {
    return;
  }
  findings.Add(Warn(
      "hook",
      absl::StrFormat("it writes to %s, and the configuration says %s", of_hook,
                      of_daemon),
      absl::StrFormat("the hook reads no configuration: unless it is there "
                      "already, put %s=%s into nix-daemon's environment",
                      variable, of_daemon)));
}

// What hooks have left in their own default queue, if nobody else serves it.
void CheckStrandedPaths(const std::string& of_hook,
                        const std::string& of_daemon, Findings& findings) {
  if (SamePlace(of_hook, of_daemon) ||
      ReadLiveStatus(of_hook, kDaemonLimit).ok()) {
    return;
  }
  size_t waiting = 0;
  QueueOptions options;
  options.state_dir = of_hook;
  absl::StatusOr<Queue> queue = Queue::OpenForRoots(options, true);
  if (queue.ok()) {
    absl::StatusOr<std::vector<InboxEntry>> rows =
        queue->ReadInbox(kMaxWaiting);
    if (rows.ok()) waiting += rows->size();
  }
  absl::StatusOr<int64_t> spooled = CountSpoolFiles(of_hook);
  if (spooled.ok()) waiting += static_cast<size_t>(*spooled);
  if (waiting == 0) return;
  findings.Add(Warn(
      "hook",
      absl::StrFormat("nobody takes in what waits in %s: %d path%s", of_hook,
                      waiting, waiting == 1 ? "" : "s"),
      absl::StrFormat("start queued once with --state-dir %s, or `queuectl "
                      "add` them here",
                      of_hook)));
}

void CheckProgram(const std::string& hook, Findings& findings) {
  constexpr char kHint[] =
      "set `post-build-hook = /path/to/queued-hook` in nix.conf and restart "
      "nix-daemon";
  if (hook.empty()) {
    findings.Add(Bad(
        "hook", absl::NotFoundError("nix.conf has no post-build-hook"), kHint));
  } else if (access(hook.c_str(), X_OK) != 0) {
    findings.Add(
        Bad("hook", absl::NotFoundError(hook + " cannot be run"), kHint));
  } else if (!hook.ends_with("queued-hook")) {
    findings.Add(Warn("hook", "nix.conf runs " + hook,
                      "if it does not run queued-hook itself, builds are not "
                      "queued"));
  } else {
    findings.Add(Good("hook", "nix.conf runs " + hook));
  }
}

}  // namespace

void CheckHook(const Context& context, Findings& findings) {
  const Config& config = context.config();
  absl::StatusOr<std::string> hook = ConfiguredHook(context);
  if (hook.ok()) {
    CheckProgram(*hook, findings);
  } else {
    findings.Add(
        Bad("hook", hook.status(),
            absl::IsNotFound(hook.status())
                ? "name the directory of Nix's programs: nix.bin-dir"
                : "nix has to run here, with " + config.state_dir +
                      " as its home, to say what nix.conf names: sudo queuectl "
                      "check"));
  }
  const HookPlaces places = HookDefaults(config, context.surroundings());
  CheckPlace(hook.value_or(""), "NIX_QUEUED_STATE_DIR", places.state_dir,
             config.state_dir, findings);
  CheckPlace(hook.value_or(""), "NIX_QUEUED_ROOTS_DIR", places.roots_directory,
             config.roots_directory, findings);
  CheckStrandedPaths(places.state_dir, config.state_dir, findings);
}

}  // namespace nixq
