#include "storage/base/clock.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/time/clock.h"

namespace nixq {
namespace {

TEST(SystemClockTest, TellsTheTime) {
  const absl::Time now = SystemClock().Now();
  // Tolerant of a clock that is being set: a minute each way.
  EXPECT_LT(absl::AbsDuration(absl::Now() - now), absl::Minutes(1));
  EXPECT_EQ(&SystemClock(), &SystemClock());
}

TEST(SystemClockTest, TimeGoesOnWithoutJumps) {
  absl::Duration last = SystemClock().Elapsed();
  EXPECT_GT(last, absl::ZeroDuration());
  for (int i = 0; i < 1000; ++i) {
    const absl::Duration elapsed = SystemClock().Elapsed();
    ASSERT_GE(elapsed, last);
    last = elapsed;
  }
}

TEST(SystemRandomTest, CoversTheUnitIntervalAndDoesNotRepeat) {
  std::set<double> seen;
  std::set<int> tenths;
  for (int i = 0; i < 1000; ++i) {
    const double value = SystemRandom().NextUnit();
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    seen.insert(value);
    tenths.insert(static_cast<int>(value * 10));
  }
  // A chance of 10 * 0.9^1000, less than 1e-44, that one is missing.
  EXPECT_EQ(tenths.size(), 10u);
  EXPECT_EQ(seen.size(), 1000u);
}

}  // namespace
}  // namespace nixq
