#include "storage/queue/inbox.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "schema/migrations.h"
#include "storage/base/io.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::HasSubstr;

class InboxTest : public testing::Test {
 protected:
  std::string State() { return dir_ / "state"; }

  absl::Status Put(const std::vector<InboxEntry>& entries,
                   absl::Duration busy = absl::Milliseconds(100)) {
    auto writer = InboxWriter::Open(State(), busy);
    if (!writer.ok()) return writer.status();
    return writer->Put(entries);
  }

  int64_t QueryInt(const std::string& sql) {
    auto database = Database::Open(QueueFile(State()), {});
    EXPECT_TRUE(database.ok()) << database.status();
    if (!database.ok()) return -1;
    auto value = database->QueryInt(sql);
    EXPECT_TRUE(value.ok()) << value.status();
    return value.ok() ? value->value_or(-1) : -1;
  }
  void Execute(const std::string& sql) {
    auto database = Database::Open(QueueFile(State()), {});
    ASSERT_OK(database.status());
    ASSERT_OK(database->Execute(sql));
  }
  int64_t Rows() { return QueryInt("SELECT count(*) FROM inbox"); }

  mode_t ModeOf(const std::string& file) {
    struct stat info;
    return stat(file.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
  }

  TemporaryDirectory dir_;
};

// Runs `body` in a child; 0 if it returned true.
template <typename Body>
pid_t Fork(Body body) {
  pid_t pid = fork();
  if (pid == 0) _exit(body() ? 0 : 1);
  return pid;
}

bool Succeeded(pid_t pid) {
  int status = 0;
  return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

TEST_F(InboxTest, CreatesTheDirectoryAndTheDatabase) {
  ASSERT_OK(Put({Output("a"), Output("b")}));
  EXPECT_EQ(Rows(), 2);
  EXPECT_EQ(ModeOf(State()), 0750u);
  for (const char* suffix : {"", "-wal", "-shm"}) {
    EXPECT_EQ(ModeOf(QueueFile(State()) + suffix), 0640u) << suffix;
  }
  EXPECT_EQ(QueryInt("PRAGMA user_version"), 1);
  EXPECT_EQ(QueryInt("SELECT count(*) FROM sqlite_schema"), 1);
}

// The contract with hooks of every version: this text never changes.
TEST_F(InboxTest, TheInboxIsFrozen) {
  ASSERT_OK(Put({Output("a")}));
  auto database = Database::Open(QueueFile(State()), {});
  ASSERT_OK(database.status());
  ASSERT_OK_AND_ASSIGN(
      Statement statement,
      database->Prepare("SELECT group_concat(name || ' ' || type || ' ' || "
                        "\"notnull\" || ' ' || coalesce(dflt_value, '-')) "
                        "FROM pragma_table_info('inbox')"));
  ASSERT_OK_AND_ASSIGN(bool row, statement.Step());
  ASSERT_TRUE(row);
  EXPECT_EQ(statement.Text(0),
            "id INTEGER 0 -,kind TEXT 1 -,path TEXT 1 -,deriver TEXT 1 '',"
            "named INTEGER 1 1,source TEXT 1 'hook',"
            "created_unix_ms INTEGER 1 -");
  EXPECT_EQ(schema::kMigrations[0].name, "0001_inbox");
}

TEST_F(InboxTest, ModesFollowTheDirectory) {
  for (auto [directory, file] : std::vector<std::pair<mode_t, mode_t>>{
           {0700, 0600}, {0750, 0640}, {0770, 0660}, {0777, 0660}}) {
    std::string state = dir_ / absl::StrFormat("m%o", directory);
    ASSERT_EQ(mkdir(state.c_str(), 0700), 0);
    ASSERT_EQ(chmod(state.c_str(), directory), 0);
    auto writer = InboxWriter::Open(state, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({Output("a")}));
    for (const char* suffix : {"", "-wal", "-shm"}) {
      EXPECT_EQ(ModeOf(QueueFile(state) + suffix), file) << suffix;
    }
  }
}

TEST_F(InboxTest, RootGivesTheFilesToTheOwnerOfTheDirectory) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "NOT RUN: only root can give files away";
  }
  ASSERT_EQ(mkdir(State().c_str(), 0750), 0);
  ASSERT_EQ(chown(State().c_str(), 1234, 4321), 0);
  ASSERT_OK(Put({Output("a")}));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    struct stat info;
    ASSERT_EQ(stat((QueueFile(State()) + suffix).c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 1234u) << suffix;
    EXPECT_EQ(info.st_gid, 4321u) << suffix;
  }
  // That owner can write, and root again afterwards.
  ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  EXPECT_TRUE(Succeeded(Fork([&] {
    return setgid(4321) == 0 && setuid(1234) == 0 && Put({Output("b")}).ok();
  })));
  ASSERT_OK(Put({Output("c")}));
  EXPECT_EQ(Rows(), 3);
}

TEST_F(InboxTest, SixtyFourAtOnceOnAFreshDirectory) {
  // All start when the pipe is closed.
  int gate[2];
  ASSERT_EQ(pipe(gate), 0);
  std::vector<pid_t> children;
  children.reserve(64);
  for (int i = 0; i < 64; ++i) {
    children.push_back(Fork([&] {
      close(gate[1]);
      char byte;
      if (read(gate[0], &byte, 1) != 0) return false;
      absl::Status status = Put({Output(absl::StrFormat("first-%d", i)),
                                 Output(absl::StrFormat("second-%d", i))},
                                absl::Seconds(60));
      if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
      return status.ok();
    }));
  }
  close(gate[0]);
  close(gate[1]);
  for (pid_t child : children) EXPECT_TRUE(Succeeded(child));
  EXPECT_EQ(Rows(), 128);
  EXPECT_EQ(QueryInt("SELECT count(DISTINCT path) FROM inbox"), 128);
  auto names = ListDirectory(State(), 100);
  ASSERT_OK(names.status());
  EXPECT_EQ(*names, (std::vector<std::string>{"queue.db", "queue.db-shm",
                                              "queue.db-wal"}));
}

TEST_F(InboxTest, NothingToPutIsNoTransaction) {
  ASSERT_OK(Put({}));
  EXPECT_EQ(Rows(), 0);
}

TEST_F(InboxTest, OneBadEntryAndNoneIsThere) {
  InboxEntry bad = Output("b");
  bad.kind = static_cast<InboxKind>(1);
  ASSERT_OK(Put({Output("a")}));
  auto database = Database::Open(QueueFile(State()), {});
  ASSERT_OK(database.status());
  ASSERT_OK(database->Execute(
      "CREATE TRIGGER no BEFORE INSERT ON inbox WHEN NEW.kind = 'derivation' "
      "BEGIN SELECT raise(ABORT, 'no'); END"));
  EXPECT_TRUE(absl::IsInvalidArgument(Put({Output("c"), bad, Output("d")})));
  EXPECT_EQ(Rows(), 1);
}

TEST_F(InboxTest, AnEmptyFileBecomesAQueue) {
  ASSERT_EQ(mkdir(State().c_str(), 0750), 0);
  std::ofstream(QueueFile(State())).close();
  ASSERT_OK(Put({Output("a")}));
  EXPECT_EQ(Rows(), 1);
  EXPECT_EQ(QueryInt("PRAGMA user_version"), 1);
}

// A newer daemon's tables, or a person's, may be beyond an older hook.
TEST_F(InboxTest, WhatElseThereIsNeedNotBeUnderstood) {
  ASSERT_OK(Put({Output("a")}));
  Execute(
      "CREATE TABLE other (x); PRAGMA writable_schema = ON;"
      "UPDATE sqlite_schema SET sql = 'CREATE TABLE of the future' "
      "WHERE name = 'other'");
  ASSERT_OK(Put({Output("b")}));
  EXPECT_TRUE(
      absl::IsDataLoss(Database::Open(QueueFile(State()), {}).status()));
  DatabaseOptions options;
  options.first_table_only = true;
  ASSERT_OK_AND_ASSIGN(Database database,
                       Database::Open(QueueFile(State()), options));
  EXPECT_EQ(*database.QueryInt("SELECT count(*) FROM inbox"), 2);
}

TEST_F(InboxTest, IndexesAndTriggersOfAPersonAreKeptUp) {
  ASSERT_OK(Put({Output("a")}));
  for (const char* sql : {"CREATE INDEX by_path ON Inbox (path)",
                          "DROP INDEX by_path; CREATE TABLE seen (path);"
                          "CREATE TRIGGER see AFTER INSERT ON Inbox BEGIN "
                          "INSERT INTO seen VALUES (NEW.path); END"}) {
    Execute(sql);
    ASSERT_OK(Put({Output("b")}));
    EXPECT_EQ(QueryInt("SELECT count(*) FROM pragma_integrity_check "
                       "WHERE integrity_check <> 'ok'"),
              0);
  }
  EXPECT_EQ(Rows(), 3);
  EXPECT_EQ(QueryInt("SELECT count(*) FROM seen"), 1);
}

TEST_F(InboxTest, TheInboxNeedNotComeFirst) {
  ASSERT_EQ(mkdir(State().c_str(), 0750), 0);
  std::ofstream(QueueFile(State())).close();
  Execute("CREATE TABLE mine (x); " + std::string(schema::kMigrations[0].sql));
  ASSERT_OK(Put({Output("a")}));
  EXPECT_EQ(Rows(), 1);
}

TEST_F(InboxTest, AFileThatLostItsWalModeGetsItBack) {
  ASSERT_OK(Put({Output("a")}));
  {
    auto database = Database::Open(QueueFile(State()), {});
    ASSERT_OK(database.status());
    ASSERT_OK(database->Execute("PRAGMA journal_mode = DELETE"));
  }
  std::string header = *ReadFile(QueueFile(State()), 1 << 20);
  ASSERT_EQ(header[18], 1);
  ASSERT_OK(Put({Output("b")}));
  header = *ReadFile(QueueFile(State()), 1 << 20);
  EXPECT_EQ(header[18], 2);
  EXPECT_EQ(Rows(), 2);
}

// None of these hangs, none is followed, none is changed.
TEST_F(InboxTest, WhatIsNoDatabaseIsRefused) {
  std::string file = QueueFile(State());
  std::string elsewhere = dir_ / "elsewhere.db";
  ASSERT_EQ(mkdir(State().c_str(), 0750), 0);

  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsDataLoss(Put({Output("a")})));
  ASSERT_EQ(unlink(file.c_str()), 0);

  ASSERT_EQ(symlink(elsewhere.c_str(), file.c_str()), 0);
  EXPECT_TRUE(absl::IsDataLoss(Put({Output("a")})));
  EXPECT_FALSE(std::filesystem::exists(elsewhere));
  ASSERT_EQ(unlink(file.c_str()), 0);

  ASSERT_EQ(mkdir(file.c_str(), 0700), 0);
  EXPECT_TRUE(absl::IsDataLoss(Put({Output("a")})));
  ASSERT_EQ(rmdir(file.c_str()), 0);

  std::string garbage(8192, 'x');
  std::ofstream(file) << garbage;
  EXPECT_TRUE(absl::IsDataLoss(Put({Output("a")})));
  EXPECT_EQ(*ReadFile(file, 1 << 20), garbage);
  ASSERT_EQ(unlink(file.c_str()), 0);

  std::ofstream(file) << "short";
  EXPECT_TRUE(absl::IsDataLoss(Put({Output("a")})));
  ASSERT_EQ(unlink(file.c_str()), 0);

  {
    std::ofstream(file).close();
    auto other = Database::Open(file, {});
    ASSERT_OK(other.status());
    ASSERT_OK(other->Execute("CREATE TABLE something (x)"));
  }
  absl::Status status = Put({Output("a")});
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("without an inbox"));
}

TEST_F(InboxTest, TheWayThereMayHaveSymlinks) {
  ASSERT_EQ(mkdir((dir_ / "real").c_str(), 0755), 0);
  ASSERT_EQ(symlink((dir_ / "real").c_str(), State().c_str()), 0);
  ASSERT_OK(Put({Output("a")}));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "real/queue.db"));
}

TEST_F(InboxTest, AFileInTheWayOfTheDirectory) {
  std::ofstream(State()) << "x";
  EXPECT_FALSE(Put({Output("a")}).ok());
}

TEST_F(InboxTest, LockedForLongerIsUnavailable) {
  ASSERT_OK(Put({Output("a")}));
  auto other = Database::Open(QueueFile(State()), {});
  ASSERT_OK(other.status());
  {
    ASSERT_OK_AND_ASSIGN(Transaction lock, Transaction::Begin(*other));
    EXPECT_TRUE(absl::IsUnavailable(Put({Output("b")})));
  }
  ASSERT_OK(Put({Output("c")}));
  EXPECT_EQ(Rows(), 2);
}

TEST_F(InboxTest, WaitsForALockThatGoesInTime) {
  ASSERT_OK(Put({Output("a")}));
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t child = Fork([&] {
    auto other = Database::Open(QueueFile(State()), {});
    auto lock = Transaction::Begin(*other);
    if (!lock.ok() || write(ready[1], "x", 1) != 1) return false;
    usleep(50000);  // the test's own: it stands for a slow transaction
    return lock->Commit().ok();
  });
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_OK(Put({Output("b")}, absl::Seconds(60)));
  EXPECT_TRUE(Succeeded(child));
  EXPECT_EQ(Rows(), 2);
  close(ready[0]);
  close(ready[1]);
}

TEST_F(InboxTest, NotOursToWrite) {
  ASSERT_OK(Put({Output("a")}));
  auto is_refused = [&] {
    return absl::IsPermissionDenied(Put({Output("b")}));
  };
  if (geteuid() != 0) {
    ASSERT_EQ(chmod(QueueFile(State()).c_str(), 0444), 0);
    EXPECT_TRUE(is_refused());
    ASSERT_EQ(chmod(QueueFile(State()).c_str(), 0644), 0);
    EXPECT_EQ(Rows(), 1);
    return;
  }
  ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  for (mode_t mode : {0755, 0700}) {  // may look, may not even look
    ASSERT_EQ(chmod(State().c_str(), mode), 0);
    for (const char* suffix : {"", "-wal", "-shm"}) {
      ASSERT_EQ(chmod((QueueFile(State()) + suffix).c_str(), 0644), 0);
    }
    EXPECT_TRUE(Succeeded(Fork([&] {
      return setgid(4321) == 0 && setuid(1234) == 0 && is_refused();
    })));
  }
  EXPECT_EQ(Rows(), 1);
}

// A file size limit stands for a full disk.
TEST_F(InboxTest, DiskFullAndNothingHalfThere) {
  ASSERT_OK(Put({Output("a")}));
  std::vector<InboxEntry> many;
  many.reserve(2000);
  for (int i = 0; i < 2000; ++i) {
    many.push_back(Output(absl::StrFormat("package-%d", i)));
  }
  EXPECT_TRUE(Succeeded(Fork([&] {
    signal(SIGXFSZ, SIG_IGN);
    rlimit limit = {.rlim_cur = 65536, .rlim_max = 65536};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return false;
    absl::Status status = Put(many);
    if (!absl::IsResourceExhausted(status)) {
      fprintf(stderr, "%s\n", status.ToString().c_str());
      return false;
    }
    return true;
  })));
  EXPECT_EQ(Rows(), 1);
  EXPECT_EQ(QueryInt("SELECT count(*) FROM pragma_integrity_check() "
                     "WHERE integrity_check = 'ok'"),
            1);
  ASSERT_OK(Put(many));
  EXPECT_EQ(Rows(), 2001);
}

TEST_F(InboxTest, DiskFullWhenCreatingLeavesNothing) {
  EXPECT_TRUE(Succeeded(Fork([&] {
    signal(SIGXFSZ, SIG_IGN);
    rlimit limit = {.rlim_cur = 100, .rlim_max = 100};
    return setrlimit(RLIMIT_FSIZE, &limit) == 0 && !Put({Output("a")}).ok();
  })));
  EXPECT_TRUE(std::filesystem::is_empty(State()));
}

// Without a daemon the WAL is not read and grown without end; with one that
// reads, nothing is taken from under it.
TEST_F(InboxTest, AnUnattendedWalIsBounded) {
  auto wal_bytes = [&] {
    return std::filesystem::file_size(QueueFile(State()) + "-wal");
  };
  InboxEntry entry = Output("a");
  entry.path += std::string(3000, 'x');  // more than a page for two
  uintmax_t largest = 0;
  int64_t rows = 0;
  for (int i = 0; i < 60; ++i) {
    ASSERT_OK(Put(std::vector<InboxEntry>(200, entry)));
    rows += 200;
    largest = std::max(largest, wal_bytes());
  }
  EXPECT_EQ(Rows(), rows);
  EXPECT_GT(largest, uintmax_t{8} << 20);
  EXPECT_LT(largest, uintmax_t{12} << 20);
}

TEST_F(InboxTest, SweepsWhatKilledHooksLeft) {
  ASSERT_TRUE(Put({{.path = "/nix/store/x"}}).ok());
  const auto old =
      std::filesystem::file_time_type::clock::now() - std::chrono::minutes(5);
  for (const char* name : {"/.queue.db.12.0", "/.queue.db.13.0", "/mine"}) {
    std::ofstream(State() + name) << "half";
    std::filesystem::last_write_time(State() + name, old);
  }
  std::ofstream(State() + "/.queue.db.13.0") << "of a living hook";
  std::filesystem::create_directory(State() + "/.queue.db.directory");
  std::filesystem::last_write_time(State() + "/.queue.db.directory", old);
  SweepUnfinishedDatabases(State());
  EXPECT_FALSE(std::filesystem::exists(State() + "/.queue.db.12.0"));
  EXPECT_TRUE(std::filesystem::exists(State() + "/.queue.db.13.0"));
  EXPECT_TRUE(std::filesystem::exists(State() + "/mine"));
  EXPECT_TRUE(std::filesystem::exists(State() + "/.queue.db.directory"));
  EXPECT_EQ(Rows(), 1);
}

}  // namespace
}  // namespace nixq
