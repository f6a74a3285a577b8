// Who may do what with the file: the daemon's user, root's hooks, the members
// of a group that reads, and strangers.

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "storage/queue/spool.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::HasSubstr;

constexpr uid_t kDaemon = 61001;
constexpr uid_t kReader = 61002;
constexpr uid_t kStranger = 61003;
constexpr gid_t kReaders = 61010;

class Readers : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) {
      fprintf(stderr,
              "\n*** NOT RUN AS ROOT: other users are not tried, only what "
              "this one may do. ***\n\n");
    }
    ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
    ASSERT_EQ(mkdir(State().c_str(), 0750), 0);
  }

  std::string State() { return dir_ / "state"; }

  QueueOptions Options(bool readers) {
    QueueOptions options;
    options.state_dir = State();
    if (readers) options.reader_gid = kReaders;
    return options;
  }

  // Whether `body` returns true in a child that is that user, in that group
  // and, if told, a member of the readers.
  bool As(uid_t user, bool is_reader, const std::function<bool()>& body) {
    fflush(nullptr);
    pid_t pid = fork();
    if (pid == 0) {
      gid_t groups[] = {kReaders};
      bool ok = setgroups(is_reader ? 1 : 0, groups) == 0 &&
                setgid(user) == 0 && setuid(user) == 0 && body();
      fflush(nullptr);
      _exit(ok ? 0 : 1);
    }
    int status = 0;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
  }

  // Exit status of a shell command that a child of ours runs, as whom it is.
  static bool Shell(const std::string& command) {
    pid_t pid = fork();
    if (pid == 0) {
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
    int status = 0;
    return waitpid(pid, &status, 0) == pid && status == 0;
  }
  std::string Cli(const std::string& sql) {
    return absl::StrFormat(
        "test \"$(sqlite3 -readonly %s '%s')\" = ", QueueFile(State()), sql);
  }

  bool Put(const std::string& name) {
    auto writer = InboxWriter::Open(State(), absl::Seconds(5));
    absl::Status status =
        writer.ok() ? writer->Put({Output(name)}) : writer.status();
    if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
    return status.ok();
  }

  TemporaryDirectory dir_;
};

TEST_F(Readers, TheOwnerReadsWithAndWithoutTheDaemon) {
  for (bool live : {true, false}) {
    std::optional<Queue> queue = *Queue::Open(Options(false));
    ASSERT_OK(queue->SyncTargets({{"nas", "x"}}).status());
    if (!live) queue.reset();
    auto report = Report::Open(Options(false));
    ASSERT_OK(report.status());
    EXPECT_OK(report->Summary().status());
    EXPECT_TRUE(Shell(Cli("SELECT target FROM summary") + "nas"));
  }
}

TEST_F(Readers, AMemberOfTheGroupReadsWhileTheDaemonWrites) {
  if (geteuid() != 0) GTEST_SKIP() << "NOT RUN: needs root";
  auto queue = Queue::Open(Options(true));
  ASSERT_OK(queue.status());
  ASSERT_OK(queue->SyncTargets({{"nas", "x"}}).status());
  ASSERT_OK(queue->Accept({Path("one")}, {}, {}));
  ASSERT_OK(WriteSpool(State(), {Output("two")}));
  auto reads = [&](int64_t jobs) {
    auto report = Report::Open(Options(true));
    if (!report.ok()) {
      fprintf(stderr, "%s\n", report.status().ToString().c_str());
      return false;
    }
    auto summary = report->Summary();
    return summary.ok() && summary->targets.at(0).queued == jobs &&
           summary->spool_files == 1 && report->CheckIntegrity().ok() &&
           Shell(Cli("SELECT count(*) FROM jobs") + std::to_string(jobs));
  };
  EXPECT_TRUE(As(kReader, true, [&] { return reads(1); }));
  // What is written meanwhile is seen; a checkpoint changes nothing.
  ASSERT_OK(queue->Accept({Path("two")}, {}, {}));
  EXPECT_TRUE(As(kReader, true, [&] { return reads(2); }));
  ASSERT_OK(queue->Checkpoint());
  EXPECT_TRUE(As(kReader, true, [&] { return reads(2); }));
  // Readers stay readers.
  EXPECT_TRUE(As(kReader, true, [&] {
    auto writer = InboxWriter::Open(State(), absl::Seconds(1));
    return absl::IsPermissionDenied(writer.status()) &&
           !Shell("sqlite3 " + QueueFile(State()) +
                  " 'DELETE FROM jobs' 2>/dev/null");
  }));
  EXPECT_TRUE(As(kReader, true, [&] { return reads(2); }));
  // Also when nobody has the file open.
  queue = absl::UnknownError("gone");
  EXPECT_TRUE(As(kReader, true, [&] { return reads(2); }));
}

TEST_F(Readers, AStrangerIsToldWhoMayRead) {
  if (geteuid() != 0) GTEST_SKIP() << "NOT RUN: needs root";
  auto queue = Queue::Open(Options(true));
  ASSERT_OK(queue.status());
  EXPECT_TRUE(As(kStranger, false, [&] {
    absl::Status status = Report::Open(Options(true)).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::to_string(kReaders)));
    return !HasFailure();
  }));
}

// The daemon's user owns the directory; hooks run as root.
TEST_F(Readers, RootsHooksAndTheDaemonsUserShareTheFile) {
  if (geteuid() != 0) GTEST_SKIP() << "NOT RUN: needs root";
  ASSERT_EQ(chown(State().c_str(), kDaemon, kDaemon), 0);
  ASSERT_TRUE(Put("before the daemon ever ran"));
  auto daemon_takes = [&](size_t expected) {
    return As(kDaemon, true, [&] {
      auto queue = Queue::Open(Options(true));
      if (!queue.ok()) {
        fprintf(stderr, "%s\n", queue.status().ToString().c_str());
        return false;
      }
      auto entries = queue->ReadInbox(10);
      if (!entries.ok() || entries->size() != expected) return false;
      std::vector<int64_t> ids;
      for (const InboxEntry& entry : *entries) ids.push_back(entry.id);
      return queue->Accept({}, {}, ids).ok() && queue->Checkpoint().ok();
    });
  };
  EXPECT_TRUE(daemon_takes(1));
  ASSERT_TRUE(Put("a"));
  EXPECT_TRUE(daemon_takes(1));
  // A person's sqlite3 removes the WAL when it is the last; whoever makes it
  // again, both can use it, and so can readers.
  for (bool root_makes_it : {true, false}) {
    SCOPED_TRACE(root_makes_it);
    ASSERT_TRUE(Shell("sqlite3 " + QueueFile(State()) +
                      " 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null"));
    ASSERT_NE(access((QueueFile(State()) + "-wal").c_str(), F_OK), 0);
    if (root_makes_it) {
      ASSERT_TRUE(Put("b"));
    } else {
      ASSERT_TRUE(As(kDaemon, false, [&] { return Put("b"); }));
    }
    EXPECT_TRUE(As(kReader, true, [&] {
      absl::Status status = Report::Open(Options(true)).status();
      EXPECT_OK(status);
      return status.ok();
    }));
    EXPECT_TRUE(daemon_takes(1));
    ASSERT_TRUE(Put("c"));
    EXPECT_TRUE(daemon_takes(1));
  }
  // Nor is a spool that root began closed to the daemon.
  ASSERT_OK(WriteSpool(State(), {Output("spooled")}));
  EXPECT_TRUE(As(kDaemon, false, [&] {
    auto spool = ReadSpool(State(), 10);
    return spool.ok() && spool->files.size() == 1 &&
           RemoveSpoolFile(spool->files[0].file).ok();
  }));
}

TEST_F(Readers, AGroupThatTheDaemonIsNotInIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "NOT RUN: needs root";
  ASSERT_EQ(chown(State().c_str(), kDaemon, kDaemon), 0);
  EXPECT_TRUE(As(kDaemon, false, [&] {
    absl::Status status = Queue::Open(Options(true)).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("must be a member"));
    EXPECT_OK(Queue::Open(Options(false)).status());
    return !HasFailure();
  }));
}

TEST_F(Readers, WithoutItsWalAReaderIsToldWhatToDo) {
  if (geteuid() != 0) GTEST_SKIP() << "NOT RUN: needs root";
  ASSERT_OK(Queue::Open(Options(true)).status());
  ASSERT_EQ(unlink((QueueFile(State()) + "-wal").c_str()), 0);
  ASSERT_EQ(unlink((QueueFile(State()) + "-shm").c_str()), 0);
  EXPECT_TRUE(As(kReader, true, [&] {
    absl::Status status = Report::Open(Options(true)).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("-wal file is missing"));
    return !HasFailure();
  }));
}

}  // namespace
}  // namespace nixq
