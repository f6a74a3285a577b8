// Claims, leases, references, settlements.

#include <string>
#include <vector>

#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class QueueWork : public QueueFixture {
 protected:
  std::vector<std::string> ClaimNames(size_t limit = 1000) {
    std::vector<std::string> names;
    for (const ClaimedJob& job : Claim(limit)) {
      names.push_back(job.path.substr(job.path.find('-') + 1));
    }
    return names;
  }
  Settlement Wait(const ClaimedJob& job, absl::Duration delay) {
    Settlement settlement;
    settlement.job_id = job.job_id;
    settlement.verb = Settlement::Verb::kRetry;
    settlement.next_attempt = clock_.Now() + delay;
    settlement.error_code = "unavailable";
    settlement.error_text = "connection refused";
    return settlement;
  }
  Settlement Park(int64_t job_id, std::optional<std::string> blocked_by = {}) {
    Settlement settlement;
    settlement.job_id = job_id;
    settlement.verb = Settlement::Verb::kPark;
    settlement.error_code = "data_loss";
    settlement.error_text = "hash mismatch";
    settlement.blocked_by = std::move(blocked_by);
    return settlement;
  }
  std::vector<Queue::ReferenceClaim> Reference(
      const std::vector<std::string>& names) {
    std::vector<NewPath> paths;
    paths.reserve(names.size());
    for (const std::string& name : names) paths.push_back(Path(name));
    auto claims = queue_->ClaimReferences(targets_[0].id, paths,
                                          clock_.Now() + absl::Minutes(1));
    EXPECT_TRUE(claims.ok()) << claims.status();
    return claims.ok() ? *claims : std::vector<Queue::ReferenceClaim>();
  }
};

TEST_F(QueueWork, ClaimGivesTheOldestAndTellsAboutIt) {
  Accept({"a", "b", "c"});
  std::vector<ClaimedJob> jobs = Claim(2);
  ASSERT_THAT(jobs, SizeIs(2));
  EXPECT_EQ(jobs[0].path, StorePathOf("a"));
  EXPECT_EQ(jobs[0].deriver, StorePathOf("a.drv"));
  EXPECT_EQ(jobs[0].system, "x86_64-linux");
  EXPECT_EQ(jobs[0].target_id, targets_[0].id);
  EXPECT_EQ(jobs[0].attempts, 0);
  EXPECT_EQ(jobs[0].queued_at, clock_.Now());
  EXPECT_THAT(ClaimNames(), ElementsAre("c"));
  EXPECT_THAT(ClaimNames(), IsEmpty());
}

// Neither fresh jobs nor failed ones starve the others.
TEST_F(QueueWork, RetriedJobsKeepTheirAge) {
  Accept({"a", "b"});
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_OK(queue_->Settle(
      {Wait(jobs[0], absl::Seconds(2)), Wait(jobs[1], absl::Seconds(1))}));
  Accept({"c"});
  clock_.Advance(absl::Seconds(3));
  EXPECT_THAT(ClaimNames(2), ElementsAre("a", "b"));
  EXPECT_THAT(ClaimNames(2), ElementsAre("c"));
}

// A probe that always fails the same way must not be the only one.
TEST_F(QueueWork, TheLongestUntriedHaveTheirTurnFirst) {
  Accept({"a", "b", "c"});
  std::vector<std::string> turns;
  for (int i = 0; i < 7; ++i) {
    ASSERT_OK_AND_ASSIGN(
        std::vector<ClaimedJob> jobs,
        queue_->Claim(targets_[0].id, 1, clock_.Now() + absl::Minutes(1),
                      ClaimOrder::kLongestUntriedFirst));
    ASSERT_THAT(jobs, SizeIs(1));
    turns.push_back(jobs[0].path.substr(jobs[0].path.find('-') + 1));
    Settlement release;
    release.job_id = jobs[0].job_id;
    release.verb = Settlement::Verb::kRelease;
    release.next_attempt = clock_.Now();
    ASSERT_OK(queue_->Settle({release}));
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_THAT(turns, ElementsAre("a", "b", "c", "a", "b", "c", "a"));
}

TEST_F(QueueWork, JobsTellWhereTheirPathCameFrom) {
  ASSERT_THAT(Reference({"lib"}), SizeIs(1));
  ASSERT_OK(queue_->ReleaseAll().status());
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_THAT(jobs, SizeIs(1));
  EXPECT_EQ(jobs[0].source, kReferenceSource);
  ASSERT_OK(queue_->ReleaseAll().status());
  // Built here after all: now it is there for its own sake.
  Accept({"lib"});
  jobs = Claim();
  ASSERT_THAT(jobs, SizeIs(1));
  EXPECT_EQ(jobs[0].source, "hook");
}

TEST_F(QueueWork, AClockThatWasSetBackEndsAllWaits) {
  Accept({"a"});
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_OK(queue_->Settle({Wait(jobs[0], absl::Hours(1))}));
  clock_.Advance(-absl::Hours(1));
  EXPECT_THAT(ClaimNames(), IsEmpty());
  ASSERT_OK(queue_->EndWaits());
  EXPECT_THAT(ClaimNames(), ElementsAre("a"));
}

TEST_F(QueueWork, TellsWhatTargetsHaveLeftBehind) {
  ASSERT_NO_FATAL_FAILURE(Configure({"nas", "gone", "done"}));
  Accept({"a", "b"});
  for (const ClaimedJob& job : Claim(1000, 2)) {
    ASSERT_OK(queue_->Settle({{.job_id = job.job_id}}));
  }
  ASSERT_OK(queue_->Settle({Park(Claim(1, 1).at(0).job_id)}));
  ASSERT_NO_FATAL_FAILURE(Configure({"nas"}));
  ASSERT_OK_AND_ASSIGN(auto left, queue_->LeftBehind());
  EXPECT_THAT(left, ElementsAre(testing::Pair("gone", 2)));
}

TEST_F(QueueWork, RetryWaitsAndCounts) {
  Accept({"a"});
  ASSERT_OK(queue_->Settle({Wait(Claim().at(0), absl::Minutes(1))}));
  std::optional<JobRow> job = Job("a");
  EXPECT_EQ(job->attempts, 1);
  EXPECT_EQ(job->error_code, "unavailable");
  EXPECT_EQ(job->error_text, "connection refused");
  EXPECT_EQ(job->next_attempt, clock_.Now() + absl::Minutes(1));
  EXPECT_THAT(ClaimNames(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(auto due, queue_->NextDue(clock_.Now()));
  EXPECT_EQ(due, clock_.Now() + absl::Minutes(1));
  clock_.Advance(absl::Minutes(1));
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_THAT(jobs, SizeIs(1));
  EXPECT_EQ(jobs[0].attempts, 1);

  Settlement done;
  done.job_id = jobs[0].job_id;
  done.sent_size_bytes = 17;
  done.nar_size_bytes = 100;
  done.duration = absl::Milliseconds(12);
  ASSERT_OK(queue_->Settle({done}));
  job = Job("a");
  EXPECT_EQ(job->state, JobState::kDone);
  EXPECT_EQ(job->outcome, JobOutcome::kSent);
  EXPECT_EQ(job->attempts, 2);
  EXPECT_EQ(job->error_text, "");
  EXPECT_EQ(job->sent_size_bytes, 17u);
  EXPECT_EQ(job->nar_size_bytes, 100u);
  EXPECT_EQ(job->duration, absl::Milliseconds(12));
}

TEST_F(QueueWork, ReleaseDoesNotCount) {
  Accept({"a"});
  ASSERT_OK(queue_->Settle({Wait(Claim().at(0), absl::ZeroDuration())}));
  Settlement release;
  release.job_id = Claim().at(0).job_id;
  release.verb = Settlement::Verb::kRelease;
  release.next_attempt = clock_.Now();
  ASSERT_OK(queue_->Settle({release}));
  std::optional<JobRow> job = Job("a");
  EXPECT_EQ(job->attempts, 1);
  EXPECT_EQ(job->error_text, "connection refused");  // of the last attempt
  EXPECT_THAT(ClaimNames(), ElementsAre("a"));
}

TEST_F(QueueWork, AGonePathIsDoneWithItsReason) {
  Accept({"a"});
  Settlement gone;
  gone.job_id = Claim().at(0).job_id;
  gone.outcome = JobOutcome::kGone;
  gone.error_code = "not_found";
  gone.error_text = "no longer valid";
  ASSERT_OK(queue_->Settle({gone}));
  std::optional<JobRow> job = Job("a");
  EXPECT_EQ(job->outcome, JobOutcome::kGone);
  EXPECT_EQ(job->error_text, "no longer valid");
}

TEST_F(QueueWork, TextsAreMadePrintableAndBounded) {
  Accept({"a"});
  Settlement park = Park(Claim().at(0).job_id);
  park.error_text = "\033[31mred\033[0m\n" + std::string(100000, 'x');
  ASSERT_OK(queue_->Settle({park}));
  std::string text = Job("a")->error_text;
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_LT(text.size(), 4096u);
}

TEST_F(QueueWork, ExpiredLeasesAreDueAgain) {
  Accept({"a"});
  int64_t id = Claim().at(0).job_id;
  clock_.Advance(absl::Seconds(59));
  EXPECT_THAT(ClaimNames(), IsEmpty());
  ASSERT_OK(queue_->RenewLeases({id, 12345}, clock_.Now() + absl::Minutes(1)));
  clock_.Advance(absl::Seconds(59));
  EXPECT_THAT(ClaimNames(), IsEmpty());
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(ClaimNames(), ElementsAre("a"));
}

TEST_F(QueueWork, ReleaseAllIsForANewDaemon) {
  Accept({"a", "b"});
  Claim(1);
  ASSERT_OK_AND_ASSIGN(int64_t released, queue_->ReleaseAll());
  EXPECT_EQ(released, 1);
  EXPECT_THAT(ClaimNames(), ElementsAre("a", "b"));
}

// A machine whose clock was years ahead for a while must not wait for years.
TEST_F(QueueWork, AClockThatWasAheadDelaysNothing) {
  const absl::Time right = clock_.Now();
  clock_.Set(right + absl::Hours(24 * 365 * 4));
  Accept({"fresh", "failed"});
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_OK(queue_->Settle({Wait(jobs[1], absl::Minutes(1))}));
  ASSERT_OK(queue_->ReleaseAll().status());
  clock_.Set(right);
  EXPECT_THAT(ClaimNames(), ElementsAre("fresh", "failed"));
}

TEST_F(QueueWork, NextDueLooksAheadOfWhatIsDue) {
  ASSERT_OK_AND_ASSIGN(auto due, queue_->NextDue(absl::InfinitePast()));
  EXPECT_FALSE(due);
  Accept({"a", "b"});
  ASSERT_OK_AND_ASSIGN(due, queue_->NextDue(absl::InfinitePast()));
  ASSERT_TRUE(due);
  EXPECT_LE(*due, clock_.Now());
  ASSERT_OK_AND_ASSIGN(due, queue_->NextDue(clock_.Now()));
  EXPECT_FALSE(due);
  ASSERT_OK(queue_->Settle({Wait(Claim(1).at(0), absl::Minutes(7))}));
  ASSERT_OK_AND_ASSIGN(due, queue_->NextDue(clock_.Now()));
  EXPECT_EQ(due, clock_.Now() + absl::Minutes(7));
  ASSERT_OK(queue_->SetPaused("nas", true));
  ASSERT_OK_AND_ASSIGN(due, queue_->NextDue(clock_.Now()));
  EXPECT_FALSE(due);
}

// --- References -------------------------------------------------------------

TEST_F(QueueWork, ReferencesAreMadeAndClaimed) {
  Accept({"queued"});
  std::vector<Queue::ReferenceClaim> claims = Reference({"new", "queued"});
  ASSERT_THAT(claims, SizeIs(2));
  for (const Queue::ReferenceClaim& claim : claims) {
    ASSERT_TRUE(claim.job);
    EXPECT_EQ(claim.job->path, claim.path);
    EXPECT_EQ(claim.job->target_id, targets_[0].id);
    EXPECT_EQ(claim.job->attempts, 0);
    EXPECT_EQ(claim.state, JobState::kSending);
  }
  ASSERT_OK_AND_ASSIGN(Report report, Report::Open(Options()));
  ASSERT_OK_AND_ASSIGN(PathReport fresh, report.Path(StorePathOf("new")));
  EXPECT_EQ(fresh.source, "reference");
  EXPECT_EQ(fresh.root, RootState::kNone);
  ASSERT_OK_AND_ASSIGN(PathReport queued, report.Path(StorePathOf("queued")));
  EXPECT_EQ(queued.source, "hook");
  EXPECT_EQ(queued.root, RootState::kHold);
  // Each is claimed once.
  for (const Queue::ReferenceClaim& claim : Reference({"new", "queued"})) {
    EXPECT_FALSE(claim.job);
    EXPECT_EQ(claim.state, JobState::kSending);
  }
  EXPECT_THAT(ClaimNames(), IsEmpty());
}

TEST_F(QueueWork, ReferencesThatAreParkedOrDone) {
  Accept({"parked", "done", "late"});
  std::vector<ClaimedJob> jobs = Claim();
  ASSERT_OK(queue_->Settle({Park(jobs[0].job_id), {.job_id = jobs[1].job_id}}));
  clock_.Advance(absl::Hours(1));
  std::vector<Queue::ReferenceClaim> claims =
      Reference({"parked", "done", "late"});
  ASSERT_THAT(claims, SizeIs(3));
  EXPECT_FALSE(claims[0].job);
  EXPECT_EQ(claims[0].state, JobState::kParked);
  EXPECT_EQ(claims[0].error_text, "hash mismatch");
  ASSERT_TRUE(claims[1].job);
  EXPECT_EQ(claims[1].job->job_id, jobs[1].job_id);
  EXPECT_EQ(claims[1].job->attempts, 0);
  EXPECT_EQ(claims[1].job->queued_at, clock_.Now());
  ASSERT_TRUE(claims[2].job);
  EXPECT_EQ(claims[2].job->job_id, jobs[2].job_id);
}

// --- Blocked ----------------------------------------------------------------

class QueueBlocked : public QueueWork {
 protected:
  // app waits for lib, lib waits for libc, which is parked for itself.
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(QueueWork::SetUp());
    Accept({"libc", "lib", "app", "other"});
    std::vector<ClaimedJob> jobs = Claim();
    ASSERT_OK(queue_->Settle(
        {Park(jobs[0].job_id), Park(jobs[1].job_id, StorePathOf("libc")),
         Park(jobs[2].job_id, StorePathOf("lib")), Park(jobs[3].job_id)}));
    ASSERT_EQ(StateOf("app"), "parked");
    ASSERT_EQ(Job("app")->blocked_by, StorePathOf("lib"));
  }
};

TEST_F(QueueBlocked, DoneRevivesWhatWasBlocked) {
  JobSelection libc;
  libc.paths = {StorePathOf("libc")};
  Execute(
      "UPDATE jobs SET state = 'sending', lease_unix_ms = 9e15 WHERE id = "
      "1");
  ASSERT_OK(queue_->Settle({{.job_id = 1}}));
  EXPECT_EQ(StateOf("libc"), "done");
  EXPECT_EQ(StateOf("lib"), "queued");
  EXPECT_EQ(StateOf("app"), "parked");
  EXPECT_EQ(Job("lib")->blocked_by, "");
  EXPECT_EQ(Job("lib")->error_text, "");
  ClaimAndSettle({});
  EXPECT_EQ(StateOf("app"), "queued");
  EXPECT_EQ(StateOf("other"), "parked");
}

TEST_F(QueueBlocked, RetryRevivesTheWholeChain) {
  JobSelection libc;
  libc.paths = {StorePathOf("libc")};
  ASSERT_OK_AND_ASSIGN(auto retried, queue_->Retry(libc));
  EXPECT_EQ(retried.jobs, 3);
  EXPECT_THAT(ClaimNames(), ElementsAre("libc", "lib", "app"));
  EXPECT_EQ(StateOf("other"), "parked");
}

TEST_F(QueueBlocked, ForgettingTheReferenceRevivesWhatItBlocked) {
  ASSERT_OK_AND_ASSIGN(auto forgotten,
                       queue_->Forget({.paths = {StorePathOf("libc")}}));
  EXPECT_EQ(forgotten.jobs, 1);
  EXPECT_EQ(forgotten.revived, 1);
  EXPECT_EQ(StateOf("lib"), "queued");
  EXPECT_EQ(Job("lib")->error_text, "");
  EXPECT_EQ(StateOf("app"), "parked");  // lib is open again
  EXPECT_EQ(Job("app")->blocked_by, StorePathOf("lib"));
  EXPECT_EQ(StateOf("other"), "parked");
}

TEST_F(QueueBlocked, ForgettingAllThatIsParkedRevivesNothing) {
  ASSERT_OK_AND_ASSIGN(auto forgotten, queue_->Forget({.parked_only = true}));
  EXPECT_EQ(forgotten.jobs, 4);
  EXPECT_EQ(forgotten.revived, 0);
}

TEST_F(QueueBlocked, OnlyTheSameTargetIsRevived) {
  ASSERT_NO_FATAL_FAILURE(Configure({"nas", "s3"}));
  ASSERT_OK(queue_->Accept({Path("libc")}, {}, {}));
  Settlement done;
  done.job_id = Claim(1, 1).at(0).job_id;
  ASSERT_OK(queue_->Settle({done}));
  EXPECT_EQ(StateOf("libc", "s3"), "done");
  EXPECT_EQ(StateOf("lib", "nas"), "parked");
}

TEST_F(QueueBlocked, OnlyTheSameTargetIsRetried) {
  ASSERT_NO_FATAL_FAILURE(Configure({"nas", "s3"}));
  Accept({"libc"});
  Settlement park = Park(Claim(1, 1).at(0).job_id);
  ASSERT_OK(queue_->Settle({park}));
  JobSelection libc;
  libc.paths = {StorePathOf("libc")};
  libc.target = "s3";
  ASSERT_OK_AND_ASSIGN(auto retried, queue_->Retry(libc));
  EXPECT_EQ(retried.jobs, 1);
  EXPECT_EQ(StateOf("lib", "nas"), "parked");
}

// The reference was done, or forgotten, between the look at it and the
// settlement: nothing would ever end the wait.
TEST_F(QueueBlocked, NothingWaitsForWhatWillNotHappen) {
  for (const char* fate : {"done", "forgotten", "unknown"}) {
    SCOPED_TRACE(fate);
    std::string reference = StorePathOf(std::string("ref-") + fate);
    std::string name = std::string("job-") + fate;
    if (fate != std::string("unknown")) {
      Accept({std::string("ref-") + fate});
      ClaimAndSettle({});
    }
    if (fate == std::string("forgotten")) {
      ASSERT_OK(queue_->Forget({.paths = {reference}}).status());
    }
    Accept({name});
    ClaimAndSettle(Park(0, reference));
    EXPECT_EQ(StateOf(name), "queued");
    EXPECT_EQ(Job(name)->blocked_by, "");
    ASSERT_OK(queue_->Forget({.paths = {StorePathOf(name)}}).status());
  }
}

// --- Speed ------------------------------------------------------------------

TEST_F(QueueWork, ThousandsOfRowsInOneTransaction) {
  std::vector<NewPath> paths;
  paths.reserve(5000);
  for (int i = 0; i < 5000; ++i) {
    paths.push_back(Path(absl::StrFormat("package-%d", i)));
  }
  ASSERT_OK(queue_->Accept(paths, {}, {}));
  std::vector<ClaimedJob> jobs = Claim(5000);
  ASSERT_THAT(jobs, SizeIs(5000));
  std::vector<Settlement> done;
  done.reserve(jobs.size());
  for (const ClaimedJob& job : jobs) done.push_back({.job_id = job.job_id});
  ASSERT_OK(queue_->Settle(done));
  EXPECT_EQ(QueryInt("SELECT count(*) FROM jobs WHERE state = 'done'"), 5000);
}

}  // namespace
}  // namespace nixq
