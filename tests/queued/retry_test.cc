#include "queued/retry.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "storage/base/status.h"

namespace nixq {
namespace {

struct Row {
  absl::StatusCode code;
  Verdict of_target;
  Verdict of_path;
};

TEST(RetryTest, EveryCodeMeansOneAction) {
  const std::vector<Row> rows = {
      {absl::StatusCode::kCancelled, Verdict::kRelease, Verdict::kRelease},
      {absl::StatusCode::kUnknown, Verdict::kRetryBounded,
       Verdict::kRetryBounded},
      {absl::StatusCode::kInvalidArgument, Verdict::kPark, Verdict::kPark},
      {absl::StatusCode::kDeadlineExceeded, Verdict::kRetry, Verdict::kRetry},
      {absl::StatusCode::kNotFound, Verdict::kPark, Verdict::kRetryBounded},
      {absl::StatusCode::kAlreadyExists, Verdict::kPark, Verdict::kPark},
      {absl::StatusCode::kPermissionDenied, Verdict::kRefused, Verdict::kPark},
      {absl::StatusCode::kResourceExhausted, Verdict::kRetry, Verdict::kRetry},
      {absl::StatusCode::kFailedPrecondition, Verdict::kPark, Verdict::kPark},
      {absl::StatusCode::kAborted, Verdict::kRetry, Verdict::kRetry},
      {absl::StatusCode::kOutOfRange, Verdict::kPark, Verdict::kPark},
      {absl::StatusCode::kUnimplemented, Verdict::kPark, Verdict::kPark},
      {absl::StatusCode::kInternal, Verdict::kRetryBounded,
       Verdict::kRetryBounded},
      {absl::StatusCode::kUnavailable, Verdict::kRetry, Verdict::kRetry},
      {absl::StatusCode::kDataLoss, Verdict::kRetryBounded, Verdict::kCorrupt},
      {absl::StatusCode::kUnauthenticated, Verdict::kRefused, Verdict::kPark},
  };
  // Every code but OK has its row.
  EXPECT_EQ(rows.size(), 16u);
  for (const Row& row : rows) {
    const absl::Status status(row.code, "x");
    EXPECT_EQ(VerdictOf(status), row.of_target) << CodeName(row.code);
    EXPECT_EQ(VerdictOf(BlamePath(status)), row.of_path) << CodeName(row.code);
  }
}

TEST(RetryTest, BackoffDoublesUpToItsCeiling) {
  const RetryPolicy policy{absl::Seconds(1), absl::Hours(1), 10};
  const double most = 0.999999;
  auto seconds = [&](int failures) {
    return absl::ToDoubleSeconds(Backoff(policy, failures, most, std::nullopt));
  };
  EXPECT_NEAR(seconds(1), 1, 0.01);
  EXPECT_NEAR(seconds(2), 2, 0.01);
  EXPECT_NEAR(seconds(5), 16, 0.01);
  EXPECT_NEAR(seconds(12), 2048, 0.01);
  EXPECT_NEAR(seconds(13), 3600, 0.01);
  EXPECT_NEAR(seconds(1'000'000), 3600, 0.01);
}

TEST(RetryTest, JitterIsFullButNeverNothing) {
  const RetryPolicy policy{absl::Seconds(1), absl::Hours(1), 10};
  EXPECT_EQ(Backoff(policy, 8, 0, std::nullopt), absl::Milliseconds(500));
  EXPECT_EQ(Backoff(policy, 8, 0.5, std::nullopt), absl::Seconds(64));
}

TEST(RetryTest, RetryAfterIsAFloorUpToADay) {
  const RetryPolicy policy{absl::Seconds(1), absl::Hours(1), 10};
  EXPECT_EQ(Backoff(policy, 1, 0.5, absl::Seconds(90)), absl::Seconds(90));
  EXPECT_EQ(Backoff(policy, 10, 0.5, absl::Seconds(2)), absl::Seconds(256));
  EXPECT_EQ(Backoff(policy, 1, 0.5, absl::Hours(1000)), absl::Hours(24));
}

}  // namespace
}  // namespace nixq
