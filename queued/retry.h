// What an error means for a job and its target: the one table, and the one
// formula for how long to wait. Pure.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace nixq {

enum class Verdict {
  kRetry,         // will pass some day: try again, never give up
  kRetryBounded,  // may pass: try again max_attempts times, then park
  kRefused,       // the target does not let us in: pause it, keep its jobs
  kPark,          // the request itself is wrong: park with the reason
  kCorrupt,       // the bytes are not what Nix registered: park and shout
  kRelease,       // we stopped it ourselves: due again, not an attempt
};

//   UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED   kRetry
//   UNAUTHENTICATED, PERMISSION_DENIED     kRefused; of one path: kPark
//   DATA_LOSS                              of one path: kCorrupt;
//                                          otherwise kRetryBounded
//   NOT_FOUND          of one path: kRetryBounded (the next plan asks the
//                      store whether it is gone); otherwise kPark
//   INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED,
//   ALREADY_EXISTS                         kPark
//   CANCELLED                              kRelease
//   UNKNOWN, INTERNAL                      kRetryBounded
// An OK status is a bug.
Verdict VerdictOf(const absl::Status& status);

struct RetryPolicy {
  absl::Duration min_delay = absl::Seconds(1);
  absl::Duration max_delay = absl::Hours(1);
  int max_attempts = 10;  // for kRetryBounded
};

// The wait before the next attempt after `failures` of them (1 or more):
// full jitter, `unit` (in [0, 1)) of min_delay * 2^(failures - 1) capped at
// max_delay, and never less than what the other side asked for (itself capped
// at a day) nor than half of min_delay.
absl::Duration Backoff(const RetryPolicy& policy, int failures, double unit,
                       std::optional<absl::Duration> retry_after);

}  // namespace nixq
