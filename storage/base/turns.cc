#include "storage/base/turns.h"

#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace nixq {

#if defined(__linux__) && defined(SYS_sched_setattr)

namespace {

constexpr uint64_t kShortestTurnNs = 100'000;

// sched_setattr(2) as it was first; glibc has neither call nor type before
// 2.41.
struct Attributes {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime_ns;
  uint64_t deadline_ns;
  uint64_t period_ns;
};

}  // namespace

void AskForShortTurns() {
  Attributes attributes = {};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0 ||
      (attributes.policy != SCHED_OTHER && attributes.policy != SCHED_BATCH)) {
    return;
  }
  attributes.runtime_ns = kShortestTurnNs;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

#else

void AskForShortTurns() {}

#endif

}  // namespace nixq
