// The circuit of one target: closed while it works, open after a failure of
// its own, with one probe at a time until it works again. Pure.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "queued/retry.h"
#include "storage/base/clock.h"
#include "storage/queue/queue.h"

namespace nixq {

// Keeps the health columns of a TargetRow right. An open circuit lets one
// probe through once its time has come; failures that come back from before
// it opened do not count again. One thread.
class Circuit {
 public:
  // `row` carries the health over from the last run; `random` must outlive
  // this object.
  Circuit(TargetRow row, RetryPolicy policy, Random& random);

  // Whether an operation may start now, `in_flight` being under way.
  bool MayStart(absl::Time now, int in_flight) const;
  bool open() const {
    return row_.health == TargetHealth::kUnreachable ||
           row_.health == TargetHealth::kRefused;
  }
  // When the next probe may go out; the past while closed.
  absl::Time retry_at() const { return row_.retry_at; }

  // What an operation that was started at `started` brought.
  void Succeeded(absl::Time now);
  void Failed(const absl::Status& status, absl::Time started, absl::Time now);

  // Takes what people changed (paused) from a fresh row; if they resumed it
  // and cleared its trouble, so does this.
  void Refresh(const TargetRow& row);

  // What is waited for is tried at once: the clock has been set back, so that
  // nobody can say how long there is left to wait, or a person wants it.
  void EndWait();

  const TargetRow& row() const { return row_; }
  // Whether the row should be written since the last time this was asked.
  bool TakeDirty(absl::Time now);

 private:
  TargetRow row_;
  RetryPolicy policy_;
  Random& random_;
  bool dirty_ = false;
  absl::Time opened_at_ = absl::InfinitePast();
  absl::Time saved_at_;
};

}  // namespace nixq
