#include "storage/base/log.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>
#include <vector>

#include "storage/base/io.h"

namespace nixq {
namespace {

// A log onto a datagram socket, which shows each write(2) apart.
class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    log_end_.Reset(ends[0]);
    test_end_.Reset(ends[1]);
  }

  // What the next write(2) wrote; "" if there was none.
  std::string Next() {
    std::string line(65536, '\0');
    const ssize_t got =
        recv(test_end_.get(), line.data(), line.size(), MSG_DONTWAIT);
    line.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return line;
  }

  FdLog MakeLog(LogLevel threshold, bool syslog_prefix = false) {
    return {log_end_.get(), threshold, syslog_prefix};
  }

  UniqueFd log_end_;
  UniqueFd test_end_;
};

TEST_F(LogTest, ALineIsAnEventWithItsFields) {
  FdLog log = MakeLog(LogLevel::kDebug);
  log.Info("sent", {{"path", "/nix/store/x-hello"},
                    {"target", std::string("nas")},
                    {"bytes", uint64_t{18446744073709551615u}},
                    {"delta", int64_t{-5}},
                    {"files", size_t{3}},
                    {"attempt", 2},
                    {"ms", absl::Microseconds(12900)}});
  EXPECT_EQ(Next(),
            "info sent path=/nix/store/x-hello target=nas "
            "bytes=18446744073709551615 delta=-5 files=3 attempt=2 ms=12\n");
  log.Debug("idle", {});
  EXPECT_EQ(Next(), "debug idle\n");
  log.Warning("slow", {});
  EXPECT_EQ(Next(), "warning slow\n");
  log.Error("corrupt", {});
  EXPECT_EQ(Next(), "error corrupt\n");
}

TEST_F(LogTest, ValuesCannotForgeFieldsOrLines) {
  FdLog log = MakeLog(LogLevel::kDebug);
  log.Info("e", {{"empty", ""},
                 {"spaces", "a b"},
                 {"quote", "say \"hi\" \\ bye"},
                 {"lines", "one\ntwo\tthree"},
                 {"escape", std::string_view("\x1b[31m\0\x7f", 7)},
                 {"equals", "a=b"},
                 {"utf8", "caf\xc3\xa9"}});
  EXPECT_EQ(Next(),
            "info e empty=\"\" spaces=\"a b\" quote=\"say \\\"hi\\\" \\\\ "
            "bye\" lines=\"one\\ntwo\\tthree\" "
            "escape=\"\\x1b[31m\\x00\\x7f\" equals=\"a=b\" "
            "utf8=caf\xc3\xa9\n");
  EXPECT_EQ(Next(), "");
}

TEST_F(LogTest, DropsWhatIsBelowTheThreshold) {
  FdLog log = MakeLog(LogLevel::kWarning);
  log.Info("no", {});
  log.Debug("no", {});
  log.Warning("yes", {});
  EXPECT_EQ(Next(), "warning yes\n");
  log.set_threshold(LogLevel::kError);
  log.Warning("no", {});
  EXPECT_EQ(Next(), "");
}

TEST_F(LogTest, StartsWithThePriorityUnderSystemd) {
  FdLog log = MakeLog(LogLevel::kDebug, true);
  log.Debug("e", {});
  log.Info("e", {});
  log.Warning("e", {});
  log.Error("e", {});
  EXPECT_EQ(Next(), "<7>debug e\n");
  EXPECT_EQ(Next(), "<6>info e\n");
  EXPECT_EQ(Next(), "<4>warning e\n");
  EXPECT_EQ(Next(), "<3>error e\n");
}

TEST_F(LogTest, CutsLongLines) {
  FdLog log = MakeLog(LogLevel::kDebug);
  for (const size_t size : {8000u, 8182u, 8183u, 1000000u}) {
    for (const char fill : {'x', '\n'}) {
      log.Info("e", {{"v", std::string(size, fill)}});
      const std::string line = Next();
      EXPECT_LE(line.size(), 8192u);
      EXPECT_GE(line.size(), 8000u);
      EXPECT_EQ(line.find('\n'), line.size() - 1);
      EXPECT_EQ(line.ends_with("...\n"), fill == '\n' || size > 8182) << size;
    }
  }
}

TEST_F(LogTest, ThreadsDoNotMixTheirLines) {
  FdLog log = MakeLog(LogLevel::kDebug);
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&log, i] {
      for (int j = 0; j < 200; ++j) {
        log.Info("e", {{"v", std::string(100, static_cast<char>('a' + i))}});
      }
    });
  }
  for (int lines = 0; lines < 4 * 200; ++lines) {
    std::string line(1024, '\0');
    const ssize_t got = recv(test_end_.get(), line.data(), line.size(), 0);
    ASSERT_EQ(got, 110);
    line.resize(110);
    ASSERT_EQ(line, "info e v=" + std::string(100, line[50]) + "\n");
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(LogLevelTest, KnowsItsFourNames) {
  EXPECT_EQ(LogLevelFromName("debug"), LogLevel::kDebug);
  EXPECT_EQ(LogLevelFromName("info"), LogLevel::kInfo);
  EXPECT_EQ(LogLevelFromName("warning"), LogLevel::kWarning);
  EXPECT_EQ(LogLevelFromName("error"), LogLevel::kError);
  EXPECT_EQ(LogLevelFromName("Error"), std::nullopt);
  EXPECT_EQ(LogLevelFromName(""), std::nullopt);
}

TEST(NullLogTest, TakesEverything) { NullLog().Error("e", {{"k", 1}}); }

}  // namespace
}  // namespace nixq
