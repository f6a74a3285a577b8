#include "storage/queue/queue.h"

#include <sys/stat.h>

#include <fstream>
#include <string>
#include <vector>

#include "storage/base/io.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class QueueTest : public QueueFixture {
 protected:
  static std::vector<std::string> Names(const std::vector<ClaimedJob>& jobs) {
    std::vector<std::string> names;
    names.reserve(jobs.size());
    for (const ClaimedJob& job : jobs) {
      names.push_back(job.path.substr(job.path.find('-') + 1));
    }
    return names;
  }
  static std::vector<std::string> Numbered(int count) {
    std::vector<std::string> names;
    names.reserve(count);
    for (int i = 0; i < count; ++i) names.push_back(absl::StrFormat("p%d", i));
    return names;
  }
  Settlement Park(const std::string& text = "") {
    Settlement settlement;
    settlement.verb = Settlement::Verb::kPark;
    settlement.error_code = "data_loss";
    settlement.error_text = text;
    return settlement;
  }
};

// --- Open -------------------------------------------------------------------

TEST_F(QueueTest, OpenExistingWantsAFileOfThisSchema) {
  QueueOptions options = Options();
  EXPECT_OK(Queue::OpenExisting(options).status());
  options.state_dir = dir_ / "nowhere";
  EXPECT_TRUE(absl::IsNotFound(Queue::OpenExisting(options).status()));
  options.state_dir = dir_ / "hooks-only";
  ASSERT_OK(InboxWriter::Open(options.state_dir, absl::Seconds(1)).status());
  absl::Status older = Queue::OpenExisting(options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(older)) << older;
  EXPECT_THAT(std::string(older.message()), HasSubstr("start queued once"));
}

TEST_F(QueueTest, NoticesThatItsFileWasReplaced) {
  EXPECT_OK(queue_->CheckFile());
  const std::string file = dir_ / "state/queue.db";
  ASSERT_EQ(rename(file.c_str(), (file + ".old").c_str()), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(queue_->CheckFile()));
  std::ofstream(file).put('x');
  EXPECT_TRUE(absl::IsFailedPrecondition(queue_->CheckFile()));
  ASSERT_EQ(rename((file + ".old").c_str(), file.c_str()), 0);
  EXPECT_OK(queue_->CheckFile());
}

TEST_F(QueueTest, NewerSchemaIsRefusedUntouched) {
  Execute("PRAGMA user_version = 99");
  queue_.reset();
  for (const absl::Status& status : {Queue::Open(Options()).status(),
                                     Queue::OpenExisting(Options()).status(),
                                     Report::Open(Options()).status()}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("newer nix-queued"));
  }
  // Hooks go on: the inbox is the same in all versions.
  auto writer = InboxWriter::Open(Options().state_dir, absl::Seconds(1));
  ASSERT_OK(writer.status());
  EXPECT_OK(writer->Put({Output("later")}));
  EXPECT_EQ(QueryInt("PRAGMA user_version"), 99);
}

TEST_F(QueueTest, GarbageIsDataLoss) {
  QueueOptions options = Options();
  options.state_dir = dir_ / "garbage";
  ASSERT_EQ(mkdir(options.state_dir.c_str(), 0755), 0);
  std::ofstream(QueueFile(options.state_dir)) << std::string(9000, 'x');
  EXPECT_TRUE(absl::IsDataLoss(Queue::Open(options).status()));
  EXPECT_TRUE(absl::IsDataLoss(Queue::OpenExisting(options).status()));
  EXPECT_TRUE(absl::IsDataLoss(Report::Open(options).status()));
}

TEST_F(QueueTest, LockedForLongerIsUnavailable) {
  auto other = Database::Open(QueueFile(Options().state_dir), {});
  ASSERT_OK(other.status());
  ASSERT_OK_AND_ASSIGN(Transaction lock, Transaction::Begin(*other));
  EXPECT_TRUE(absl::IsUnavailable(queue_->Accept({Path("a")}, {}, {})));
  EXPECT_TRUE(absl::IsUnavailable(queue_->Claim(1, 1, clock_.Now()).status()));
  EXPECT_TRUE(absl::IsUnavailable(queue_->Settle({})));
  EXPECT_TRUE(absl::IsUnavailable(queue_->SetPaused("nas", true)));
  EXPECT_TRUE(absl::IsUnavailable(queue_->Forget({}).status()));
  // Readers are not kept out.
  EXPECT_OK(queue_->Targets().status());
  EXPECT_OK(queue_->ReadInbox(1).status());
}

// --- Targets ----------------------------------------------------------------

TEST_F(QueueTest, SyncTargetsFollowsTheConfiguration) {
  Accept({"hello"});
  Configure({"b", "a"});
  EXPECT_EQ(targets_[0].name, "b");
  EXPECT_EQ(targets_[1].name, "a");
  ASSERT_OK_AND_ASSIGN(std::vector<TargetRow> rows, queue_->Targets());
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].name, "nas");
  EXPECT_FALSE(rows[0].configured);
  EXPECT_TRUE(rows[1].configured);
}

TEST_F(QueueTest, ATargetWithoutConfigurationAndJobsGoes) {
  Configure({"waits", "sent", "empty", "nas"});
  Accept({"hello"});
  Settlement done;
  done.job_id = Claim(1, 1).at(0).job_id;
  ASSERT_OK(queue_->Settle({done}));
  ASSERT_OK(queue_->Forget({.target = "empty"}).status());
  Configure({"nas"});
  ASSERT_OK_AND_ASSIGN(std::vector<TargetRow> rows, queue_->Targets());
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1].name, "waits");
  EXPECT_EQ(rows[2].name, "sent");  // in the history
  ASSERT_OK(queue_->Forget({.target = "waits", .open_only = true}).status());
  ASSERT_OK(queue_->Forget({.target = "sent", .open_only = true}).status());
  Configure({"nas"});
  ASSERT_OK_AND_ASSIGN(rows, queue_->Targets());
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].name, "sent");
}

TEST_F(QueueTest, SyncTargetsRefusesNamesTwice) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      queue_->SyncTargets({{"a", "x"}, {"a", "y"}}).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(queue_->SyncTargets({{"", "x"}}).status()));
  ASSERT_OK_AND_ASSIGN(std::vector<TargetRow> rows, queue_->Targets());
  EXPECT_TRUE(rows.at(0).configured);
}

TEST_F(QueueTest, ATargetThatComesBackKeepsItsJobs) {
  Accept({"hello"});
  Configure({});
  EXPECT_EQ(StateOf("hello"), "queued");
  ASSERT_OK_AND_ASSIGN(std::optional<absl::Time> due,
                       queue_->NextDue(absl::InfinitePast()));
  EXPECT_FALSE(due.has_value());
  Configure({"nas"});
  EXPECT_THAT(Names(Claim()), ElementsAre("hello"));
}

TEST_F(QueueTest, HealthIsSavedAndForgottenByResume) {
  TargetRow row = targets_[0];
  row.health = TargetHealth::kRefused;
  row.failures = 7;
  row.retry_at = clock_.Now() + absl::Minutes(3);
  row.error_code = "permission_denied";
  row.error_text = "403";
  row.error_at = clock_.Now();
  row.success_at = clock_.Now() - absl::Hours(1);
  ASSERT_OK(queue_->SaveTargetHealth(row));
  ASSERT_OK_AND_ASSIGN(std::vector<TargetRow> rows, queue_->Targets());
  EXPECT_EQ(rows[0].health, TargetHealth::kRefused);
  EXPECT_EQ(rows[0].failures, 7);
  EXPECT_EQ(rows[0].retry_at, row.retry_at);
  EXPECT_EQ(rows[0].error_code, "permission_denied");
  EXPECT_EQ(rows[0].error_text, "403");
  EXPECT_EQ(rows[0].error_at, row.error_at);
  EXPECT_EQ(rows[0].success_at, row.success_at);

  ASSERT_OK(queue_->SetPaused("nas", true));
  ASSERT_OK_AND_ASSIGN(rows, queue_->Targets());
  EXPECT_TRUE(rows[0].paused);
  EXPECT_EQ(rows[0].failures, 7);
  ASSERT_OK(queue_->SetPaused("nas", false));
  ASSERT_OK_AND_ASSIGN(rows, queue_->Targets());
  EXPECT_FALSE(rows[0].paused);
  EXPECT_EQ(rows[0].health, TargetHealth::kUnknown);
  EXPECT_EQ(rows[0].failures, 0);
  EXPECT_EQ(rows[0].error_text, "");
  EXPECT_TRUE(absl::IsNotFound(queue_->SetPaused("nosuch", true)));
}

TEST_F(QueueTest, AnotherUrlIsAnotherHealth) {
  TargetRow row = targets_[0];
  row.health = TargetHealth::kUnreachable;
  row.failures = 3;
  ASSERT_OK(queue_->SaveTargetHealth(row));
  ASSERT_OK_AND_ASSIGN(auto same, queue_->SyncTargets({{"nas", row.url}}));
  EXPECT_EQ(same[0].health, TargetHealth::kUnreachable);
  ASSERT_OK_AND_ASSIGN(auto moved, queue_->SyncTargets({{"nas", "file:///x"}}));
  EXPECT_EQ(moved[0].id, row.id);
  EXPECT_EQ(moved[0].health, TargetHealth::kUnknown);
  EXPECT_EQ(moved[0].failures, 0);
}

// --- Intake -----------------------------------------------------------------

TEST_F(QueueTest, InboxIsReadAndAccepted) {
  ASSERT_OK_AND_ASSIGN(
      InboxWriter writer,
      InboxWriter::Open(Options().state_dir, absl::Seconds(1)));
  InboxEntry derivation = Output("floating.drv");
  derivation.kind = InboxKind::kDerivation;
  derivation.named = false;
  derivation.source = "queuectl";
  ASSERT_OK(writer.Put({Output("a"), derivation}));
  ASSERT_OK(writer.Put({Output("b")}));
  ASSERT_OK_AND_ASSIGN(std::vector<InboxEntry> entries, queue_->ReadInbox(2));
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].path, StorePathOf("a"));
  EXPECT_EQ(entries[0].kind, InboxKind::kOutput);
  EXPECT_TRUE(entries[0].named);
  EXPECT_EQ(entries[0].created_unix_ms, 1795230725000);
  EXPECT_EQ(entries[1].kind, InboxKind::kDerivation);
  EXPECT_FALSE(entries[1].named);
  EXPECT_EQ(entries[1].source, "queuectl");

  ASSERT_OK(queue_->Accept({Path("a")}, {entries[1]},
                           {entries[0].id, entries[1].id}));
  ASSERT_OK_AND_ASSIGN(entries, queue_->ReadInbox(10));
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].path, StorePathOf("b"));
  EXPECT_EQ(StateOf("a"), "queued");
  ASSERT_OK_AND_ASSIGN(std::vector<PendingDerivation> due,
                       queue_->DueDerivations(10));
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(due[0].path, StorePathOf("floating.drv"));
}

TEST_F(QueueTest, DerivationsWaitAndResolve) {
  InboxEntry derivation = Output("floating.drv");
  ASSERT_OK(queue_->Accept({}, {derivation}, {}));
  ASSERT_OK_AND_ASSIGN(auto due, queue_->DueDerivations(10));
  ASSERT_EQ(due.size(), 1u);
  absl::Time later = clock_.Now() + absl::Minutes(1);
  ASSERT_OK(queue_->DelayDerivation(due[0].id, later, "no daemon"));
  ASSERT_OK_AND_ASSIGN(due, queue_->DueDerivations(10));
  EXPECT_THAT(due, IsEmpty());
  ASSERT_OK_AND_ASSIGN(auto next, queue_->NextDue(clock_.Now()));
  EXPECT_EQ(next, later);
  clock_.Advance(absl::Minutes(1));
  ASSERT_OK_AND_ASSIGN(due, queue_->DueDerivations(10));
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(due[0].attempts, 1);
  // Built again meanwhile: due again, and one row.
  ASSERT_OK(queue_->DelayDerivation(due[0].id, later, "no daemon"));
  ASSERT_OK(queue_->Accept({}, {derivation}, {}));
  ASSERT_OK_AND_ASSIGN(due, queue_->DueDerivations(10));
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(due[0].attempts, 0);
  ASSERT_OK(queue_->ResolveDerivation(due[0].id, {Path("out")}));
  ASSERT_OK_AND_ASSIGN(due, queue_->DueDerivations(10));
  EXPECT_THAT(due, IsEmpty());
  EXPECT_EQ(StateOf("out"), "queued");
}

TEST_F(QueueTest, ADerivationMayWaitForSomeOfItsOutputs) {
  ASSERT_OK(queue_->Accept({}, {Output("floating.drv")}, {}));
  ASSERT_OK_AND_ASSIGN(auto due, queue_->DueDerivations(10));
  ASSERT_EQ(due.size(), 1u);
  ASSERT_OK(queue_->DelayDerivation(due[0].id, clock_.Now(), "not built: dev",
                                    {Path("out")}));
  EXPECT_EQ(StateOf("out"), "queued");
  ASSERT_OK_AND_ASSIGN(due, queue_->DueDerivations(10));
  EXPECT_EQ(due.size(), 1u);
}

TEST_F(QueueTest, OpenJobsAndPinsNeedTheirRoots) {
  Accept({"open", "done", "pin"});
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_OK(
      queue_->Settle({{.job_id = jobs[1].job_id}, {.job_id = jobs[2].job_id}}));
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("pin"), RootState::kPin));
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("done"), RootState::kNone));
  ASSERT_OK_AND_ASSIGN(
      auto need, queue_->NeedRoots({StorePathOf("open"), StorePathOf("done"),
                                    StorePathOf("pin"), StorePathOf("x")}));
  EXPECT_THAT(need, ElementsAre(true, false, true, false));
}

TEST_F(QueueTest, AcceptMakesOneJobForEachConfiguredTarget) {
  Configure({"nas", "s3", "gone"});
  Configure({"nas", "s3"});
  Accept({"hello", "hello"});
  EXPECT_EQ(StateOf("hello", "nas"), "queued");
  EXPECT_EQ(StateOf("hello", "s3"), "queued");
  EXPECT_EQ(StateOf("hello", "gone"), "none");
  EXPECT_EQ(QueryInt("SELECT count(*) FROM jobs"), 2);
  EXPECT_EQ(QueryInt("SELECT count(*) FROM paths"), 1);
  ASSERT_OK_AND_ASSIGN(
      auto needs, queue_->RootNeeds({StorePathOf("hello"), StorePathOf("x")}));
  EXPECT_EQ(needs.at(0).open_jobs, 2);
  EXPECT_EQ(needs.at(1).open_jobs, 0);
  ASSERT_OK_AND_ASSIGN(auto known,
                       queue_->Known({StorePathOf("x"), StorePathOf("hello")}));
  EXPECT_THAT(known, ElementsAre(false, true));
}

TEST_F(QueueTest, AcceptAgainKeepsWhatItDoesNotKnowAndStartsOver) {
  Accept({"hello"});
  ClaimAndSettle(Park("bad"));
  clock_.Advance(absl::Hours(1));
  NewPath again;
  again.path = StorePathOf("hello");
  again.source = "queuectl";
  ASSERT_OK(queue_->Accept({again}, {}, {}));
  std::optional<JobRow> job = Job("hello");
  ASSERT_TRUE(job);
  EXPECT_EQ(job->state, JobState::kQueued);
  EXPECT_EQ(job->attempts, 0);
  EXPECT_EQ(job->error_text, "");
  EXPECT_EQ(job->queued_at, clock_.Now());
  ASSERT_OK_AND_ASSIGN(Report report, Report::Open(Options()));
  ASSERT_OK_AND_ASSIGN(PathReport path, report.Path(StorePathOf("hello")));
  EXPECT_EQ(path.system, "x86_64-linux");
  EXPECT_EQ(path.deriver, StorePathOf("hello.drv"));
  EXPECT_EQ(path.source, "queuectl");
}

// --- People -----------------------------------------------------------------

TEST_F(QueueTest, RetrySelects) {
  Configure({"nas", "s3"});
  Accept({"a", "b"});
  for (int target : {0, 1}) {
    std::vector<Settlement> parks;
    for (const ClaimedJob& job : Claim(10, target)) {
      parks.push_back(Park("no"));
      parks.back().job_id = job.job_id;
    }
    ASSERT_OK(queue_->Settle(parks));
  }
  JobSelection one;
  one.paths = {StorePathOf("a")};
  one.target = "s3";
  ASSERT_OK_AND_ASSIGN(auto retried, queue_->Retry(one));
  EXPECT_EQ(retried.jobs, 1);
  EXPECT_EQ(StateOf("a", "s3"), "queued");
  EXPECT_EQ(StateOf("a", "nas"), "parked");
  std::optional<JobRow> job = Job("a", "s3");
  EXPECT_EQ(job->attempts, 0);
  EXPECT_EQ(job->error_code, "");
  JobSelection parked;
  parked.parked_only = true;
  ASSERT_OK_AND_ASSIGN(retried, queue_->Retry(parked));
  EXPECT_EQ(retried.jobs, 3);
  ASSERT_OK_AND_ASSIGN(retried, queue_->Retry({}));
  EXPECT_EQ(retried.jobs, 4);  // also what is due already
  JobSelection nosuch;
  nosuch.target = "nosuch";
  EXPECT_TRUE(absl::IsNotFound(queue_->Retry(nosuch).status()));
  EXPECT_TRUE(absl::IsNotFound(queue_->Forget(nosuch).status()));
}

TEST_F(QueueTest, RetryMakesWaitingJobsDue) {
  Accept({"hello"});
  Settlement wait;
  wait.verb = Settlement::Verb::kRetry;
  wait.next_attempt = clock_.Now() + absl::Hours(1);
  ClaimAndSettle(wait);
  EXPECT_THAT(Claim(), IsEmpty());
  JobSelection parked;
  parked.parked_only = true;
  ASSERT_OK_AND_ASSIGN(auto retried, queue_->Retry(parked));
  EXPECT_EQ(retried.jobs, 0);
  ASSERT_OK_AND_ASSIGN(retried, queue_->Retry({}));
  EXPECT_EQ(retried.jobs, 1);
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(jobs[0].attempts, 0);
}

TEST_F(QueueTest, RetryTriesTargetsInTroubleAtOnceUnlessPaused) {
  Configure({"away", "refuses", "paused", "well", "unconcerned"});
  Accept({"hello"});
  for (TargetRow row : targets_) {
    if (row.name == "well") continue;
    row.health = row.name == "refuses" ? TargetHealth::kRefused
                                       : TargetHealth::kUnreachable;
    row.failures = 3;
    row.retry_at = clock_.Now() + absl::Minutes(29);
    ASSERT_OK(queue_->SaveTargetHealth(row));
  }
  ASSERT_OK(queue_->SetPaused("paused", true));
  ASSERT_OK(queue_->Forget({.target = "unconcerned"}).status());
  ASSERT_OK_AND_ASSIGN(auto retried,
                       queue_->Retry({.paths = {StorePathOf("hello")}}));
  EXPECT_EQ(retried.jobs, 4);
  EXPECT_THAT(retried.probed, ElementsAre("away", "refuses"));
  EXPECT_THAT(retried.paused, ElementsAre("paused"));
  ASSERT_OK_AND_ASSIGN(std::vector<TargetRow> rows, queue_->Targets());
  for (const TargetRow& row : rows) {
    const bool waits = row.name == "paused" || row.name == "unconcerned";
    EXPECT_EQ(row.failures, waits ? 3 : 0) << row.name;
    EXPECT_EQ(row.retry_at > clock_.Now(), waits) << row.name;
    EXPECT_EQ(row.health == TargetHealth::kUnknown, !waits) << row.name;
  }
}

TEST_F(QueueTest, DerivationsAreRetriedAndForgotten) {
  Configure({"nas"});
  ASSERT_OK(queue_->Accept({}, {Output("floating.drv")}, {}));
  ASSERT_OK_AND_ASSIGN(auto due, queue_->DueDerivations(10));
  ASSERT_OK(queue_->DelayDerivation(due.at(0).id, clock_.Now() + absl::Hours(1),
                                    "not in the store"));
  JobSelection selection;
  selection.paths = {StorePathOf("floating.drv")};
  ASSERT_OK_AND_ASSIGN(auto known, queue_->Known(selection.paths));
  EXPECT_THAT(known, ElementsAre(true));
  ASSERT_OK_AND_ASSIGN(auto retried, queue_->Retry(selection));
  EXPECT_EQ(retried.jobs, 1);
  ASSERT_OK_AND_ASSIGN(due, queue_->DueDerivations(10));
  EXPECT_EQ(due.size(), 1u);
  // It is no target's, and not parked.
  selection.target = "nas";
  ASSERT_OK_AND_ASSIGN(auto forgotten, queue_->Forget(selection));
  EXPECT_EQ(forgotten.jobs, 0);
  selection.target.reset();
  ASSERT_OK_AND_ASSIGN(forgotten, queue_->Forget(selection));
  EXPECT_EQ(forgotten.jobs, 1);
  ASSERT_OK_AND_ASSIGN(due, queue_->DueDerivations(10));
  EXPECT_THAT(due, IsEmpty());
  ASSERT_OK_AND_ASSIGN(known, queue_->Known(selection.paths));
  EXPECT_THAT(known, ElementsAre(false));
}

TEST_F(QueueTest, ForgottenIdsAreNotUsedAgain) {
  Accept({"a"});
  Settlement stale;
  stale.job_id = Claim().at(0).job_id;
  ASSERT_OK(queue_->Forget({}).status());
  Accept({"b"});
  ASSERT_EQ(Claim().size(), 1u);
  ASSERT_OK(queue_->Settle({stale}));
  EXPECT_EQ(StateOf("b"), "sending");
  EXPECT_EQ(StateOf("a"), "none");
}

// --- Keeping small ----------------------------------------------------------

TEST_F(QueueTest, RemoveFinishedInSmallTransactions) {
  Accept(Numbered(10));
  std::vector<Settlement> done;
  for (const ClaimedJob& job : Claim()) done.push_back({.job_id = job.job_id});
  done.pop_back();
  ASSERT_OK(queue_->Settle(done));
  clock_.Advance(absl::Hours(24));
  Accept({"fresh"});
  ASSERT_OK_AND_ASSIGN(auto holds, queue_->FinishedHolds(0, 100));
  ASSERT_EQ(holds.size(), 9u);
  std::vector<int64_t> ended;
  for (size_t i = 1; i < holds.size(); ++i) ended.push_back(holds[i].id);
  ASSERT_OK(queue_->SetRoots(ended, RootState::kNone));
  ASSERT_OK(queue_->SetRoots({holds[0].id}, RootState::kPin));
  absl::Time before = clock_.Now() - absl::Hours(1);
  ASSERT_OK_AND_ASSIGN(int64_t removed,
                       queue_->RemoveFinished(before - absl::Hours(24), 4));
  EXPECT_EQ(removed, 0);
  int64_t total = 0;
  int calls = 0;
  do {
    ASSERT_OK_AND_ASSIGN(removed, queue_->RemoveFinished(before, 4));
    EXPECT_LE(removed, 8);
    total += removed;
    ++calls;
  } while (removed >= 4);
  EXPECT_EQ(total, 9 + 8);  // jobs, and paths: one is pinned
  EXPECT_GT(calls, 2);
  EXPECT_EQ(QueryInt("SELECT count(*) FROM jobs"), 2);
  EXPECT_EQ(QueryInt("SELECT count(*) FROM paths"), 3);
}

TEST_F(QueueTest, APathThatBlocksStays) {
  Accept({"lib", "app"});
  std::vector<ClaimedJob> jobs = Claim();
  Settlement lib = Park("corrupt");
  lib.job_id = jobs[0].job_id;
  Settlement app = Park("waits for lib");
  app.job_id = jobs[1].job_id;
  app.blocked_by = StorePathOf("lib");
  ASSERT_OK(queue_->Settle({lib, app}));
  Execute("DELETE FROM jobs WHERE blocked_by IS NULL");  // a person's sqlite3
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("lib"), RootState::kNone));
  ASSERT_OK(queue_->RemoveFinished(clock_.Now(), 100).status());
  EXPECT_EQ(Job("app")->blocked_by, StorePathOf("lib"));
}

TEST_F(QueueTest, CheckpointMovesTheWalIntoTheFile) {
  Accept(Numbered(500));
  struct stat before;
  struct stat after;
  std::string file = QueueFile(Options().state_dir);
  ASSERT_EQ(stat(file.c_str(), &before), 0);
  ASSERT_OK(queue_->Checkpoint());
  ASSERT_EQ(stat(file.c_str(), &after), 0);
  EXPECT_GT(after.st_size, before.st_size);
  // Never waits for a reader.
  auto reader = Database::Open(file, {.read_only = true});
  ASSERT_OK(reader.status());
  ASSERT_OK_AND_ASSIGN(Transaction view, Transaction::BeginRead(*reader));
  ASSERT_OK(reader->QueryInt("SELECT count(*) FROM jobs").status());
  Accept({"more"});
  EXPECT_OK(queue_->Checkpoint());
}

}  // namespace
}  // namespace nixq
