#include "storage/base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/io.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

SubprocessOptions Shell(const std::string& script) {
  SubprocessOptions options;
  options.argv = {"/bin/sh", "-c", script};
  options.environment = {"PATH=/usr/bin:/bin"};
  return options;
}

class SubprocessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/subprocess-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  SubprocessResult Run(const SubprocessOptions& options) {
    auto result = RunSubprocess(options, never_);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(SubprocessResult{});
  }

  // The process numbers that children wrote to a file.
  std::vector<pid_t> PidsIn(const std::string& file) {
    std::vector<pid_t> pids;
    auto text = ReadFile(directory_ + "/" + file, 4096);
    EXPECT_TRUE(text.ok()) << text.status();
    if (!text.ok()) return pids;
    for (std::string_view word : SplitWords(*text)) {
      pids.push_back(static_cast<pid_t>(ParseUint(word).value_or(0)));
    }
    return pids;
  }

  std::string directory_;
  Cancellation never_;
};

// Killed processes whose parent has gone are reaped by someone else, some time
// later: waits for that.
bool IsGone(pid_t pid) {
  for (int i = 0; i < 3000; ++i) {
    if (kill(pid, 0) != 0 && errno == ESRCH) return true;
    auto stat = ReadFile(absl::StrFormat("/proc/%d/stat", pid), 4096);
    if (stat.ok() && stat->find(") Z ") != std::string::npos) return true;
    poll(nullptr, 0, 10);
  }
  return false;
}

TEST_F(SubprocessTest, GivesBothStreamsAndTheExitCode) {
  SubprocessResult result = Run(Shell("echo out; echo err >&2; exit 7"));
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(result.standard_output, "out\n");
  EXPECT_EQ(result.standard_error, "err\n");
}

TEST_F(SubprocessTest, TellsTheSignalThatEndedIt) {
  SubprocessResult result = Run(Shell("kill -9 $$"));
  EXPECT_EQ(result.exit_code, -1);
  EXPECT_EQ(result.signal, SIGKILL);
}

TEST_F(SubprocessTest, InheritsNothingOfOurEnvironment) {
  setenv("NIXQ_TEST_SECRET", "leaked", 1);
  SubprocessOptions options = Shell("env");
  options.environment = {"PATH=/usr/bin:/bin", "GIVEN=yes"};
  SubprocessResult result = Run(options);
  unsetenv("NIXQ_TEST_SECRET");
  EXPECT_THAT(result.standard_output, HasSubstr("GIVEN=yes"));
  EXPECT_EQ(result.standard_output.find("NIXQ_TEST_SECRET"), std::string::npos);
}

TEST_F(SubprocessTest, InheritsNoDescriptors) {
  // Without close-on-exec, as careless libraries leave them.
  UniqueFd careless(open("/dev/null", O_RDONLY));
  ASSERT_TRUE(careless.valid());
  ASSERT_EQ(fcntl(careless.get(), F_SETFD, 0), 0);
  SubprocessResult result = Run(Shell(absl::StrFormat(
      "[ -e /proc/self/fd/%d ] || echo closed", careless.get())));
  EXPECT_EQ(result.standard_output, "closed\n");
}

TEST_F(SubprocessTest, StartsInItsDirectoryWithDefaultSignals) {
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &before);
  SubprocessOptions options =
      Shell("pwd; kill -PIPE $$; echo signals are ignored");
  options.working_directory = std::filesystem::canonical(directory_).string();
  SubprocessResult result = Run(options);
  sigaction(SIGPIPE, &before, nullptr);
  EXPECT_EQ(result.standard_output, options.working_directory + "\n");
  EXPECT_EQ(result.signal, SIGPIPE);
}

TEST_F(SubprocessTest, LooksInThePathThatTheChildGets) {
  const std::string program = directory_ + "/speak";
  std::ofstream(program) << "#!/bin/sh\necho spoken\n";
  ASSERT_EQ(chmod(program.c_str(), 0755), 0);
  SubprocessOptions options;
  options.argv = {"speak"};
  options.environment = {"PATH=/nonexistent:" + directory_};
  EXPECT_EQ(Run(options).standard_output, "spoken\n");

  options.environment = {"PATH=/nonexistent"};
  EXPECT_TRUE(absl::IsNotFound(RunSubprocess(options, never_).status()));
  options.argv = {directory_ + "/absent"};
  EXPECT_TRUE(absl::IsNotFound(RunSubprocess(options, never_).status()));
  options.argv = {directory_};
  EXPECT_TRUE(
      absl::IsPermissionDenied(RunSubprocess(options, never_).status()));
  options.argv = {};
  EXPECT_TRUE(absl::IsInvalidArgument(RunSubprocess(options, never_).status()));
}

TEST_F(SubprocessTest, FeedsMoreThanPipesHoldWhileReading) {
  SubprocessOptions options = Shell("cat; echo done >&2");
  for (int i = 0; i < 100'000; ++i) {
    options.standard_input += absl::StrFormat("line %07d\n", i);
  }
  options.max_output_bytes = options.standard_input.size();
  SubprocessResult result = Run(options);
  EXPECT_TRUE(result.standard_output == options.standard_input);
  EXPECT_EQ(result.standard_error, "done\n");
}

TEST_F(SubprocessTest, SurvivesAChildThatDoesNotReadItsInput) {
  SubprocessOptions options = Shell("exec 0<&-; echo closed");
  options.standard_input = std::string(size_t{4} * 1024 * 1024, 'x');
  EXPECT_EQ(Run(options).standard_output, "closed\n");
}

TEST_F(SubprocessTest, KeepsTheTail) {
  SubprocessOptions options =
      Shell("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done");
  options.max_output_bytes = 12;
  EXPECT_EQ(Run(options).standard_output, "19998\n19999\n");
}

TEST_F(SubprocessTest, GivesLinesOfStandardError) {
  std::vector<std::string> lines;
  SubprocessOptions options =
      Shell("printf 'one\\n\\ntw' >&2; printf 'o\\nlast' >&2; echo no");
  options.on_stderr_line = [&](std::string_view line) {
    lines.emplace_back(line);
  };
  Run(options);
  EXPECT_THAT(lines, ElementsAre("one", "", "two", "last"));
}

TEST_F(SubprocessTest, CutsALineWithoutEnd) {
  size_t longest = 0;
  size_t total = 0;
  SubprocessOptions options =
      Shell("head -c 300000 /dev/zero | tr '\\0' x >&2");
  options.on_stderr_line = [&](std::string_view line) {
    longest = std::max(longest, line.size());
    total += line.size();
  };
  Run(options);
  EXPECT_EQ(total, 300'000u);
  EXPECT_LE(longest, 64u * 1024);
}

TEST_F(SubprocessTest, KillsTheGroupWhenItStalls) {
  SubprocessOptions options = Shell(absl::StrFormat(
      "sleep 1000 & echo $! $$ > %s/pids; echo started; wait", directory_));
  options.stall_limit = absl::Milliseconds(1500);
  auto result = RunSubprocess(options, never_);
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
  const auto pids = PidsIn("pids");
  ASSERT_EQ(pids.size(), 2u);
  for (pid_t pid : pids) EXPECT_TRUE(IsGone(pid)) << pid;
}

TEST_F(SubprocessTest, KillsWhatIgnoresSigtermAndWhatIsStopped) {
  for (const char* script :
       {"trap '' TERM; while :; do sleep 1; done", "kill -STOP $$"}) {
    SubprocessOptions options =
        Shell(absl::StrFormat("echo $$ > %s/pids; %s", directory_, script));
    options.stall_limit = absl::Milliseconds(1500);
    auto result = RunSubprocess(options, never_);
    EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
    const auto pids = PidsIn("pids");
    ASSERT_EQ(pids.size(), 1u);
    EXPECT_TRUE(IsGone(pids[0]));
  }
}

TEST_F(SubprocessTest, LimitsTheWholeLifeOfAChildThatKeepsTalking) {
  SubprocessOptions options = Shell("while :; do echo talk; sleep 0.01; done");
  options.total_limit = absl::Milliseconds(1500);
  auto result = RunSubprocess(options, never_);
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("ran for longer"));
}

TEST_F(SubprocessTest, StopsWhenCancelled) {
  Cancellation cancel;
  SubprocessOptions options = Shell(absl::StrFormat(
      "echo $$ > %s/pids; echo up >&2; exec sleep 1000", directory_));
  options.on_stderr_line = [&](std::string_view) { cancel.Cancel(); };
  auto result = RunSubprocess(options, cancel);
  EXPECT_TRUE(absl::IsCancelled(result.status())) << result.status();
  const auto pids = PidsIn("pids");
  ASSERT_EQ(pids.size(), 1u);
  EXPECT_TRUE(IsGone(pids[0]));
  // And one that is cancelled before does not start.
  EXPECT_TRUE(absl::IsCancelled(RunSubprocess(options, cancel).status()));
}

TEST_F(SubprocessTest, DoesNotWaitForWhatTheChildLeftRunning) {
  // The background process holds the pipes open.
  SubprocessOptions options = Shell(
      absl::StrFormat("sleep 1000 & echo $! > %s/pids; echo left", directory_));
  SubprocessResult result = Run(options);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.standard_output, "left\n");
  const auto pids = PidsIn("pids");
  ASSERT_EQ(pids.size(), 1u);
  EXPECT_TRUE(IsGone(pids[0]));
}

TEST_F(SubprocessTest, WaitsForAChildThatClosedItsOutput) {
  SubprocessResult result = Run(Shell(absl::StrFormat(
      "exec >&- 2>&-; sleep 0.2; echo late > %s/late; exit 3", directory_)));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_TRUE(std::filesystem::exists(directory_ + "/late"));
}

TEST_F(SubprocessTest, RunsInManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  threads.reserve(16);
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([this, i] {
      for (int j = 0; j < 5; ++j) {
        SubprocessOptions options = Shell("cat; exit 5");
        options.standard_input = absl::StrFormat("%d-%d", i, j);
        auto result = RunSubprocess(options, never_);
        ASSERT_TRUE(result.ok()) << result.status();
        EXPECT_EQ(result->exit_code, 5);
        EXPECT_EQ(result->standard_output, options.standard_input);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(SubprocessTest, PipedChildEchoes) {
  auto child = PipedChild::Start({"cat"}, {"PATH=/usr/bin:/bin"});
  ASSERT_TRUE(child.ok()) << child.status();
  ASSERT_EQ(write(child->to_child(), "hello", 5), 5);
  char buffer[5];
  ASSERT_EQ(read(child->from_child(), buffer, sizeof buffer), 5);
  EXPECT_EQ(std::string(buffer, 5), "hello");
}

TEST_F(SubprocessTest, PipedChildDiesWithItsOwner) {
  pid_t pid = -1;
  {
    auto child = PipedChild::Start(
        {"/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"},
        {});
    ASSERT_TRUE(child.ok()) << child.status();
    char buffer[3];
    ASSERT_EQ(read(child->from_child(), buffer, sizeof buffer), 3);
    PipedChild moved = *std::move(child);
    pid = moved.pid();
    EXPECT_EQ(kill(pid, 0), 0);
  }
  EXPECT_TRUE(IsGone(pid));
}

TEST_F(SubprocessTest, PipedChildMustExist) {
  EXPECT_TRUE(
      absl::IsNotFound(PipedChild::Start({"no-such-program"}, {}).status()));
  EXPECT_TRUE(
      absl::IsNotFound(PipedChild::Start({"/no/such/program"}, {}).status()));
}

TEST_F(SubprocessTest, WritingToADeadReaderIsAnErrorAndNoSignal) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  UniqueFd write_end(fds[1]);
  close(fds[0]);
  EXPECT_EQ(WriteWithoutSigpipe(write_end.get(), "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  sigset_t pending;
  ASSERT_EQ(sigpending(&pending), 0);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
}

}  // namespace
}  // namespace nixq
