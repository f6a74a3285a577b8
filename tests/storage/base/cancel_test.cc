#include "storage/base/cancel.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>

#include <thread>
#include <vector>

namespace nixq {
namespace {

bool Readable(const Cancellation& cancel, int timeout_ms) {
  pollfd poll_fd{.fd = cancel.fd(), .events = POLLIN, .revents = 0};
  return poll(&poll_fd, 1, timeout_ms) == 1 && (poll_fd.revents & POLLIN) != 0;
}

TEST(CancellationTest, IsAFlagAndADescriptor) {
  Cancellation cancel;
  EXPECT_FALSE(cancel.cancelled());
  EXPECT_TRUE(cancel.Check().ok());
  EXPECT_FALSE(Readable(cancel, 0));
  cancel.Cancel();
  EXPECT_TRUE(cancel.cancelled());
  EXPECT_EQ(cancel.Check().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Readable(cancel, 0));
  EXPECT_TRUE(Readable(cancel, 0));  // for good
  cancel.Cancel();
  EXPECT_TRUE(Readable(cancel, 0));
}

TEST(CancellationTest, WakesWhoeverPolls) {
  Cancellation cancel;
  std::vector<std::thread> waiting;
  std::atomic<int> woken{0};
  waiting.reserve(4);
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back([&] {
      if (Readable(cancel, 60000)) ++woken;
    });
  }
  std::vector<std::thread> cancelling;
  cancelling.reserve(4);
  for (int i = 0; i < 4; ++i) {
    cancelling.emplace_back([&] { cancel.Cancel(); });
  }
  for (std::thread& thread : waiting) thread.join();
  for (std::thread& thread : cancelling) thread.join();
  EXPECT_EQ(woken, 4);
}

TEST(CancellationTest, WorksAsAFlagWithoutDescriptors) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  Cancellation cancel;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(cancel.fd(), -1);
  cancel.Cancel();
  EXPECT_EQ(cancel.Check().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace nixq
