// The daemon's loop by a clock that the test sets.
#include "queued/daemon.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "queued/sockets.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

// The system's clock, set by hand as an administrator does it.
class SettableClock : public Clock {
 public:
  absl::Time Now() override {
    return SystemClock().Now() + absl::Seconds(ahead_s_.load());
  }
  absl::Duration Elapsed() override { return SystemClock().Elapsed(); }
  void Set(absl::Duration ahead) { ahead_s_ = absl::ToInt64Seconds(ahead); }

 private:
  std::atomic<int64_t> ahead_s_{0};
};

// Counts events, and lets a test wait for the next ones.
class CountingLog : public Log {
 public:
  void Write(LogLevel, std::string_view event,
             std::initializer_list<LogField>) override {
    std::lock_guard lock(mutex_);
    ++counts_[std::string(event)];
    came_.notify_all();
  }
  // Waits until `event` has been written `more` more times.
  void Await(const std::string& event, int more) {
    std::unique_lock lock(mutex_);
    const int enough = counts_[event] + more;
    came_.wait(lock, [&] { return counts_[event] >= enough; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::map<std::string, int> counts_;
};

// The service manager's end of the notification socket.
class Manager {
 public:
  explicit Manager(const std::string& file) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    EXPECT_LT(file.size(), sizeof address.sun_path);
    memcpy(address.sun_path, file.c_str(), file.size());
    fd_.Reset(socket(AF_UNIX, SOCK_DGRAM, 0));
    EXPECT_EQ(
        bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
        0);
    setenv("NOTIFY_SOCKET", file.c_str(), 1);
    setenv("WATCHDOG_USEC", "20000", 1);
  }
  void AwaitSignsOfLife(int count) {
    while (count > 0) {
      char text[256];
      const ssize_t length = recv(fd_.get(), text, sizeof text, 0);
      ASSERT_GT(length, 0);
      if (std::string(text, static_cast<size_t>(length)) == "WATCHDOG=1") {
        --count;
      }
    }
  }
  void Drain() {
    char text[256];
    while (recv(fd_.get(), text, sizeof text, MSG_DONTWAIT) > 0) {
    }
  }

 private:
  UniqueFd fd_;
};

class DaemonTest : public testing::Test {
 protected:
  DaemonTest() : manager_(directory_.path() + "/notify") {
    config_.state_dir = directory_.path();
    config_.store_dir = config_.real_store_dir = "/nix/store";
    config_.nix_state_dir = directory_.path() + "/nix";
    config_.nix_daemon_socket = directory_.path() + "/nobody";
    config_.nix_bin_dir = directory_.path() + "/nothing";
    config_.roots_directory = directory_.path() + "/roots";
    config_.retry_min_delay = absl::Milliseconds(10);
    config_.retry_max_delay = absl::Milliseconds(20);
    TargetConfig target;
    target.name = "away";
    target.url = "http://127.0.0.1:1";  // nobody listens there
    target.kind = TargetKind::kHttp;
    config_.targets.push_back(target);
  }

  // Starts the daemon with one job, and lets it run until the end.
  void Start() {
    notifier_.emplace(Notifier::FromEnvironment());
    wake_ = *BindWakeSocket(config_.state_dir);
    status_ = *BindStatusSocket(config_.state_dir);
    auto daemon =
        Daemon::Start(config_, Surroundings{},
                      DaemonParts{.log = log_,
                                  .clock = clock_,
                                  .random = SystemRandom(),
                                  .notifier = *notifier_,
                                  .signals = signals_,
                                  .wake_fd = wake_.get(),
                                  .status_fd = status_.get(),
                                  .load_config = [this] { return config_; }});
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
    loop_ = std::thread([this] { end_ = daemon_->Run(); });
  }
  void Enqueue() {
    auto inbox = InboxWriter::Open(config_.state_dir, absl::Seconds(5));
    ASSERT_TRUE(inbox.ok()) << inbox.status();
    InboxEntry entry;
    entry.path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";
    ASSERT_TRUE(inbox->Put({entry}).ok());
  }
  void TearDown() override {
    if (!loop_.joinable()) return;
    raise(SIGTERM);
    loop_.join();
    EXPECT_EQ(end_, Daemon::End::kStopped);
  }

  TemporaryDirectory directory_;
  Manager manager_;
  Config config_;
  CountingLog log_;
  SettableClock clock_;
  Signals signals_;
  std::optional<Notifier> notifier_;
  UniqueFd wake_;
  UniqueFd status_;
  std::unique_ptr<Daemon> daemon_;
  std::thread loop_;
  Daemon::End end_ = Daemon::End::kStuck;
};

TEST_F(DaemonTest, SignsOfLifeGoOnWhenTheClockIsSetBack) {
  ASSERT_NO_FATAL_FAILURE(Start());
  manager_.AwaitSignsOfLife(3);
  clock_.Set(-absl::Hours(1));
  manager_.Drain();
  manager_.AwaitSignsOfLife(3);
}

TEST_F(DaemonTest, ProbesGoOnWhenTheClockIsSetBack) {
  clock_.Set(absl::Hours(1));
  ASSERT_NO_FATAL_FAILURE(Enqueue());
  ASSERT_NO_FATAL_FAILURE(Start());
  log_.Await("target-unreachable", 2);
  clock_.Set(absl::ZeroDuration());
  log_.Await("target-unreachable", 3);
}

TEST_F(DaemonTest, AReloadThatCouldNotBeHeededComesAgain) {
  EXPECT_FALSE(signals_.Take().reload);
  signals_.PutBackReload();
  EXPECT_TRUE(signals_.Take().reload);
  EXPECT_FALSE(signals_.Take().reload);
}

}  // namespace
}  // namespace nixq
