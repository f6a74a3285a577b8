#include "storage/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "absl/strings/cord.h"

namespace nixq {
namespace {

TEST(ErrnoErrorTest, CodesSayWhatToDo) {
  struct Row {
    int err;
    absl::StatusCode code;
  };
  using absl::StatusCode;
  for (const Row& row : {
           Row{ENOENT, StatusCode::kNotFound},
           Row{ENOTDIR, StatusCode::kNotFound},
           Row{EEXIST, StatusCode::kAlreadyExists},
           Row{EACCES, StatusCode::kPermissionDenied},
           Row{EPERM, StatusCode::kPermissionDenied},
           Row{EROFS, StatusCode::kPermissionDenied},
           Row{ENOSPC, StatusCode::kResourceExhausted},
           Row{EDQUOT, StatusCode::kResourceExhausted},
           Row{ENOMEM, StatusCode::kResourceExhausted},
           Row{EMFILE, StatusCode::kResourceExhausted},
           Row{ENFILE, StatusCode::kResourceExhausted},
           Row{ECONNREFUSED, StatusCode::kUnavailable},
           Row{ECONNRESET, StatusCode::kUnavailable},
           Row{ECONNABORTED, StatusCode::kUnavailable},
           Row{ENETUNREACH, StatusCode::kUnavailable},
           Row{EHOSTUNREACH, StatusCode::kUnavailable},
           Row{EPIPE, StatusCode::kUnavailable},
           Row{EAGAIN, StatusCode::kUnavailable},
           Row{EBUSY, StatusCode::kUnavailable},
           Row{EIO, StatusCode::kUnavailable},
           Row{ETIMEDOUT, StatusCode::kDeadlineExceeded},
           Row{EINVAL, StatusCode::kInvalidArgument},
           Row{ENAMETOOLONG, StatusCode::kInvalidArgument},
           Row{ELOOP, StatusCode::kInvalidArgument},
           Row{EISDIR, StatusCode::kInvalidArgument},
           Row{ENOTTY, StatusCode::kUnknown},
       }) {
    EXPECT_EQ(ErrnoError(row.err, "doing").code(), row.code) << row.err;
  }
}

TEST(ErrnoErrorTest, SaysWhatWasDoneAndWhy) {
  EXPECT_EQ(std::string(ErrnoError(ENOENT, "open /a b").message()),
            "open /a b: No such file or directory");
}

TEST(AnnotateTest, AddsContextAndKeepsTheRest) {
  absl::Status status = BlamePath(
      WithRetryAfter(absl::UnavailableError("no route"), absl::Seconds(7)));
  status.SetPayload("other", absl::Cord("kept"));
  const absl::Status annotated = Annotate(status, "target nas");
  EXPECT_EQ(annotated.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::string(annotated.message()), "target nas: no route");
  EXPECT_EQ(RetryAfterOf(annotated), absl::Seconds(7));
  EXPECT_TRUE(IsPathsFault(annotated));
  EXPECT_EQ(annotated.GetPayload("other"), absl::Cord("kept"));
}

TEST(AnnotateTest, OkStaysOk) {
  EXPECT_EQ(Annotate(absl::OkStatus(), "anything"), absl::OkStatus());
}

TEST(RetryAfterTest, ComesBackExactly) {
  for (const absl::Duration delay :
       {absl::ZeroDuration(), absl::Milliseconds(1), absl::Seconds(1.5),
        absl::Hours(200), absl::InfiniteDuration()}) {
    EXPECT_EQ(RetryAfterOf(WithRetryAfter(absl::UnavailableError("x"), delay)),
              delay);
  }
}

TEST(RetryAfterTest, AbsentOrUnreadableIsNothing) {
  absl::Status status = absl::UnavailableError("x");
  EXPECT_EQ(RetryAfterOf(status), std::nullopt);
  EXPECT_EQ(RetryAfterOf(absl::OkStatus()), std::nullopt);
  status = WithRetryAfter(status, absl::Seconds(1));
  status.ForEachPayload([&](const auto& url, const absl::Cord&) {
    absl::Status broken = absl::UnavailableError("x");
    broken.SetPayload(url, absl::Cord("soon"));
    EXPECT_EQ(RetryAfterOf(broken), std::nullopt);
  });
}

TEST(BlameTest, IsTheTargetsUnlessSaid) {
  const absl::Status status = absl::NotFoundError("x");
  EXPECT_FALSE(IsPathsFault(status));
  EXPECT_TRUE(IsPathsFault(BlamePath(status)));
  EXPECT_FALSE(IsPathsFault(BlameTarget(BlamePath(status))));
  EXPECT_EQ(BlameTarget(BlamePath(status)), status);
  EXPECT_FALSE(IsPathsFault(absl::OkStatus()));
}

TEST(CodeNameTest, EveryCodeHasItsOwnWord) {
  for (int i = 0; i <= 16; ++i) {
    const auto code = static_cast<absl::StatusCode>(i);
    EXPECT_EQ(CodeFromName(CodeName(code)), code) << i;
  }
  EXPECT_EQ(CodeName(absl::StatusCode::kDataLoss), "data_loss");
  EXPECT_EQ(CodeName(absl::StatusCode::kUnavailable), "unavailable");
}

TEST(CodeNameTest, StrangeOnesAreUnknown) {
  EXPECT_EQ(CodeFromName("from_the_future"), absl::StatusCode::kUnknown);
  EXPECT_EQ(CodeFromName(""), absl::StatusCode::kUnknown);
  EXPECT_EQ(CodeName(static_cast<absl::StatusCode>(99)), "unknown");
}

absl::StatusOr<int> Half(int number) {
  if (number % 2 != 0) return absl::InvalidArgumentError("odd");
  return number / 2;
}

absl::StatusOr<int> Quarter(int number, int* steps) {
  NIXQ_ASSIGN_OR_RETURN(const int half, Half(number));
  ++*steps;
  NIXQ_RETURN_IF_ERROR(Half(half).status());
  ++*steps;
  int quarter = 0;
  NIXQ_ASSIGN_OR_RETURN(quarter, Half(half));
  return quarter;
}

TEST(MacroTest, ReturnAtTheFirstError) {
  int steps = 0;
  EXPECT_EQ(*Quarter(12, &steps), 3);
  EXPECT_EQ(steps, 2);
  steps = 0;
  EXPECT_EQ(Quarter(6, &steps).status(), absl::InvalidArgumentError("odd"));
  EXPECT_EQ(steps, 1);
  steps = 0;
  EXPECT_FALSE(Quarter(3, &steps).ok());
  EXPECT_EQ(steps, 0);
}

}  // namespace
}  // namespace nixq
