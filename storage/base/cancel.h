// Asking work in other threads to stop: a flag that can also be polled.
#pragma once

#include <atomic>

#include "absl/status/status.h"
#include "storage/base/io.h"

namespace nixq {

// One request to stop, shared by all the work that it concerns. Thread-safe.
// Cancel() is idempotent and may be called from any thread, not from a signal
// handler.
class Cancellation {
 public:
  Cancellation();

  void Cancel();
  bool cancelled() const { return cancelled_.load(); }

  // Becomes readable, for good, once cancelled: for poll(2).
  int fd() const { return pipe_.read_end.get(); }

  // CANCELLED once cancelled, else OK.
  absl::Status Check() const;

 private:
  std::atomic<bool> cancelled_{false};
  WakePipe pipe_;
};

}  // namespace nixq
