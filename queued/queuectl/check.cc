// `queuectl check`: everything that has to be right for paths to arrive,
// looked at one by one, each with what to do about it.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "queued/local_nix.h"
#include "queued/queuectl/commands.h"
#include "queued/signer.h"
#include "queued/status_socket.h"
#include "queued/target.h"
#include "storage/base/status.h"
#include "storage/base/subprocess.h"
#include "storage/base/text.h"
#include "storage/nix/gc_roots.h"

namespace nixq {
namespace {

constexpr absl::Duration kDaemonLimit = absl::Seconds(2);
constexpr absl::Duration kNixLimit = absl::Seconds(20);

struct Finding {
  enum class Level { kGood, kWarning, kBad };
  std::string what;
  Level level = Level::kGood;
  std::string text;
  std::string hint;
};

std::string_view LevelName(Finding::Level level) {
  switch (level) {
    case Finding::Level::kGood:
      return "ok";
    case Finding::Level::kWarning:
      return "warning";
    case Finding::Level::kBad:
      return "failed";
  }
  return "";
}

Finding Good(std::string what, std::string text) {
  return {std::move(what), Finding::Level::kGood, std::move(text), ""};
}

Finding Bad(std::string what, const absl::Status& status, std::string hint) {
  return {std::move(what), Finding::Level::kBad, std::string(status.message()),
          std::move(hint)};
}

Finding Warn(std::string what, std::string text, std::string hint) {
  return {std::move(what), Finding::Level::kWarning, std::move(text),
          std::move(hint)};
}

void CheckKeys(const Context& context, std::vector<Finding>& findings) {
  if (context.config().signing_key_files.empty()) {
    findings.push_back(Warn("signing", "no key is configured",
                            "clients that require signatures will not take "
                            "what is uploaded"));
  }
  for (const std::string& file : context.config().signing_key_files) {
    absl::StatusOr<SecretKey> key = SecretKey::Load(file);
    if (key.ok()) {
      findings.push_back(Good("signing key " + key->name(),
                              "public key " + key->PublicKeyText()));
    } else if (file.starts_with("$CREDENTIALS_DIRECTORY/")) {
      findings.push_back(Warn("signing key " + file,
                              "systemd hands it to the service, which does "
                              "not run",
                              "systemctl start nix-queued, then check again"));
    } else if (file.starts_with("/run/credentials/") &&
               absl::IsPermissionDenied(key.status())) {
      findings.push_back(Warn("signing key " + file,
                              "only the service and root may look at it",
                              "sudo queuectl check"));
    } else {
      findings.push_back(
          Bad("signing key " + file, key.status(),
              "nix-store --generate-binary-cache-key makes one; the daemon's "
              "user must be able to read it"));
    }
  }
}

void CheckStore(const Context& context, std::vector<Finding>& findings) {
  std::unique_ptr<DaemonClient> store = MakeDaemonClient(
      context.config(), context.surroundings(), context.store_dir());
  absl::StatusOr<DaemonInfo> info = store->Info();
  if (!info.ok()) {
    findings.push_back(
        Bad("store", info.status(),
            "is nix-daemon running, and may this user connect?"));
    return;
  }
  findings.push_back(Good(
      "store", absl::StrFormat("%s, Nix %s at %s, protocol 1.%d",
                               context.store_dir().path(), info->nix_version,
                               info->transport, info->protocol_minor)));
}

void CheckQueue(const Context& context, std::vector<Finding>& findings) {
  absl::StatusOr<Report> report = context.OpenReport();
  if (!report.ok()) {
    findings.push_back(Bad("queue", report.status(),
                           "start the daemon once: it makes the queue"));
  } else {
    absl::Status integrity = report->CheckIntegrity();
    findings.push_back(
        integrity.ok()
            ? Good("queue", context.config().state_dir + "/queue.db is whole")
            : Bad("queue", integrity,
                  "stop the daemon, keep the file, and let it start anew: "
                  "roots are enqueued again"));
  }
  absl::StatusOr<LiveStatus> live =
      ReadLiveStatus(context.config().state_dir, kDaemonLimit);
  findings.push_back(
      live.ok() ? Good("daemon", absl::StrFormat("queued %s runs, pid %d",
                                                 live->version, live->pid))
                : Bad("daemon", live.status(),
                      "systemctl start nix-queued, or start queued"));
}

void CheckRoots(const Context& context, std::vector<Finding>& findings) {
  const std::string& directory = context.config().roots_directory;
  absl::StatusOr<GcRoots> roots =
      GcRoots::Open(directory, context.store_dir(), false);
  if (!roots.ok()) {
    findings.push_back(Bad("roots", roots.status(),
                           "the first hook or daemon that may makes it"));
    return;
  }
  if (access(directory.c_str(), W_OK) != 0) {
    findings.push_back(Warn("roots", directory + " is not writable for you",
                            "it has to be for the daemon's user"));
  }
  absl::StatusOr<GcRootListing> listing = roots->List();
  if (!listing.ok()) {
    findings.push_back(Bad("roots", listing.status(), ""));
    return;
  }
  size_t dangling = 0;
  for (const GcRoot& root : listing->roots) dangling += root.dangling ? 1 : 0;
  findings.push_back(
      Good("roots", absl::StrFormat("%d in %s, %d dangling, %d strangers",
                                    listing->roots.size(), directory, dangling,
                                    listing->strange.size())));
}

void CheckTargets(const Context& context, std::vector<Finding>& findings) {
  HttpClient http;
  const Cancellation never;
  if (context.config().targets.empty()) {
    findings.push_back(Warn("targets", "none is configured",
                            "paths are queued and pinned, nothing is sent"));
  }
  for (const TargetConfig& config : context.config().targets) {
    Target target(0, config, context.config(),
                  ChildEnvironment(context.config(), context.surroundings()),
                  http, SystemRandom());
    absl::Status status = target.Prepare(never);
    if (status.ok()) {
      switch (config.kind) {
        case TargetKind::kSsh:
          status = target.ssh().Check(never);
          break;
        case TargetKind::kDirectory:
        case TargetKind::kHttp:
          status = target.cache().CheckWritable(never);
          break;
        case TargetKind::kLocal:
          break;  // Prepare has asked it
      }
    }
    std::string good = config.url + " answers and can be written";
    if (config.kind == TargetKind::kLocal) good = config.url + " answers";
    if (target.only_signs()) good = "signs what is in the local store";
    findings.push_back(status.ok()
                           ? Good("target " + config.name, good)
                           : Bad("target " + config.name, status,
                                 "see queued.toml(5) for how to reach it"));
  }
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
      last = absl::UnknownError(Printable(result->standard_error));
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

void CheckHook(const Context& context, std::vector<Finding>& findings) {
  constexpr std::string_view kHint =
      "set `post-build-hook = /path/to/queued-hook` in nix.conf and restart "
      "nix-daemon";
  absl::StatusOr<std::string> hook = ConfiguredHook(context);
  if (!hook.ok()) {
    findings.push_back(Bad("hook", hook.status(), std::string(kHint)));
  } else if (hook->empty()) {
    findings.push_back(Bad("hook",
                           absl::NotFoundError("nix.conf has no "
                                               "post-build-hook"),
                           std::string(kHint)));
  } else if (access(hook->c_str(), X_OK) != 0) {
    findings.push_back(Bad("hook",
                           absl::NotFoundError(*hook + " cannot be run"),
                           std::string(kHint)));
  } else if (!hook->ends_with("queued-hook")) {
    findings.push_back(Warn("hook", "nix.conf runs " + *hook,
                            "if it does not run queued-hook itself, builds "
                            "are not queued"));
  } else {
    findings.push_back(Good("hook", "nix.conf runs " + *hook));
  }
}

int PrintFindings(const std::vector<Finding>& findings, bool json) {
  bool bad = false;
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& finding : findings) {
    bad = bad || finding.level == Finding::Level::kBad;
    if (json) {
      list.push_back({{"check", finding.what},
                      {"level", std::string(LevelName(finding.level))},
                      {"text", finding.text},
                      {"hint", finding.hint}});
      continue;
    }
    printf("%-8s %s: %s\n", std::string(LevelName(finding.level)).c_str(),
           finding.what.c_str(), finding.text.c_str());
    if (!finding.hint.empty()) printf("         %s\n", finding.hint.c_str());
  }
  if (json) PrintJson(list);
  return bad ? kExitFailed : kExitOk;
}

}  // namespace

int RunCheck(const std::string& config_file, const std::string& state_dir,
             bool json) {
  std::vector<Finding> findings;
  absl::StatusOr<Context> context = Context::Make(config_file, state_dir, json);
  if (!context.ok()) {
    findings.push_back(
        Bad("configuration", context.status(), "see queued.toml(5)"));
    return PrintFindings(findings, json);
  }
  findings.push_back(Good("configuration", context->config().file));
  CheckKeys(*context, findings);
  CheckStore(*context, findings);
  CheckQueue(*context, findings);
  CheckRoots(*context, findings);
  CheckTargets(*context, findings);
  CheckHook(*context, findings);
  return PrintFindings(findings, json);
}

}  // namespace nixq
