// Time and chance, injected: nothing else reads the clock or rolls dice.
#pragma once

#include "absl/time/time.h"

namespace nixq {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // The wall clock. Rows carry its times, and it may jump; durations that
  // matter for correctness (leases) tolerate that.
  virtual absl::Time Now() = 0;
  // The time since some moment of the past, the machine's sleep included; it
  // never jumps: for the waits of this process.
  virtual absl::Duration Elapsed() { return Now() - absl::UnixEpoch(); }
};

// Uniform random numbers for jitter and for temporary names. Thread-safe.
class Random {
 public:
  virtual ~Random() = default;
  // In [0, 1).
  virtual double NextUnit() = 0;
};

// The real ones; they live as long as the process.
Clock& SystemClock();
Random& SystemRandom();

}  // namespace nixq
