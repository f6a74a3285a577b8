#include "storage/base/io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

namespace fs = std::filesystem;

void Put(const std::string& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

int OpenNull() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

// Sets the umask for a test.
class ScopedUmask {
 public:
  explicit ScopedUmask(mode_t mask) : before_(umask(mask)) {}
  ~ScopedUmask() { umask(before_); }

 private:
  mode_t before_;
};

TEST(UniqueFdTest, ClosesWhatItOwns) {
  const int raw = OpenNull();
  {
    UniqueFd fd(raw);
    EXPECT_TRUE(fd.valid());
    EXPECT_TRUE(IsOpen(raw));
  }
  EXPECT_FALSE(IsOpen(raw));
}

TEST(UniqueFdTest, MovingLeavesOneOwner) {
  const int first = OpenNull();
  const int second = OpenNull();
  UniqueFd a(first);
  UniqueFd b(second);
  b = std::move(a);
  EXPECT_FALSE(IsOpen(second));
  EXPECT_TRUE(IsOpen(first));
  EXPECT_EQ(b.get(), first);
  UniqueFd c(std::move(b));
  EXPECT_EQ(c.Release(), first);
  EXPECT_FALSE(c.valid());
  EXPECT_TRUE(IsOpen(first));
  close(first);
}

TEST(UniqueFdTest, ResetToItselfKeepsItOpen) {
  UniqueFd fd(OpenNull());
  fd.Reset(fd.get());
  EXPECT_TRUE(IsOpen(fd.get()));
}

TEST(ReadFileTest, ReadsUpToTheLimit) {
  const TemporaryDirectory dir;
  std::string contents(100000, 'x');
  contents[500] = '\0';
  Put(dir / "file", contents);
  EXPECT_EQ(*ReadFile(dir / "file", 100000), contents);
  EXPECT_EQ(ReadFile(dir / "file", 99999).status().code(),
            absl::StatusCode::kOutOfRange);
  Put(dir / "empty", "");
  EXPECT_EQ(*ReadFile(dir / "empty", 0), "");
  fs::create_symlink("file", dir / "link");
  EXPECT_EQ(*ReadFile(dir / "link", 100000), contents);
}

TEST(ReadFileTest, RefusesWhatIsNoFile) {
  const TemporaryDirectory dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  // A FIFO without a writer would block whoever opens it.
  EXPECT_EQ(ReadFile(dir / "fifo", 10).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile("/dev/zero", 10).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile(dir.path(), 10).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile(dir / "none", 10).status().code(),
            absl::StatusCode::kNotFound);
}

#ifdef __linux__
TEST(ReadFileTest, ReadsFilesWithoutASize) {
  const absl::StatusOr<std::string> status =
      ReadFile("/proc/self/status", 1 << 20);
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_NE(status->find("\nPid:"), std::string::npos);
  EXPECT_EQ(ReadFile("/proc/self/status", 20).status().code(),
            absl::StatusCode::kOutOfRange);
}

TEST(WriteAllTest, AFullDiskIsExhausted) {
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(WriteAll(full.get(), "x").code(),
            absl::StatusCode::kResourceExhausted);
}
#endif

TEST(WriteAllTest, WritesMoreThanFitsAtOnce) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  std::string sent;
  for (int i = 0; i < 1 << 20; ++i) sent += static_cast<char>(i * 7);
  std::string received;
  std::thread reader([&] {
    char buffer[10007];
    for (ssize_t got; (got = read(from.get(), buffer, sizeof buffer)) > 0;) {
      received.append(buffer, static_cast<size_t>(got));
    }
  });
  EXPECT_TRUE(WriteAll(to.get(), sent).ok());
  to.Reset();
  reader.join();
  EXPECT_EQ(received, sent);
}

TEST(WriteAllTest, NobodyThereIsUnavailable) {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  const UniqueFd to(ends[1]);
  EXPECT_EQ(WriteAll(to.get(), "x").code(), absl::StatusCode::kUnavailable);
  std::signal(SIGPIPE, before);
}

TEST(SyncTest, SyncsFilesAndDirectories) {
  const TemporaryDirectory dir;
  const UniqueFd fd(open((dir / "f").c_str(), O_CREAT | O_WRONLY, 0600));
  EXPECT_TRUE(SyncFd(fd.get(), "f").ok());
  EXPECT_TRUE(SyncDirectory(dir.path()).ok());
  EXPECT_EQ(SyncDirectory(dir / "none").code(), absl::StatusCode::kNotFound);
  const absl::Status closed = SyncFd(-1, "the name");
  EXPECT_FALSE(closed.ok());
  EXPECT_NE(std::string(closed.message()).find("the name"), std::string::npos);
}

TEST(WriteFileAtomicallyTest, WritesWithExactlyTheMode) {
  const TemporaryDirectory dir;
  const ScopedUmask mask(077);
  ASSERT_TRUE(WriteFileAtomically(dir / "f", "one", 0664).ok());
  EXPECT_EQ(ModeOf(dir / "f"), 0664u);
  ASSERT_TRUE(WriteFileAtomically(dir / "f", "two", 0600).ok());
  EXPECT_EQ(ModeOf(dir / "f"), 0600u);
  EXPECT_EQ(*ReadFile(dir / "f", 10), "two");
  EXPECT_EQ(*ListDirectory(dir.path(), 10), std::vector<std::string>{"f"});
}

TEST(WriteFileAtomicallyTest, ReplacesASymlinkInsteadOfFollowingIt) {
  const TemporaryDirectory dir;
  Put(dir / "elsewhere", "untouched");
  fs::create_symlink("elsewhere", dir / "f");
  ASSERT_TRUE(WriteFileAtomically(dir / "f", "new", 0644).ok());
  EXPECT_FALSE(fs::is_symlink(dir / "f"));
  EXPECT_EQ(*ReadFile(dir / "elsewhere", 100), "untouched");
}

TEST(WriteFileAtomicallyTest, FailureLeavesNothingBehind) {
  const TemporaryDirectory dir;
  fs::create_directory(dir / "d");
  EXPECT_EQ(WriteFileAtomically(dir / "d", "x", 0644).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*ListDirectory(dir.path(), 10), std::vector<std::string>{"d"});
  EXPECT_EQ(WriteFileAtomically(dir / "none/f", "x", 0644).code(),
            absl::StatusCode::kNotFound);
}

TEST(WriteFileAtomicallyTest, ReadersSeeTheOldOrTheNewWhole) {
  const TemporaryDirectory dir;
  const std::string old_text(5000, 'a');
  const std::string new_text(70000, 'b');
  ASSERT_TRUE(WriteFileAtomically(dir / "f", old_text, 0644).ok());
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (int i = 0; i < 30; ++i) {
      EXPECT_TRUE(
          WriteFileAtomically(dir / "f", i % 2 == 0 ? new_text : old_text, 0644)
              .ok());
    }
    done = true;
  });
  int reads = 0;
  do {
    const absl::StatusOr<std::string> seen = ReadFile(dir / "f", 1 << 20);
    EXPECT_TRUE(seen.ok() && (*seen == old_text || *seen == new_text))
        << seen.status();
    ++reads;
  } while (!done && !testing::Test::HasFailure());
  writer.join();
  EXPECT_GT(reads, 0);
}

TEST(WakePipeTest, WakesAndNeitherEndBlocksOrIsInherited) {
  absl::StatusOr<WakePipe> pipe = MakeWakePipe();
  ASSERT_TRUE(pipe.ok()) << pipe.status();
  for (const UniqueFd* end : {&pipe->read_end, &pipe->write_end}) {
    EXPECT_TRUE(fcntl(end->get(), F_GETFD) & FD_CLOEXEC);
    EXPECT_TRUE(fcntl(end->get(), F_GETFL) & O_NONBLOCK);
  }
  char byte = 0;
  EXPECT_EQ(read(pipe->read_end.get(), &byte, 1), -1);
  EXPECT_EQ(write(pipe->write_end.get(), "w", 1), 1);
  EXPECT_EQ(read(pipe->read_end.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'w');
}

TEST(MakeDirectoriesTest, MakesParentsWithTheModeWhateverTheUmask) {
  const TemporaryDirectory dir;
  const ScopedUmask mask(077);
  ASSERT_TRUE(MakeDirectories(dir / "a/b/c", 0755).ok());
  EXPECT_EQ(ModeOf(dir / "a"), 0755u);
  EXPECT_EQ(ModeOf(dir / "a/b"), 0755u);
  EXPECT_EQ(ModeOf(dir / "a/b/c"), 0755u);
  EXPECT_TRUE(MakeDirectories(dir / "a/b/c//", 0700).ok());
  EXPECT_EQ(ModeOf(dir / "a/b/c"), 0755u);  // was there: left alone
  EXPECT_TRUE(MakeDirectories(dir / "x//y/", 0750).ok());
  EXPECT_EQ(ModeOf(dir / "x/y"), 0750u);
  EXPECT_TRUE(MakeDirectories("/", 0755).ok());
}

TEST(MakeDirectoriesTest, KeepsTheGroupBitThatItInherits) {
  const TemporaryDirectory dir;
  ASSERT_EQ(chmod(dir.path().c_str(), 02750), 0);
  if ((ModeOf(dir.path()) & S_ISGID) == 0) {
    GTEST_SKIP() << "this file system has no setgid directories";
  }
  const ScopedUmask mask(077);
  ASSERT_TRUE(MakeDirectories(dir / "a", 0750).ok());
#ifdef __linux__
  EXPECT_EQ(ModeOf(dir / "a"), 02750u);
#endif
}

TEST(MakeDirectoriesTest, OtherThingsAreInTheWay) {
  const TemporaryDirectory dir;
  Put(dir / "file", "x");
  fs::create_symlink("nowhere", dir / "dangling");
  fs::create_directory(dir / "real");
  fs::create_symlink("real", dir / "link");
  EXPECT_EQ(MakeDirectories(dir / "file", 0755).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(MakeDirectories(dir / "file/below", 0755).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(MakeDirectories(dir / "dangling", 0755).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(MakeDirectories(dir / "link", 0755).ok());
  EXPECT_FALSE(MakeDirectories("", 0755).ok());
}

TEST(ListDirectoryTest, SortsBytesAndKeepsTheLimit) {
  const TemporaryDirectory dir;
  for (const char* name : {"b", "a", ".hidden", "B", "\xff", "a!"}) {
    Put(dir / name, "");
  }
  const std::vector<std::string> sorted = {".hidden", "B", "a",
                                           "a!",      "b", "\xff"};
  EXPECT_EQ(*ListDirectory(dir.path(), 6), sorted);
  EXPECT_EQ(ListDirectory(dir.path(), 5).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ListDirectory(dir / "none", 5).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ListDirectory(dir / "a", 5).status().code(),
            absl::StatusCode::kNotFound);  // ENOTDIR
}

}  // namespace
}  // namespace nixq
