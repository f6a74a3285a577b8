#include "queued/circuit.h"

#include <gtest/gtest.h>

#include "storage/base/status.h"
#include "tests/queued/fakes.h"

namespace nixq {
namespace {

class CircuitTest : public testing::Test {
 protected:
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  SeededRandom random_{7};
  RetryPolicy policy_;
  Circuit circuit_{TargetRow{}, policy_, random_};
};

TEST_F(CircuitTest, OpensAtTheFirstFailureAndLetsOneProbeThrough) {
  EXPECT_TRUE(circuit_.MayStart(now_, 15));
  circuit_.Failed(absl::UnavailableError("down"), now_, now_);
  EXPECT_TRUE(circuit_.open());
  EXPECT_EQ(circuit_.row().health, TargetHealth::kUnreachable);
  EXPECT_FALSE(circuit_.MayStart(now_, 0));
  const absl::Time later = circuit_.retry_at();
  EXPECT_GE(later, now_ + policy_.min_delay / 2);
  EXPECT_TRUE(circuit_.MayStart(later, 0));
  EXPECT_FALSE(circuit_.MayStart(later, 1));
  circuit_.Succeeded(later);
  EXPECT_FALSE(circuit_.open());
  EXPECT_EQ(circuit_.row().failures, 0);
  EXPECT_TRUE(circuit_.MayStart(later, 1));
}

TEST_F(CircuitTest, FailuresFromBeforeItOpenedCountOnce) {
  for (int i = 0; i < 16; ++i) {
    circuit_.Failed(absl::UnavailableError("down"), now_,
                    now_ + absl::Seconds(1));
  }
  EXPECT_EQ(circuit_.row().failures, 1);
  circuit_.Failed(absl::UnavailableError("down"), now_ + absl::Seconds(5),
                  now_ + absl::Seconds(6));
  EXPECT_EQ(circuit_.row().failures, 2);
}

TEST_F(CircuitTest, NeverWaitsLongerThanAnHourForTheUnreachable) {
  for (int i = 0; i < 100; ++i) {
    circuit_.Failed(absl::UnavailableError("down"), now_, now_);
    EXPECT_LE(circuit_.retry_at(), now_ + absl::Hours(1));
    now_ = circuit_.retry_at() + absl::Seconds(1);
  }
  EXPECT_EQ(circuit_.row().failures, 100);
}

TEST_F(CircuitTest, RefusalWaitsAnHourAndResumeEndsTheWait) {
  circuit_.Failed(absl::UnauthenticatedError("401"), now_, now_);
  EXPECT_EQ(circuit_.row().health, TargetHealth::kRefused);
  EXPECT_EQ(circuit_.retry_at(), now_ + absl::Hours(1));
  TargetRow resumed;
  resumed.health = TargetHealth::kUnknown;
  // Until the trouble is written down, the row is only out of date.
  circuit_.Refresh(resumed);
  EXPECT_FALSE(circuit_.MayStart(now_, 0));
  EXPECT_TRUE(circuit_.TakeDirty(now_));
  circuit_.Refresh(resumed);
  EXPECT_TRUE(circuit_.MayStart(now_, 0));
}

TEST_F(CircuitTest, ASetClockEndsTheWaitAndFailuresCountAgain) {
  circuit_.Failed(absl::UnavailableError("down"), now_, now_);
  ASSERT_TRUE(circuit_.TakeDirty(now_));
  now_ -= absl::Hours(1);
  EXPECT_FALSE(circuit_.MayStart(now_, 0));
  circuit_.EndWait();
  EXPECT_TRUE(circuit_.open());
  EXPECT_TRUE(circuit_.MayStart(now_, 0));
  EXPECT_TRUE(circuit_.TakeDirty(now_));
  circuit_.Failed(absl::UnavailableError("down"), now_, now_);
  EXPECT_EQ(circuit_.row().failures, 2);
  EXPECT_FALSE(circuit_.MayStart(now_, 0));
}

TEST_F(CircuitTest, PausedMeansNothingStarts) {
  TargetRow row;
  row.paused = true;
  circuit_.Refresh(row);
  EXPECT_FALSE(circuit_.MayStart(now_, 0));
  row.paused = false;
  circuit_.Refresh(row);
  EXPECT_TRUE(circuit_.MayStart(now_, 0));
}

TEST_F(CircuitTest, RetryAfterIsHonoured) {
  circuit_.Failed(
      WithRetryAfter(absl::ResourceExhaustedError("429"), absl::Seconds(77)),
      now_, now_);
  EXPECT_GE(circuit_.retry_at(), now_ + absl::Seconds(77));
}

TEST_F(CircuitTest, SaysOnceWhenThereIsNews) {
  EXPECT_FALSE(circuit_.TakeDirty(now_));
  circuit_.Failed(absl::UnavailableError("down"), now_, now_);
  EXPECT_TRUE(circuit_.TakeDirty(now_));
  EXPECT_FALSE(circuit_.TakeDirty(now_));
}

}  // namespace
}  // namespace nixq
