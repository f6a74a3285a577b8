#include "queued/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

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
  int ends[2];
  if (pipe(ends) != 0) {
    perror("nix-queued: pipe");
    abort();
  }
  for (int end : ends) {
    fcntl(end, F_SETFD, FD_CLOEXEC);
    fcntl(end, F_SETFL, O_NONBLOCK);
  }
  read_end_.Reset(ends[0]);
  write_end_.Reset(ends[1]);
  signal_pipe = ends[1];
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  for (int number : {SIGTERM, SIGINT, SIGHUP}) {
    sigaction(number, &action, nullptr);
  }
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

Signals::Pending Signals::Take() {
  Pending pending;
  char bytes[64];
  ssize_t n;
  while ((n = read(read_end_.get(), bytes, sizeof bytes)) > 0) {
    for (ssize_t i = 0; i < n; ++i) {
      (bytes[i] == 'h' ? pending.reload : pending.stop) = true;
    }
  }
  return pending;
}

}  // namespace nixq
