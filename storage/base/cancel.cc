#include "storage/base/cancel.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace nixq {

Cancellation::Cancellation() {
  int ends[2];
#ifdef __linux__
  const int made = pipe2(ends, O_CLOEXEC | O_NONBLOCK);
#else
  const int made = pipe(ends);
#endif
  // Out of descriptors: the flag still works, and poll(2) ignores fd -1.
  if (made != 0) return;
  read_end_.Reset(ends[0]);
  write_end_.Reset(ends[1]);
#ifndef __linux__
  for (int end : ends) {
    fcntl(end, F_SETFD, FD_CLOEXEC);
    fcntl(end, F_SETFL, O_NONBLOCK);
  }
#endif
}

void Cancellation::Cancel() {
  if (cancelled_.exchange(true)) return;
  // Nobody reads the byte, so the read end stays readable (a closed write end
  // alone would show as POLLHUP without POLLIN).
  while (write_end_.valid() && write(write_end_.get(), "c", 1) < 0 &&
         errno == EINTR) {
  }
}

absl::Status Cancellation::Check() const {
  return cancelled() ? absl::CancelledError("cancelled") : absl::OkStatus();
}

}  // namespace nixq
