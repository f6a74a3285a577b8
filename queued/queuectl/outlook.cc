#include "queued/queuectl/outlook.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "queued/queuectl/context.h"

namespace nixq {
namespace {

using State = DaemonView::State;

// What has to happen before anything else does; "" if the daemon runs, or if
// nobody can tell.
std::string_view Until(State daemon) {
  switch (daemon) {
    case State::kNeverRan:
    case State::kStopped:
      return "queued runs";
    case State::kSilent:
      return "queued answers";
    case State::kRunning:
    case State::kHidden:
      break;
  }
  return "";
}

// A step as it stands with this daemon. `step` may be "": just its turn.
std::string With(State daemon, const std::string& step) {
  if (daemon == State::kHidden) {
    return step + ", if queued runs: this user may not ask it";
  }
  if (Until(daemon).empty()) return step;
  return absl::StrFormat("nothing until %s%s%s", Until(daemon),
                         step.empty() ? "" : "; ", step);
}

bool OutOfReach(const TargetRow& target) {
  return target.health == TargetHealth::kUnreachable ||
         target.health == TargetHealth::kRefused;
}

const TargetRow* Find(const std::vector<TargetRow>& targets,
                      const std::string& name) {
  const auto found =
      std::find_if(targets.begin(), targets.end(),
                   [&](const TargetRow& row) { return row.name == name; });
  return found == targets.end() ? nullptr : &*found;
}

}  // namespace

DaemonView LookAtDaemon(const std::string& state_dir, bool never_ran,
                        absl::Duration limit) {
  absl::StatusOr<LiveStatus> live = ReadLiveStatus(state_dir, limit);
  if (live.ok()) return {State::kRunning, *std::move(live)};
  if (absl::IsPermissionDenied(live.status())) return {State::kHidden, {}};
  if (!absl::IsUnavailable(live.status())) return {State::kSilent, {}};
  return {never_ran ? State::kNeverRan : State::kStopped, {}};
}

std::string_view Name(State state) {
  switch (state) {
    case State::kRunning:
      return "running";
    case State::kNeverRan:
      return "never-ran";
    case State::kStopped:
      return "stopped";
    case State::kSilent:
      return "silent";
    case State::kHidden:
      return "hidden";
  }
  return "";
}

std::string_view Describe(State state) {
  switch (state) {
    case State::kRunning:
      return "";
    case State::kNeverRan:
      return "queued has never run";
    case State::kStopped:
      return "queued is not running";
    case State::kSilent:
      return "queued does not answer (stopped by a signal, or it hangs)";
    case State::kHidden:
      return "this user may not ask queued whether it runs";
  }
  return "";
}

std::string Trouble(const TargetRow& target, State daemon, absl::Time now) {
  if (!target.configured) {
    return "not in the configuration any more; its open jobs wait until it is "
           "back";
  }
  if (target.paused) {
    return "paused; `queuectl resume " + target.name + "` lets it go on";
  }
  if (!OutOfReach(target)) return "";
  std::string next;
  if (Until(daemon).empty()) {
    next = "; next try " + HumanWhen(target.retry_at, now);
  }
  return absl::StrFormat("%s: %s (%d in a row%s)",
                         std::string(Name(target.health)), target.error_text,
                         target.failures, next);
}

std::string NextStep(const JobRow& job, const std::vector<TargetRow>& targets,
                     State daemon, absl::Time now) {
  const bool idle = !Until(daemon).empty();
  switch (job.state) {
    case JobState::kDone:
      return "nothing: done";
    case JobState::kParked:
      if (!job.blocked_by.empty()) {
        return "waits until " + job.blocked_by + " is done";
      }
      return "nothing until `queuectl retry` or `queuectl forget`";
    case JobState::kSending:
      return With(daemon,
                  idle ? "it was being sent and begins anew" : "is being sent");
    case JobState::kQueued:
      break;
  }
  if (const TargetRow* target = Find(targets, job.target)) {
    const std::string trouble = Trouble(*target, daemon, now);
    if (!trouble.empty()) {
      return With(daemon, "waits for its target: " + trouble);
    }
  }
  return With(
      daemon,
      idle ? "" : "is tried " + HumanWhen(job.next_attempt.value_or(now), now));
}

std::string NextStep(const Arrival& arrival, State daemon, absl::Time now) {
  const bool idle = !Until(daemon).empty();
  if (arrival.place != Arrival::Place::kDerivations) {
    return With(daemon, idle ? "" : "is taken in now");
  }
  std::string step = "Nix is asked for its outputs";
  if (!idle) step += " " + HumanWhen(arrival.next_attempt, now);
  if (arrival.attempts > 0) {
    step += absl::StrFormat(" (%d in vain: %s)", arrival.attempts,
                            arrival.error_text);
  }
  return With(daemon, step);
}

std::string NextTime(const JobRow& job, const std::vector<TargetRow>& targets,
                     State daemon, absl::Time now) {
  if (job.state != JobState::kQueued && job.state != JobState::kSending) {
    return "-";
  }
  const TargetRow* target = Find(targets, job.target);
  if (target != nullptr && !target->configured) return "not configured";
  if (target != nullptr && target->paused) return "paused";
  if (!Until(daemon).empty()) return "when " + std::string(Until(daemon));
  if (job.state == JobState::kSending) return "-";
  absl::Time next = job.next_attempt.value_or(now);
  if (target != nullptr && OutOfReach(*target)) {
    next = std::max(next, target->retry_at);
  }
  return HumanWhen(next, now);
}

std::string NextTime(const Arrival& arrival, State daemon, absl::Time now) {
  if (!Until(daemon).empty()) return "when " + std::string(Until(daemon));
  return HumanWhen(arrival.next_attempt, now);
}

}  // namespace nixq
