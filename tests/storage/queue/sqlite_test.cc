#include "storage/queue/sqlite.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>

#include "storage/base/io.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::HasSubstr;

class SqliteTest : public testing::Test {
 protected:
  void SetUp() override {
    auto image = Database::MakeImage(
        "CREATE TABLE t (a INTEGER, b TEXT NOT NULL) STRICT");
    ASSERT_OK(image.status());
    ASSERT_OK(WriteFileAtomically(file_, *image, 0644));
    ASSERT_OK_AND_ASSIGN(database_, Database::Open(file_, {}));
  }

  TemporaryDirectory dir_;
  std::string file_ = dir_ / "x.db";
  std::optional<Database> database_;
};

TEST_F(SqliteTest, ValuesGoInAndOut) {
  ASSERT_OK_AND_ASSIGN(Statement put,
                       database_->Prepare("INSERT INTO t VALUES (?1, ?2)"));
  const std::string text("a\0b \xc3\xa4", 6);
  ASSERT_OK(put.Bind(int64_t{-5}, text).Run());
  ASSERT_OK(put.Bind(nullptr, "").Run());
  ASSERT_OK(put.Bind(std::optional<int64_t>(), std::string_view()).Run());
  EXPECT_EQ(database_->Changes(), 1);
  EXPECT_EQ(database_->LastInsertId(), 3);
  ASSERT_OK_AND_ASSIGN(Statement get,
                       database_->Prepare("SELECT a, b FROM t ORDER BY rowid"));
  ASSERT_OK_AND_ASSIGN(bool row, get.Step());
  ASSERT_TRUE(row);
  EXPECT_EQ(get.Int(0), -5);
  EXPECT_EQ(get.Text(1), text);
  EXPECT_FALSE(get.IsNull(0));
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(row, get.Step());
    ASSERT_TRUE(row);
    EXPECT_TRUE(get.IsNull(0));
    EXPECT_EQ(get.Int(0), 0);
    EXPECT_EQ(get.Text(1), "");
    EXPECT_FALSE(get.IsNull(1));
  }
  ASSERT_OK_AND_ASSIGN(row, get.Step());
  EXPECT_FALSE(row);
}

TEST_F(SqliteTest, EndOfRowsIsNoErrorAndErrorsAreNoEnd) {
  ASSERT_OK_AND_ASSIGN(std::optional<int64_t> none,
                       database_->QueryInt("SELECT a FROM t"));
  EXPECT_FALSE(none);
  absl::Status constraint =
      database_->Execute("INSERT INTO t VALUES (1, NULL)");
  EXPECT_TRUE(absl::IsInvalidArgument(constraint)) << constraint;
  EXPECT_THAT(std::string(constraint.message()), HasSubstr("t.b"));
  EXPECT_THAT(std::string(constraint.message()), HasSubstr(file_));
  absl::Status wrong_type =
      database_->Execute("INSERT INTO t VALUES ('x', 'y')");
  EXPECT_TRUE(absl::IsInvalidArgument(wrong_type)) << wrong_type;
  EXPECT_TRUE(absl::IsInternal(database_->Prepare("SELECT nosuch").status()));
  ASSERT_OK_AND_ASSIGN(Statement statement,
                       database_->Prepare("SELECT ?1 FROM t"));
  EXPECT_TRUE(absl::IsInternal(statement.Bind(1, 2).Step().status()));
}

TEST_F(SqliteTest, StatementsAreCachedAndMayBeNested) {
  ASSERT_OK(database_->Execute("INSERT INTO t VALUES (1, 'x'), (2, 'y')"));
  constexpr std::string_view kSql = "SELECT a FROM t WHERE ?1 IS NULL";
  ASSERT_OK_AND_ASSIGN(Statement outer, database_->Prepare(kSql));
  ASSERT_OK_AND_ASSIGN(bool row, outer.Step());
  ASSERT_TRUE(row);
  {
    ASSERT_OK_AND_ASSIGN(Statement inner, database_->Prepare(kSql));
    ASSERT_OK_AND_ASSIGN(row, inner.Bind(5).Step());
    EXPECT_FALSE(row);
  }
  EXPECT_EQ(outer.Int(0), 1);
  ASSERT_OK_AND_ASSIGN(row, outer.Step());
  EXPECT_EQ(outer.Int(0), 2);
  // A statement comes back from the cache without values.
  { Statement moved = std::move(outer); }
  ASSERT_OK_AND_ASSIGN(Statement again, database_->Prepare(kSql));
  ASSERT_OK_AND_ASSIGN(row, again.Step());
  EXPECT_TRUE(row);
}

TEST_F(SqliteTest, TransactionsRollBackUnlessCommitted) {
  {
    ASSERT_OK_AND_ASSIGN(Transaction one, Transaction::Begin(*database_));
    ASSERT_OK(database_->Execute("INSERT INTO t VALUES (1, 'x')"));
  }
  EXPECT_EQ(*database_->QueryInt("SELECT count(*) FROM t"), 0);
  {
    ASSERT_OK_AND_ASSIGN(Transaction one, Transaction::Begin(*database_));
    ASSERT_OK(database_->Execute("INSERT INTO t VALUES (1, 'x')"));
    Transaction moved = std::move(one);
    ASSERT_OK(moved.Commit());
  }
  EXPECT_EQ(*database_->QueryInt("SELECT count(*) FROM t"), 1);
  EXPECT_FALSE([&] {
    auto outer = Transaction::Begin(*database_);
    return Transaction::Begin(*database_).ok();
  }());
}

TEST_F(SqliteTest, ReadersSeeOneViewAndBlockNobody) {
  auto reader = Database::Open(file_, {.read_only = true});
  ASSERT_OK(reader.status());
  ASSERT_OK_AND_ASSIGN(Transaction view, Transaction::BeginRead(*reader));
  EXPECT_EQ(*reader->QueryInt("SELECT count(*) FROM t"), 0);
  ASSERT_OK(database_->Execute("INSERT INTO t VALUES (1, 'x')"));
  EXPECT_EQ(*reader->QueryInt("SELECT count(*) FROM t"), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(
      reader->Execute("INSERT INTO t VALUES (1, 'x')")));
}

TEST_F(SqliteTest, ClosingNeitherCheckpointsNorRemovesTheWal) {
  ASSERT_OK(database_->Execute("INSERT INTO t VALUES (1, 'x')"));
  struct stat before;
  ASSERT_EQ(stat(file_.c_str(), &before), 0);
  database_.reset();
  struct stat after;
  ASSERT_EQ(stat(file_.c_str(), &after), 0);
  EXPECT_EQ(before.st_size, after.st_size);
  ASSERT_EQ(stat((file_ + "-wal").c_str(), &after), 0);
  EXPECT_GT(after.st_size, 0);
  EXPECT_EQ(access((file_ + "-shm").c_str(), F_OK), 0);
}

TEST_F(SqliteTest, CheckpointsMoveTheWal) {
  ASSERT_OK(database_->Execute("INSERT INTO t VALUES (1, 'x')"));
  EXPECT_GT(database_->WalPages(), 0);
  EXPECT_GT(database_->PagesWritten(), 0);
  struct stat wal;
  ASSERT_OK(database_->Checkpoint(Database::CheckpointMode::kPassive));
  ASSERT_EQ(stat((file_ + "-wal").c_str(), &wal), 0);
  EXPECT_GT(wal.st_size, 0);
  ASSERT_OK(database_->Checkpoint(Database::CheckpointMode::kTruncate));
  ASSERT_EQ(stat((file_ + "-wal").c_str(), &wal), 0);
  EXPECT_EQ(wal.st_size, 0);
}

TEST_F(SqliteTest, ACheckpointDoesNotWaitForReaders) {
  ASSERT_OK(database_->Execute("INSERT INTO t VALUES (1, 'x')"));
  auto reader = Database::Open(file_, {.read_only = true});
  ASSERT_OK(reader.status());
  ASSERT_OK_AND_ASSIGN(Transaction view, Transaction::BeginRead(*reader));
  EXPECT_EQ(*reader->QueryInt("SELECT count(*) FROM t"), 1);
  ASSERT_OK(database_->Execute("INSERT INTO t VALUES (2, 'y')"));
  auto patient = Database::Open(file_, {.busy_timeout = absl::Hours(1)});
  ASSERT_OK(patient.status());
  EXPECT_OK(patient->Checkpoint(Database::CheckpointMode::kTruncate));
  EXPECT_EQ(*reader->QueryInt("SELECT count(*) FROM t"), 1);
}

TEST_F(SqliteTest, OpenSaysWhatIsWrong) {
  EXPECT_TRUE(absl::IsNotFound(Database::Open(dir_ / "nosuch", {}).status()));
  EXPECT_TRUE(absl::IsNotFound(Database::Open(dir_ / "no/such", {}).status()));
  std::ofstream(dir_ / "text") << "this is no database, it is a longer text "
                                  "than the header of a database would be, "
                                  "which has one hundred bytes";
  EXPECT_TRUE(absl::IsDataLoss(Database::Open(dir_ / "text", {}).status()));
  EXPECT_TRUE(absl::IsDataLoss(Database::Open(dir_.path(), {}).status()));
  EXPECT_TRUE(absl::IsDataLoss(Database::Open("/dev/null", {}).status()));
}

TEST_F(SqliteTest, DamageIsDataLoss) {
  for (int i = 0; i < 200; ++i) {
    ASSERT_OK(
        database_->Execute("INSERT INTO t VALUES (1, hex(randomblob("
                           "1000)))"));
  }
  ASSERT_OK(database_->Checkpoint(Database::CheckpointMode::kTruncate));
  database_.reset();
  std::string bytes = *ReadFile(file_, 1 << 24);
  ASSERT_GT(bytes.size(), 100000u);
  for (size_t i = 8192; i < 60000; ++i) bytes[i] = static_cast<char>(i * 7);
  ASSERT_OK(WriteFileAtomically(file_, bytes, 0644));
  auto damaged = Database::Open(file_, {});
  ASSERT_OK(damaged.status());
  absl::Status status =
      damaged->QueryInt("SELECT count(*) FROM t WHERE b > 'a'").status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

// Beyond the first table the schema may hold what this SQLite cannot parse.
TEST_F(SqliteTest, TheFirstTableNeedsNoOther) {
  ASSERT_OK(database_->Execute(
      "CREATE TABLE other (x); PRAGMA writable_schema = ON;"
      "UPDATE sqlite_schema SET sql = 'CREATE TABLE of the future' "
      "WHERE name = 'other'; PRAGMA writable_schema = RESET"));
  database_.reset();
  DatabaseOptions options;
  absl::StatusOr<Database> all = Database::Open(file_, options);
  EXPECT_TRUE(absl::IsDataLoss(all.status())) << all.status();
  options.first_table_only = true;
  ASSERT_OK_AND_ASSIGN(Database first, Database::Open(file_, options));
  ASSERT_OK(first.Execute("INSERT INTO t VALUES (1, 'b')"));
  EXPECT_EQ(*first.QueryInt("SELECT count(*) FROM t"), 1);
  absl::Status whole = first.ReadWholeSchema();
  if (whole.ok()) whole = first.QueryInt("SELECT 1 FROM t").status();
  EXPECT_TRUE(absl::IsDataLoss(whole)) << whole;
}

TEST_F(SqliteTest, TheWholeSchemaCanBeReadLater) {
  ASSERT_OK(database_->Execute("CREATE TABLE other (x)"));
  DatabaseOptions options;
  options.first_table_only = true;
  ASSERT_OK_AND_ASSIGN(Database first, Database::Open(file_, options));
  const std::string_view count = "SELECT count(*) FROM other";
  EXPECT_TRUE(absl::IsInternal(first.QueryInt(count).status()));
  ASSERT_OK(first.ReadWholeSchema());
  EXPECT_EQ(*first.QueryInt(count), 0);
}

TEST_F(SqliteTest, ARelativeNameWorks) {
  std::string before = std::filesystem::current_path();
  ASSERT_EQ(chdir(dir_.path().c_str()), 0);
  EXPECT_OK(Database::Open("x.db", {}).status());
  ASSERT_EQ(chdir(before.c_str()), 0);
}

}  // namespace
}  // namespace nixq
