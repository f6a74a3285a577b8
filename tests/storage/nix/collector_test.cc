#include "storage/nix/collector.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/io.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Duration kLong = absl::Seconds(60);
constexpr absl::Duration kShort = absl::Milliseconds(50);

// What the collector does with a connection.
enum class Manner { kAnswers, kHangsUpOnce, kSaysNothing };

// Holds gc.lock and serves gc-socket/socket as Nix's collector does.
class FakeCollector {
 public:
  explicit FakeCollector(const std::string& state_dir)
      : lock_(open((state_dir + "/gc.lock").c_str(), O_RDWR | O_CREAT, 0600)),
        socket_file_(state_dir + "/gc-socket/socket") {
    EXPECT_EQ(flock(lock_.get(), LOCK_EX | LOCK_NB), 0);
    std::filesystem::create_directories(state_dir + "/gc-socket");
  }
  ~FakeCollector() {
    if (listener_.valid()) shutdown(listener_.get(), SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
  }

  void Serve(Manner manner) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(socket_file_.size(), sizeof address.sun_path);
    std::memcpy(address.sun_path, socket_file_.c_str(), socket_file_.size());
    listener_.Reset(socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof address),
              0);
    ASSERT_EQ(listen(listener_.get(), 5), 0);
    thread_ = std::thread([this, manner] { Accept(manner); });
  }

  void End() { lock_.Reset(); }
  // Only after the telling has returned.
  const std::vector<std::string>& lines() const { return lines_; }
  int connections() const { return connections_; }

 private:
  void Accept(Manner manner) {
    while (true) {
      UniqueFd client(accept(listener_.get(), nullptr, nullptr));
      if (!client.valid()) return;
      bool first = connections_++ == 0;
      if (manner == Manner::kHangsUpOnce && first) continue;
      std::string line;
      char byte;
      while (read(client.get(), &byte, 1) == 1) {
        if (byte != '\n') {
          line += byte;
          continue;
        }
        lines_.push_back(line);
        line.clear();
        if (manner != Manner::kSaysNothing) {
          EXPECT_EQ(write(client.get(), "1", 1), 1);
        }
      }
    }
  }

  UniqueFd lock_;
  const std::string socket_file_;
  UniqueFd listener_;
  std::thread thread_;
  std::vector<std::string> lines_;
  std::atomic<int> connections_{0};
};

class CollectorTest : public ::testing::Test {
 protected:
  absl::Status Tell(absl::Duration limit) {
    return TellCollector(directory_.path(), *StoreDir::Parse("/nix/store"),
                         paths_, limit);
  }

  TemporaryDirectory directory_;
  std::vector<StorePath> paths_ = {
      *StorePath::FromBaseName("0c0g6dfnbq0a7jwvkd1a63l8nqjz1cdf-a"),
      *StorePath::FromBaseName("1c0g6dfnbq0a7jwvkd1a63l8nqjz1cdf-b")};
};

TEST_F(CollectorTest, NoneHasEverRun) { EXPECT_TRUE(Tell(kShort).ok()); }

TEST_F(CollectorTest, NoneRuns) {
  FakeCollector collector(directory_.path());
  collector.Serve(Manner::kAnswers);
  collector.End();
  EXPECT_TRUE(Tell(kLong).ok());
  EXPECT_EQ(collector.connections(), 0);
}

TEST_F(CollectorTest, LeavesTheLockFree) {
  FakeCollector(directory_.path()).End();
  ASSERT_TRUE(Tell(kLong).ok());
  FakeCollector takes_the_lock(directory_.path());
}

TEST_F(CollectorTest, IsTold) {
  FakeCollector collector(directory_.path());
  collector.Serve(Manner::kAnswers);
  ASSERT_TRUE(Tell(kLong).ok());
  EXPECT_THAT(collector.lines(),
              ElementsAre("/nix/store/0c0g6dfnbq0a7jwvkd1a63l8nqjz1cdf-a",
                          "/nix/store/1c0g6dfnbq0a7jwvkd1a63l8nqjz1cdf-b"));
}

TEST_F(CollectorTest, NothingToTell) {
  FakeCollector collector(directory_.path());
  collector.Serve(Manner::kAnswers);
  paths_.clear();
  EXPECT_TRUE(Tell(kLong).ok());
  EXPECT_THAT(collector.lines(), IsEmpty());
}

TEST_F(CollectorTest, HasItsLockBeforeItsSocket) {
  FakeCollector collector(directory_.path());
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    collector.Serve(Manner::kAnswers);
  });
  EXPECT_TRUE(Tell(kLong).ok());
  late.join();
  EXPECT_EQ(collector.lines().size(), 2);
}

TEST_F(CollectorTest, EndsMeanwhile) {
  FakeCollector collector(directory_.path());
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    collector.End();
  });
  EXPECT_TRUE(Tell(kLong).ok());
  late.join();
}

TEST_F(CollectorTest, IsAskedAgainWhenItHangsUp) {
  FakeCollector collector(directory_.path());
  collector.Serve(Manner::kHangsUpOnce);
  EXPECT_TRUE(Tell(kLong).ok());
  EXPECT_EQ(collector.connections(), 2);
  EXPECT_EQ(collector.lines().size(), 2);
}

TEST_F(CollectorTest, HasNoSocket) {
  FakeCollector collector(directory_.path());
  EXPECT_EQ(Tell(kShort).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(CollectorTest, DoesNotAnswer) {
  FakeCollector collector(directory_.path());
  collector.Serve(Manner::kSaysNothing);
  EXPECT_EQ(Tell(kShort).code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace nixq
