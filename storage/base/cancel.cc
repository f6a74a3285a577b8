#include "storage/base/cancel.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace nixq {

Cancellation::Cancellation() {
  absl::StatusOr<WakePipe> pipe = MakeWakePipe();
  // Out of descriptors: the flag still works, and poll(2) ignores fd -1.
  if (pipe.ok()) pipe_ = *std::move(pipe);
}

void Cancellation::Cancel() {
  if (cancelled_.exchange(true)) return;
  // Nobody reads the byte, so the read end stays readable (a closed write end
  // alone would show as POLLHUP without POLLIN).
  while (pipe_.write_end.valid() && write(pipe_.write_end.get(), "c", 1) < 0 &&
         errno == EINTR) {
  }
}

absl::Status Cancellation::Check() const {
  return cancelled() ? absl::CancelledError("cancelled") : absl::OkStatus();
}

}  // namespace nixq
