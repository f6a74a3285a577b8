#include "queued/circuit.h"

#include <utility>

#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

// How old the success that a row tells of may be while all goes well.
constexpr absl::Duration kSuccessResolution = absl::Minutes(1);
// A target that refuses us is asked again so seldom: nobody likes a stranger
// who keeps rattling at the door.
constexpr absl::Duration kRefusedProbe = absl::Hours(1);

}  // namespace

Circuit::Circuit(TargetRow row, RetryPolicy policy, Random& random)
    : row_(std::move(row)),
      policy_(policy),
      random_(random),
      saved_at_(row_.success_at) {}

bool Circuit::MayStart(absl::Time now, int in_flight) const {
  if (row_.paused) return false;
  if (!open()) return true;
  return in_flight == 0 && now >= row_.retry_at;
}

void Circuit::Succeeded(absl::Time now) {
  if (row_.health != TargetHealth::kOk) {
    row_.health = TargetHealth::kOk;
    row_.failures = 0;
    row_.retry_at = absl::UnixEpoch();
    row_.error_code.clear();
    row_.error_text.clear();
    dirty_ = true;
  }
  row_.success_at = now;
}

void Circuit::Failed(const absl::Status& status, absl::Time started,
                     absl::Time now) {
  if (open() && started <= opened_at_) return;
  const Verdict verdict = VerdictOf(status);
  const bool refused =
      verdict != Verdict::kRetry && verdict != Verdict::kRetryBounded;
  ++row_.failures;
  row_.health = refused ? TargetHealth::kRefused : TargetHealth::kUnreachable;
  row_.retry_at =
      now + (refused ? kRefusedProbe
                     : Backoff(policy_, row_.failures, random_.NextUnit(),
                               RetryAfterOf(status)));
  row_.error_code = std::string(CodeName(status.code()));
  row_.error_text = Printable(std::string(status.message()));
  row_.error_at = now;
  opened_at_ = now;
  dirty_ = true;
}

void Circuit::Refresh(const TargetRow& row) {
  row_.paused = row.paused;
  // A row that has not heard of the trouble says the same as a person's resume.
  if (!dirty_ && open() && row.health == TargetHealth::kUnknown) {
    row_.health = TargetHealth::kUnknown;
    row_.failures = 0;
    row_.retry_at = row.retry_at;
    row_.error_code.clear();
    row_.error_text.clear();
  }
}

void Circuit::EndWait() {
  if (open()) {
    row_.retry_at = absl::UnixEpoch();
    dirty_ = true;
  }
  opened_at_ = absl::InfinitePast();
  saved_at_ = absl::InfinitePast();
}

bool Circuit::TakeDirty(absl::Time now) {
  const bool success_is_news = row_.success_at > saved_at_ + kSuccessResolution;
  if (!dirty_ && !success_is_news) return false;
  dirty_ = false;
  saved_at_ = now;
  return true;
}

}  // namespace nixq
