#include "queued/signals.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace nixq {
namespace {

// A signal handler can reach nothing else; set once, before the handlers.
volatile sig_atomic_t signal_pipe = -1;

void OnSignal(int number) {
  const int saved = errno;
  const char byte = number == SIGHUP ? 'h' : 't';
  [[maybe_unused]] ssize_t written = write(signal_pipe, &byte, 1);
  errno = saved;
}

}  // namespace

Signals::Signals() {
  absl::StatusOr<WakePipe> pipe = MakeWakePipe();
  if (!pipe.ok()) {
    fprintf(stderr, "queued: %s\n", pipe.status().ToString().c_str());
    abort();
  }
  pipe_ = *std::move(pipe);
  signal_pipe = pipe_.write_end.get();
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  for (int number : {SIGTERM, SIGINT, SIGHUP}) {
    sigaction(number, &action, nullptr);
  }
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

void Signals::PutBackReload() {
  [[maybe_unused]] ssize_t written = write(pipe_.write_end.get(), "h", 1);
}

Signals::Pending Signals::Take() {
  Pending pending;
  char bytes[64];
  ssize_t n;
  while ((n = read(pipe_.read_end.get(), bytes, sizeof bytes)) > 0) {
    for (ssize_t i = 0; i < n; ++i) {
      (bytes[i] == 'h' ? pending.reload : pending.stop) = true;
    }
  }
  return pending;
}

}  // namespace nixq
