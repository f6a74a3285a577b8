// What the daemon runs often does not get slower with the length of history.

#include <sqlite3.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::HasSubstr;

// Sees every statement of every connection that is opened while it lives:
// its text, and how many steps SQLite's machine took for it.
class StatementSpy {
 public:
  StatementSpy() {
    current_ = this;
    sqlite3_auto_extension(reinterpret_cast<void (*)()>(&Install));
  }
  ~StatementSpy() {
    sqlite3_cancel_auto_extension(reinterpret_cast<void (*)()>(&Install));
    current_ = nullptr;
  }

  void Clear() {
    steps_ = 0;
    texts_.clear();
  }
  int64_t steps() const { return steps_; }
  const std::set<std::string>& texts() const { return texts_; }

 private:
  static int Install(sqlite3* connection, char**, const void*) {
    return sqlite3_trace_v2(connection, SQLITE_TRACE_PROFILE, &Traced, nullptr);
  }
  static int Traced(unsigned, void*, void* statement_pointer, void*) {
    auto* statement = static_cast<sqlite3_stmt*>(statement_pointer);
    if (current_ == nullptr || sqlite3_sql(statement) == nullptr) return 0;
    current_->steps_ +=
        sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_VM_STEP, 1);
    current_->texts_.insert(sqlite3_sql(statement));
    return 0;
  }

  // SQLite calls back without a context when a connection is opened.
  static StatementSpy* current_;

  int64_t steps_ = 0;
  std::set<std::string> texts_;
};
StatementSpy* StatementSpy::current_ = nullptr;

struct Call {
  const char* name;
  std::function<absl::Status()> run;
  // Counting what is done walks its index.
  bool may_grow = false;
};

class Plans : public QueueFixture {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(QueueFixture::SetUp());
    report_.emplace(*Report::Open(Options()));
  }

  // Adds `count` paths whose jobs are done, without holds.
  void AddHistory(int count) {
    Execute(absl::StrFormat(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "LIMIT %d) INSERT INTO paths (path, name, queued_unix_ms) SELECT "
        "'/nix/store/h' || (i + (SELECT count(*) FROM paths)) || '-x', 'x', 1 "
        "FROM n; "
        "INSERT INTO jobs (path_id, target_id, state, outcome, "
        "queued_unix_ms, changed_unix_ms) SELECT p.id, t.id, 'done', 'sent', "
        "1, 1 FROM paths p, targets t WHERE p.job_count = 0 AND "
        "p.name = 'x'",
        count));
  }

  std::vector<Call> Calls() {
    std::vector<Call> calls = CallsOfWork();
    for (const auto& more : {CallsOfKeeping(), CallsOfReport()}) {
      calls.insert(calls.end(), more.begin(), more.end());
    }
    return calls;
  }

  // In this order: each finds what the one before has left.
  std::vector<Call> CallsOfWork() {
    absl::Time lease = clock_.Now() + absl::Minutes(1);
    return {
        {"Accept",
         [this] {
           return queue_->Accept({Path("a"), Path("b")}, {}, {});
         }},
        {"Known", [this] { return queue_->Known({Path("a").path}).status(); }},
        {"NextDue",
         [this] { return queue_->NextDue(absl::InfinitePast()).status(); }},
        {"Claim",
         [this, lease] {
           auto jobs = queue_->Claim(targets_[0].id, 1, lease);
           if (jobs.ok() && jobs->size() == 1) job_id_ = jobs->at(0).job_id;
           return jobs.ok() && jobs->size() != 1
                      ? absl::InternalError("nothing to claim")
                      : jobs.status();
         }},
        {"ClaimReferences",
         [this, lease] {
           return queue_
               ->ClaimReferences(targets_[0].id, {Path("a"), Path("c")}, lease)
               .status();
         }},
        {"RenewLeases",
         [this, lease] { return queue_->RenewLeases({job_id_}, lease); }},
        {"Settle parked",
         [this] {
           Settlement settlement;
           settlement.job_id = job_id_;
           settlement.verb = Settlement::Verb::kPark;
           settlement.blocked_by = Path("b").path;
           return queue_->Settle({settlement});
         }},
        {"Retry", [this] { return queue_->Retry({}).status(); }},
        {"Retry one",
         [this] {
           return queue_->Retry({.paths = {Path("a").path}}).status();
         }},
        {"ReleaseAll", [this] { return queue_->ReleaseAll().status(); }},
        {"Claim again",
         [this, lease] {
           return queue_->Claim(targets_[0].id, 1, lease).status();
         }},
        {"Settle", [this] { return queue_->Settle({{.job_id = job_id_}}); }},
    };
  }

  std::vector<Call> CallsOfKeeping() {
    return {
        {"FinishedHolds",
         [this] { return queue_->FinishedHolds(0, 100).status(); }},
        {"Holds", [this] { return queue_->Holds(0, 100).status(); }},
        {"Pins", [this] { return queue_->Pins(0, 100).status(); }},
        {"RootNeeds",
         [this] { return queue_->RootNeeds({Path("a").path}).status(); }},
        {"RemoveFinished of nothing",
         [this] {
           return queue_->RemoveFinished(absl::UnixEpoch(), 100).status();
         }},
    };
  }

  // Ends with forgetting, so that it can begin again.
  std::vector<Call> CallsOfReport() {
    return {
        {"Report::Path",
         [this] { return report_->Path(Path("a").path).status(); }},
        {"Report::Path of a prefix",
         [this] {
           return report_->Path(Path("a").path.substr(strlen("/nix/store/")))
               .status();
         }},
        {"Report::Arrivals",
         [this] {
           return report_->Arrivals(absl::InfiniteFuture(), 10).status();
         }},
        {"Report::Count", [this] { return report_->Count({}).status(); }},
        {"Report::Jobs",
         [this] { return report_->Jobs({.limit = 1}).status(); }},
        {"Report::Jobs done",
         [this] {
           return report_->Jobs({.state = JobState::kDone, .limit = 1})
               .status();
         }},
        {"History",
         [this] {
           auto database = Database::Open(QueueFile(Options().state_dir), {});
           return database->QueryInt("SELECT attempts FROM history LIMIT 1")
               .status();
         }},
        {"Report::Targets", [this] { return report_->Targets().status(); }},
        {"Report::Summary", [this] { return report_->Summary().status(); },
         /*may_grow=*/true},
        {"Forget",
         [this] {
           return queue_
               ->Forget(
                   {.paths = {Path("a").path, Path("b").path, Path("c").path}})
               .status();
         }},
    };
  }

  // The steps of each call.
  std::map<std::string, int64_t> Measure() {
    std::map<std::string, int64_t> steps;
    for (const Call& call : Calls()) {
      spy_.Clear();
      EXPECT_OK(call.run());
      steps[call.name] = spy_.steps();
      for (const std::string& text : spy_.texts()) texts_.insert(text);
    }
    return steps;
  }

  StatementSpy spy_;
  std::optional<Report> report_;
  std::set<std::string> texts_;
  int64_t job_id_ = 0;
};

TEST_F(Plans, StepsDoNotGrowWithHistory) {
  AddHistory(500);
  Measure();  // from now on the paths of the calls have rows
  std::map<std::string, int64_t> few = Measure();
  AddHistory(20000);
  ASSERT_GE(QueryInt("SELECT count(*) FROM jobs WHERE state = 'done'"), 20500);
  std::map<std::string, int64_t> many = Measure();
  for (const Call& call : Calls()) {
    EXPECT_GT(few[call.name], 0) << call.name;
    if (call.may_grow) {
      EXPECT_GT(many[call.name], few[call.name] * 2) << call.name;
    } else {
      EXPECT_LE(many[call.name], few[call.name] * 11 / 10 + 20) << call.name;
    }
  }
}

// Small tables may be walked, and what a statement has made itself; history
// only along an index that has all that is asked for.
TEST_F(Plans, NoTableScans) {
  Measure();
  ASSERT_GT(texts_.size(), 30u);
  std::set<std::string> explains;  // outlives the database that caches them
  auto database = Database::Open(QueueFile(Options().state_dir), {});
  ASSERT_OK(database.status());
  int searches = 0;
  for (const std::string& text : texts_) {
    auto statement =
        database->Prepare(*explains.insert("EXPLAIN QUERY PLAN " + text).first);
    if (!statement.ok()) continue;  // BEGIN, PRAGMA
    while (true) {
      ASSERT_OK_AND_ASSIGN(bool row, statement->Step());
      if (!row) break;
      std::string detail = statement->Text(3);
      searches += detail.starts_with("SEARCH");
      if (!detail.starts_with("SCAN")) continue;
      bool history = false;
      for (std::string_view table :
           {"SCAN jobs", "SCAN paths", "SCAN j", "SCAN p"}) {
        history |=
            detail == table || detail.starts_with(std::string(table) + " ");
      }
      if (history) {
        EXPECT_THAT(detail, HasSubstr("INDEX")) << text;
      }
    }
  }
  EXPECT_GT(searches, 20);
}

}  // namespace
}  // namespace nixq
