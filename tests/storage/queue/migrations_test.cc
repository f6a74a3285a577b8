#include "storage/queue/migrations.h"

#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "storage/base/io.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using schema::Migration;
using testing::HasSubstr;

class MigrationsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto image = Database::MakeImage("PRAGMA user_version = 0");
    ASSERT_OK(image.status());
    // A database of nothing is no bytes.
    ASSERT_OK(WriteFileAtomically(file_, "", 0644));
    ASSERT_OK_AND_ASSIGN(database_, Database::Open(file_, {}));
  }
  int Version() {
    auto version = SchemaVersion(*database_);
    EXPECT_TRUE(version.ok()) << version.status();
    return version.ok() ? *version : -1;
  }

  TemporaryDirectory dir_;
  std::string file_ = dir_ / "x.db";
  std::optional<Database> database_;
};

TEST_F(MigrationsTest, NumbersAreOneToNewest) {
  int expected = 0;
  for (const Migration& migration : schema::kMigrations) {
    EXPECT_EQ(migration.number, ++expected) << migration.name;
  }
  EXPECT_EQ(NewestSchemaVersion(), expected);
}

TEST_F(MigrationsTest, AllTablesAreStrict) {
  ASSERT_OK(Migrate(*database_));
  EXPECT_EQ(Version(), NewestSchemaVersion());
  EXPECT_OK(CheckSchemaVersion(*database_));
  EXPECT_GE(*database_->QueryInt("SELECT count(*) FROM pragma_table_list "
                                 "WHERE type = 'table' AND strict"),
            5);
  EXPECT_EQ(*database_->QueryInt(
                "SELECT count(*) FROM pragma_table_list WHERE type = 'table' "
                "AND NOT strict AND name NOT LIKE 'sqlite%'"),
            0);
  ASSERT_OK(Migrate(*database_));
}

TEST_F(MigrationsTest, OnlyWhatIsMissingIsApplied) {
  const std::vector<Migration> one = {{1, "one", "CREATE TABLE a (x)"}};
  const std::vector<Migration> two = {
      {1, "one", "CREATE TABLE a (x)"},
      {2, "two", "CREATE TABLE b (x); INSERT INTO b SELECT * FROM a"}};
  ASSERT_OK(Migrate(*database_, one));
  ASSERT_OK(database_->Execute("INSERT INTO a VALUES (5)"));
  ASSERT_OK(Migrate(*database_, two));
  EXPECT_EQ(Version(), 2);
  EXPECT_EQ(*database_->QueryInt("SELECT x FROM b"), 5);
  absl::Status newer = Migrate(*database_, one);
  EXPECT_TRUE(absl::IsFailedPrecondition(newer)) << newer;
  EXPECT_EQ(Version(), 2);
}

TEST_F(MigrationsTest, AFailureLeavesTheVersionBefore) {
  const std::vector<Migration> broken = {
      {1, "0001_good", "CREATE TABLE a (x)"},
      {2, "0002_bad", "CREATE TABLE b (x); CREATE TABLE a (x)"},
      {3, "0003_never", "CREATE TABLE c (x)"}};
  absl::Status status = Migrate(*database_, broken);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("0002_bad"));
  EXPECT_EQ(Version(), 1);
  EXPECT_EQ(*database_->QueryInt("SELECT count(*) FROM sqlite_schema"), 1);
}

TEST_F(MigrationsTest, SeveralAtOnce) {
  database_.reset();
  std::vector<pid_t> children;
  for (int i = 0; i < 8; ++i) {
    pid_t pid = fork();
    if (pid == 0) {
      auto database = Database::Open(file_, {.busy_timeout = absl::Minutes(1)});
      _exit(database.ok() && Migrate(*database).ok() ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  ASSERT_OK_AND_ASSIGN(database_, Database::Open(file_, {}));
  EXPECT_EQ(Version(), NewestSchemaVersion());
}

// All that a hook reads of the schema is its first row.
TEST_F(MigrationsTest, TheInboxComesFirstAndIsBare) {
  ASSERT_OK(Migrate(*database_));
  EXPECT_EQ(*database_->QueryInt("SELECT name = 'inbox' FROM sqlite_schema "
                                 "ORDER BY rowid LIMIT 1"),
            1);
  EXPECT_EQ(*database_->QueryInt("SELECT count(*) FROM sqlite_schema "
                                 "WHERE tbl_name = 'inbox' COLLATE NOCASE"),
            1);
}

// What a hook makes is what the migrations make of nothing.
TEST_F(MigrationsTest, AHooksDatabaseBecomesTheSame) {
  ASSERT_OK(Migrate(*database_));
  std::string state = dir_ / "state";
  {
    auto writer = InboxWriter::Open(state, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({Output("kept")}));
  }
  auto hooks = Database::Open(QueueFile(state), {});
  ASSERT_OK(hooks.status());
  ASSERT_OK(Migrate(*hooks));
  EXPECT_EQ(*hooks->QueryInt("SELECT count(*) FROM inbox"), 1);
  std::vector<std::string> schemas;
  for (Database* database : {&*database_, &*hooks}) {
    ASSERT_OK_AND_ASSIGN(
        Statement statement,
        database->Prepare("SELECT group_concat(sql, ';') FROM (SELECT sql FROM "
                          "sqlite_schema ORDER BY type, name)"));
    ASSERT_OK_AND_ASSIGN(bool row, statement.Step());
    ASSERT_TRUE(row);
    schemas.push_back(statement.Text(0));
  }
  EXPECT_EQ(schemas[0], schemas[1]);
}

}  // namespace
}  // namespace nixq
