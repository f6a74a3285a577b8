// What the queue's rows say: jobs, targets, paths, and what becomes of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace nixq {

enum class JobState { kQueued, kSending, kDone, kParked };
enum class JobOutcome { kNone, kSent, kPresent, kSkipped, kGone };
enum class RootState { kNone, kHold, kPin };
enum class TargetHealth { kUnknown, kOk, kUnreachable, kRefused };

// The words that rows, JSON and command lines use: "queued", "sent", "hold".
std::string_view Name(JobState state);
std::string_view Name(JobOutcome outcome);
std::string_view Name(RootState state);
std::string_view Name(TargetHealth health);

// A row of `targets`.
struct TargetRow {
  int64_t id = 0;
  std::string name;
  std::string url;
  bool configured = true;
  bool paused = false;
  TargetHealth health = TargetHealth::kUnknown;
  int failures = 0;
  absl::Time retry_at;
  std::string error_code;
  std::string error_text;
  absl::Time error_at;
  absl::Time success_at;
};

// A path to enqueue, as intake has understood it.
struct NewPath {
  std::string path;  // full store path
  std::string deriver;
  std::string system;
  std::string source = "hook";
  uint64_t nar_size_bytes = 0;
  RootState root = RootState::kHold;  // what its root is for, once accepted
};

// The `source` of paths that something else references and nobody enqueued.
inline constexpr std::string_view kReferenceSource = "reference";

// Which due jobs are claimed when there are more than are wanted.
enum class ClaimOrder {
  kOldestFirst,
  kLongestUntriedFirst,  // each has its turn before any has another
};

struct ClaimedJob {
  int64_t job_id = 0;
  int64_t path_id = 0;
  int64_t target_id = 0;
  std::string path;
  std::string deriver;
  std::string system;
  std::string source;
  int attempts = 0;  // before this one
  absl::Time queued_at;
};

// What became of a claimed job.
struct Settlement {
  enum class Verb {
    kDone,     // with `outcome`
    kRetry,    // due again at `next_attempt`; counts as an attempt
    kRelease,  // due again at `next_attempt`; does not count (stopped, waits)
    kPark,     // until someone says so
  };
  int64_t job_id = 0;
  Verb verb = Verb::kDone;
  JobOutcome outcome = JobOutcome::kSent;
  absl::Time next_attempt;
  std::string error_code;
  std::string error_text;  // cleared when a later attempt succeeds
  std::optional<std::string> blocked_by;  // path of the parked reference
  uint64_t sent_size_bytes = 0;
  uint64_t nar_size_bytes = 0;  // 0: leave what is there
  absl::Duration duration;
};

struct PendingDerivation {
  int64_t id = 0;
  std::string path;
  std::string source;
  int attempts = 0;
};

// What the root of a path is still needed for.
struct RootNeed {
  int64_t open_jobs = 0;
  // A hook or a person has given it, and it is not a job yet: it is in the
  // inbox or in a spool file, or may be an output of a derivation that is
  // there or has not been resolved.
  bool not_taken_in = false;
};

// Which jobs a person means.
struct JobSelection {
  std::vector<std::string> paths;     // full store paths; empty: all
  std::optional<std::string> target;  // its name
  bool parked_only = false;
  bool open_only = false;  // forget, without paths: none that is done
};

}  // namespace nixq
