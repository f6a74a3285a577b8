#include "queued/retry.h"

#include <algorithm>

#include "storage/base/status.h"

namespace nixq {

Verdict VerdictOf(const absl::Status& status) {
  const bool paths_fault = IsPathsFault(status);
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kAborted:
      return Verdict::kRetry;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return paths_fault ? Verdict::kPark : Verdict::kRefused;
    case absl::StatusCode::kDataLoss:
      return paths_fault ? Verdict::kCorrupt : Verdict::kRetryBounded;
    case absl::StatusCode::kNotFound:
      return paths_fault ? Verdict::kRetryBounded : Verdict::kPark;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kAlreadyExists:
      return Verdict::kPark;
    case absl::StatusCode::kCancelled:
      return Verdict::kRelease;
    default:
      return Verdict::kRetryBounded;
  }
}

absl::Duration Backoff(const RetryPolicy& policy, int failures, double unit,
                       std::optional<absl::Duration> retry_after) {
  absl::Duration ceiling = policy.min_delay;
  for (int i = 1; i < failures && ceiling < policy.max_delay; ++i) {
    ceiling *= 2;
  }
  ceiling = std::min(ceiling, policy.max_delay);
  absl::Duration delay = std::max(ceiling * unit, policy.min_delay / 2);
  if (retry_after.has_value()) {
    delay = std::max(delay, std::min(*retry_after, absl::Hours(24)));
  }
  return delay;
}

}  // namespace nixq
