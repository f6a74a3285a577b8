#include "storage/cache/ssh_cache.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/subprocess.h"
#include "storage/base/text.h"
#include "storage/cache/copy_batch.h"
#include "storage/cache/nix_log.h"
#include "storage/cache/ssh_errors.h"

namespace nixq {
namespace {

using Code = absl::StatusCode;
using Lines = std::vector<std::string>;

// For a question that only the network can make slow.
constexpr absl::Duration kAnswerLimit = absl::Seconds(30);

// One Copy: the processes that it takes and how far they are together.
class Copying {
 public:
  Copying(const SshOptions& options, const SshAddress& address,
          const std::function<void(uint64_t)>& on_progress,
          const Cancellation& cancel)
      : options_(options),
        on_progress_(on_progress),
        cancel_(cancel),
        url_(StoreUrl(options, address)),
        environment_(NixEnvironment(options, address)) {}

  std::optional<SshFailure> Send(const std::vector<StorePath>& paths);
  bool HasSignature(const std::string& path) const;

 private:
  std::vector<std::string> Argv(const std::vector<StorePath>& paths) const;

  const SshOptions& options_;
  const std::function<void(uint64_t)>& on_progress_;
  const Cancellation& cancel_;
  const std::string url_;
  const std::vector<std::string> environment_;
  uint64_t bytes_of_earlier_ = 0;
};

std::vector<std::string> NixCommand(const SshOptions& options) {
  return {options.nix_program, "--extra-experimental-features", "nix-command"};
}

std::vector<std::string> Copying::Argv(
    const std::vector<StorePath>& paths) const {
  std::vector<std::string> argv = NixCommand(options_);
  argv.insert(argv.end(),
              {"copy", "--log-format", "internal-json", "-v", "--to", url_});
  if (options_.substitute_on_destination) {
    // Over ssh-ng:// Nix 2.8 looks at the setting, not at the option.
    argv.insert(argv.end(), {"--substitute-on-destination", "--option",
                             "builders-use-substitutes", "true"});
  }
  if (!options_.closure) argv.emplace_back("--no-recursive");
  argv.emplace_back("--");
  for (const StorePath& path : paths) {
    argv.push_back(options_.store_dir.Print(path));
  }
  return argv;
}

std::optional<SshFailure> Copying::Send(const std::vector<StorePath>& paths) {
  NixLog log(RekeyBytes(options_.stall_limit));
  SubprocessOptions run;
  run.argv = Argv(paths);
  run.environment = environment_;
  run.stall_limit = options_.stall_limit;
  run.max_output_bytes = 4096;
  run.on_stderr_line = [&](std::string_view line) {
    if (log.Add(line) && on_progress_) {
      on_progress_(bytes_of_earlier_ + log.bytes_sent());
    }
  };
  const auto result = RunSubprocess(run, cancel_);
  bytes_of_earlier_ += log.bytes_sent();
  if (!result.ok()) return ClassifyRunFailure(result.status());
  if (result->exit_code == 0) return std::nullopt;
  SshFailure failure = ClassifySshFailure(log.Words(), options_.store_dir);
  if (result->signal != 0) {
    failure.text += absl::StrFormat(" (signal %d)", result->signal);
  }
  return failure;
}

// Content-addressed paths need none. Without an answer: true.
bool Copying::HasSignature(const std::string& path) const {
  SubprocessOptions run;
  run.argv = NixCommand(options_);
  run.environment = environment_;
  run.argv.insert(run.argv.end(), {"path-info", "--json", "--",
                                   options_.store_dir.path() + "/" + path});
  run.total_limit = kAnswerLimit;
  const auto result = RunSubprocess(run, cancel_);
  if (!result.ok() || result->exit_code != 0) return true;
  // A list of objects; since Nix 2.19 an object of them, by path.
  const auto infos = nlohmann::json::parse(result->standard_output, nullptr,
                                           /*allow_exceptions=*/false);
  if (!infos.is_structured() || infos.size() != 1) return true;
  const auto& info = *infos.begin();
  if (!info.is_object()) return true;
  if (const auto ca = info.find("ca"); ca != info.end() && !ca->is_null()) {
    return true;
  }
  const auto signatures = info.find("signatures");
  return signatures != info.end() && !signatures->empty();
}

absl::Status ToStatus(const SshFailure& failure) {
  return {failure.code, failure.text};
}

Lines LinesOf(std::string_view text) {
  Lines lines;
  for (std::string& line : Split(text, '\n')) {
    if (!Trim(line).empty()) lines.push_back(std::move(line));
  }
  return lines;
}

// The account lets us in, but not to a shell: sshd's forced command took the
// script for something else.
absl::Status NoShell(const std::string& directory) {
  return absl::PermissionDeniedError(absl::StrFormat(
      "cannot keep GC roots in %s on the receiving machine: the account runs "
      "no commands for us (a forced command?); let it run /bin/sh or set "
      "pin-remote = false",
      directory));
}

}  // namespace

absl::StatusOr<SshCache> SshCache::Make(SshOptions options) {
  NIXQ_ASSIGN_OR_RETURN(SshAddress address, SshAddress::Parse(options.url));
  NIXQ_RETURN_IF_ERROR(ValidateSshOptions(options));
  return SshCache(std::move(options), std::move(address));
}

absl::StatusOr<RootsAnswer> SshCache::RunScript(
    std::string script, const Cancellation& cancel) const {
  SubprocessOptions run;
  run.argv = {options_.ssh_program, "-x", "-a", "-T"};
  run.environment = SshEnvironment(options_);
  run.standard_input = std::move(script);
  const auto arguments = SshArguments(options_, address_);
  run.argv.insert(run.argv.end(), arguments.begin(), arguments.end());
  run.argv.insert(run.argv.end(),
                  {"-oLogLevel=INFO", "-oClearAllForwardings=yes", "--",
                   address_.Destination(), "/bin/sh -s"});
  run.stall_limit = options_.connect_limit + options_.stall_limit;
  const auto result = RunSubprocess(run, cancel);
  if (!result.ok()) {
    NIXQ_RETURN_IF_ERROR(cancel.Check());
    return ToStatus(ClassifyRunFailure(result.status()));
  }
  auto answer = ParseRootsAnswer(result->standard_output, Roots());
  if (answer.ok()) return answer;
  const Lines words = LinesOf(result->standard_error);
  const SshFailure failure = ClassifySshFailure(words, options_.store_dir);
  if (absl::IsPermissionDenied(answer.status())) {
    return failure.code == Code::kResourceExhausted ? ToStatus(failure)
                                                    : answer.status();
  }
  constexpr int kSshFailed = 255;
  if (result->exit_code == kSshFailed || result->exit_code < 0) {
    return failure.code == Code::kUnknown ? absl::UnavailableError(failure.text)
                                          : ToStatus(failure);
  }
  if (result->standard_output.find("nixq-roots failed") != std::string::npos) {
    return Annotate(answer.status(), failure.text);
  }
  return NoShell(options_.remote_roots_directory);
}

std::vector<CopyOutcome> SshCache::Copy(
    const std::vector<StorePath>& paths,
    const std::function<void(uint64_t bytes)>& on_progress,
    const Cancellation& cancel) const {
  std::vector<CopyOutcome> outcomes;
  std::vector<StorePath> to_send = paths;
  if (options_.pin_remote && !paths.empty()) {
    const auto answer = RunScript(PinScript(Roots(), paths), cancel);
    if (!answer.ok()) {
      for (const StorePath& path : paths) {
        outcomes.push_back({path, Annotate(answer.status(), Describe())});
      }
      return outcomes;
    }
    const std::set<std::string> taken(answer->taken.begin(),
                                      answer->taken.end());
    to_send.clear();
    for (const StorePath& path : paths) {
      if (taken.count(path.base_name()) == 0) {
        to_send.push_back(path);
        continue;
      }
      outcomes.push_back(
          {path, BlamePath(absl::FailedPreconditionError(absl::StrFormat(
                     "%s: %s/%s/%s is there and not a GC root", Describe(),
                     options_.remote_roots_directory, options_.sender,
                     path.base_name())))});
    }
  }
  Copying copying(options_, address_, on_progress, cancel);
  std::vector<CopyOutcome> sent = SendBatch(
      to_send, options_.store_dir.path().size() + 1,
      [&](const std::vector<StorePath>& group) { return copying.Send(group); },
      [&](const std::string& path) { return copying.HasSignature(path); },
      cancel);
  for (CopyOutcome& outcome : sent) {
    outcome.status = Annotate(outcome.status, Describe());
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

absl::StatusOr<int> SshCache::PruneRemote(absl::Duration max_age,
                                          const Cancellation& cancel) const {
  if (max_age < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("a negative age");
  }
  const auto answer = RunScript(PruneScript(Roots(), max_age), cancel);
  if (!answer.ok()) return Annotate(answer.status(), Describe());
  return answer->count;
}

absl::Status SshCache::Check(const Cancellation& cancel) const {
  // Nix 2.19 renamed `ping`; the old name lives on for now.
  for (const char* verb : {"ping", "info"}) {
    SubprocessOptions run;
    run.argv = NixCommand(options_);
    run.environment = NixEnvironment(options_, address_);
    run.argv.insert(run.argv.end(),
                    {"store", verb, "--store", StoreUrl(options_, address_)});
    run.total_limit = options_.connect_limit + kAnswerLimit;
    const auto result = RunSubprocess(run, cancel);
    if (!result.ok()) {
      NIXQ_RETURN_IF_ERROR(cancel.Check());
      return Annotate(ToStatus(ClassifyRunFailure(result.status())),
                      Describe());
    }
    if (result->exit_code == 0) break;
    const bool renamed =
        result->standard_error.find("is not a recognised command") !=
        std::string::npos;
    if (renamed && verb == std::string_view("ping")) continue;
    return Annotate(ToStatus(ClassifySshFailure(LinesOf(result->standard_error),
                                                options_.store_dir)),
                    Describe());
  }
  if (!options_.pin_remote) return absl::OkStatus();
  return Annotate(RunScript(PinScript(Roots(), {}), cancel).status(),
                  Describe());
}

}  // namespace nixq
