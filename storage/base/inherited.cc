#include "storage/base/inherited.h"

#include <unistd.h>

#include <algorithm>

#ifdef __linux__
#include <sys/syscall.h>
#endif

namespace nixq {
namespace {

constexpr int kFirst = STDERR_FILENO + 1;
// Where there is no call for it, what may be open beyond is left open.
constexpr long kMostTried = 4096;

}  // namespace

void CloseInheritedFds() {
#if defined(__linux__) && defined(SYS_close_range)
  // Linux 5.9; the wrapper is glibc 2.34's.
  if (syscall(SYS_close_range, kFirst, ~0U, 0) == 0) return;
#endif
  long limit = std::clamp(sysconf(_SC_OPEN_MAX), 256L, kMostTried);
  for (int fd = kFirst; fd < limit; ++fd) close(fd);
}

}  // namespace nixq
