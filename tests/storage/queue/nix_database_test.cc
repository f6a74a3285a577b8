#include "storage/queue/nix_database.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr char kHash[] = "/nix/store/00000000000000000000000000000000-";

// With a database of Nix's schema 10, as far as it matters here; what Nix
// itself writes is in tests/hook/test_real_nix.py.
class NixDatabaseTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(dir_ / "db");
    std::ofstream(File()).flush();
    Execute(
        "CREATE TABLE ValidPaths (id INTEGER PRIMARY KEY AUTOINCREMENT, "
        "path TEXT UNIQUE NOT NULL, hash TEXT NOT NULL, registrationTime "
        "INTEGER NOT NULL, deriver TEXT, narSize INTEGER)");
  }

  std::string File() { return dir_ / "db/db.sqlite"; }

  void Execute(const std::string& sql) {
    auto database = Database::Open(File(), {});
    ASSERT_OK(database.status());
    ASSERT_OK(database->Execute(sql));
  }

  void Register(const std::string& name, const std::string& deriver) {
    Execute(absl::StrFormat(
        "INSERT INTO ValidPaths (path, hash, registrationTime, deriver) "
        "VALUES ('%s%s', 'sha256:00', 1, %s)",
        kHash, name,
        deriver.empty() ? "NULL" : absl::StrFormat("'%s%s'", kHash, deriver)));
  }

  absl::StatusOr<std::vector<std::string>> Outputs(const std::string& drv) {
    StoreDir store_dir = *StoreDir::Parse("/nix/store");
    auto outputs = RegisteredOutputs(dir_.path(), store_dir,
                                     *store_dir.ParsePath(kHash + drv));
    if (!outputs.ok()) return outputs.status();
    std::vector<std::string> names;
    for (const StorePath& path : *outputs) names.emplace_back(path.name());
    return names;
  }

  TemporaryDirectory dir_;
};

TEST_F(NixDatabaseTest, FindsWhatTheDerivationLeft) {
  Register("lib.drv", "");
  Register("lib", "lib.drv");
  Register("other", "other.drv");
  Register("lib-dev", "lib.drv");
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> found, Outputs("lib.drv"));
  EXPECT_THAT(found, ElementsAre("lib", "lib-dev"));
  ASSERT_OK_AND_ASSIGN(found, Outputs("unknown.drv"));
  EXPECT_THAT(found, IsEmpty());
}

TEST_F(NixDatabaseTest, LooksOnlyAtTheNewest) {
  Register("old", "x.drv");
  Execute(absl::StrFormat("UPDATE sqlite_sequence SET seq = seq + %d",
                          kNewestRegistrations - 1));
  Register("new", "x.drv");
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> found, Outputs("x.drv"));
  EXPECT_THAT(found, ElementsAre("new"));
}

TEST_F(NixDatabaseTest, IgnoresWhatIsNoStorePath) {
  Register("bad name", "x.drv");
  Register("good", "x.drv");
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> found, Outputs("x.drv"));
  EXPECT_THAT(found, ElementsAre("good"));
}

TEST_F(NixDatabaseTest, SaysWhyItCannotTell) {
  Execute("ALTER TABLE ValidPaths RENAME COLUMN deriver TO producer");
  EXPECT_TRUE(absl::IsInternal(Outputs("x.drv").status()));
  std::filesystem::remove(File());
  EXPECT_TRUE(absl::IsNotFound(Outputs("x.drv").status()));
}

}  // namespace
}  // namespace nixq
