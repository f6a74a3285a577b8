#include "storage/base/clock.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>

#include "absl/time/clock.h"

namespace nixq {
namespace {

class RealClock : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  absl::Duration Elapsed() override {
#ifdef CLOCK_BOOTTIME
    constexpr clockid_t kSinceBoot = CLOCK_BOOTTIME;
#else  // macOS: it goes on while the machine sleeps
    constexpr clockid_t kSinceBoot = CLOCK_MONOTONIC;
#endif
    timespec elapsed = {};
    clock_gettime(kSinceBoot, &elapsed);
    return absl::DurationFromTimespec(elapsed);
  }
};

// The kernel's random numbers: no seed, no state, no lock.
class RealRandom : public Random {
 public:
  double NextUnit() override {
    uint64_t bits = 0;
    if (getentropy(&bits, sizeof bits) != 0) {
      // A kernel without it: good enough for jitter. The multiplier spreads
      // the fast-changing low bits of the time over the high ones.
      bits = static_cast<uint64_t>(absl::GetCurrentTimeNanos()) *
             0x9E3779B97F4A7C15u;
    }
    return static_cast<double>(bits >> 11) * 0x1.0p-53;
  }
};

}  // namespace

Clock& SystemClock() {
  static RealClock clock;
  return clock;
}

Random& SystemRandom() {
  static RealRandom random;
  return random;
}

}  // namespace nixq
