#include "storage/queue/report.h"

#include <unistd.h>

#include <string>
#include <vector>

#include "storage/base/io.h"
#include "storage/queue/migrations.h"
#include "storage/queue/spool.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Two targets; on "nas": waiting, done, parked, sending, queued.
class ReportTest : public QueueFixture {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(QueueFixture::SetUp());
    Configure({"nas", "s3"});
    start_ = clock_.Now();
    Accept({"waiting", "done", "parked", "sending"});
    std::vector<ClaimedJob> jobs = Claim();
    ASSERT_THAT(jobs, SizeIs(4));
    Settlement waiting;
    waiting.job_id = jobs[0].job_id;
    waiting.verb = Settlement::Verb::kRetry;
    waiting.next_attempt = start_ + absl::Minutes(10);
    waiting.error_code = "unavailable";
    waiting.error_text = "connection refused";
    Settlement done;
    done.job_id = jobs[1].job_id;
    done.sent_size_bytes = 1000;
    done.nar_size_bytes = 5000;
    done.duration = absl::Milliseconds(1500);
    Settlement parked;
    parked.job_id = jobs[2].job_id;
    parked.verb = Settlement::Verb::kPark;
    parked.error_code = "data_loss";
    parked.error_text = "hash mismatch";
    clock_.Advance(absl::Minutes(1));
    ASSERT_OK(queue_->Settle({waiting, done, parked}));
    Accept({"queued"});
    ASSERT_OK_AND_ASSIGN(report_, Report::Open(Options()));
  }

  std::vector<std::string> Names(const JobFilter& filter) {
    auto jobs = report_->Jobs(filter);
    EXPECT_TRUE(jobs.ok()) << jobs.status();
    std::vector<std::string> names;
    if (!jobs.ok()) return names;
    for (const JobRow& job : *jobs) {
      names.push_back(job.path.substr(job.path.find('-') + 1) + "@" +
                      job.target);
    }
    return names;
  }

  absl::Time start_;
  std::optional<Report> report_;
};

TEST_F(ReportTest, SummaryCountsEverything) {
  ASSERT_OK(queue_->Accept({}, {Output("floating.drv")}, {}));
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("done"), RootState::kPin));
  {
    auto writer = InboxWriter::Open(Options().state_dir, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({Output("x"), Output("y")}));
  }
  ASSERT_OK(WriteSpool(Options().state_dir, {Output("z")}));
  ASSERT_OK_AND_ASSIGN(QueueSummary summary, report_->Summary());
  EXPECT_EQ(summary.inbox, 2);
  EXPECT_EQ(summary.derivations, 1);
  EXPECT_EQ(summary.spool_files, 1);
  EXPECT_EQ(summary.holds, 4);
  EXPECT_EQ(summary.pins, 1);
  EXPECT_GT(summary.file_bytes, 8192u);
  EXPECT_EQ(summary.schema_version, NewestSchemaVersion());
  ASSERT_THAT(summary.targets, SizeIs(2));
  const TargetSummary& nas = summary.targets[0];
  EXPECT_EQ(nas.target.name, "nas");
  EXPECT_EQ(nas.queued, 2);
  EXPECT_EQ(nas.sending, 1);
  EXPECT_EQ(nas.parked, 1);
  EXPECT_EQ(nas.done, 1);
  EXPECT_EQ(nas.sent_last_hour, 1);
  EXPECT_EQ(nas.sent_last_hour_bytes, 1000u);
  EXPECT_EQ(nas.oldest_open, start_);
  EXPECT_EQ(nas.next_attempt, clock_.Now());  // "queued" is due
  const TargetSummary& s3 = summary.targets[1];
  EXPECT_EQ(s3.queued, 5);
  EXPECT_EQ(s3.open_nar_bytes, 5000u);
  EXPECT_EQ(s3.done, 0);
  clock_.Advance(absl::Hours(2));
  ASSERT_OK_AND_ASSIGN(summary, report_->Summary());
  EXPECT_EQ(summary.targets[0].sent_last_hour, 0);
  EXPECT_EQ(summary.targets[0].done, 1);
}

TEST_F(ReportTest, AnEmptyQueueHasNoTimes) {
  ASSERT_OK(queue_->Forget({}).status());
  ASSERT_OK_AND_ASSIGN(QueueSummary summary, report_->Summary());
  EXPECT_FALSE(summary.targets[0].oldest_open);
  EXPECT_FALSE(summary.targets[0].next_attempt);
}

TEST_F(ReportTest, SizesAreSummedUpToALimit) {
  ASSERT_OK(queue_->Forget({}).status());
  auto add = [&](int64_t count) {
    Execute(absl::StrFormat(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "LIMIT %d) INSERT INTO paths (path, name, nar_size_bytes, "
        "queued_unix_ms) SELECT '/nix/store/' || i || '-x' || %d, 'x', 3, 1 "
        "FROM n; INSERT INTO jobs (path_id, target_id, queued_unix_ms, "
        "changed_unix_ms) SELECT id, %d, 1, 1 FROM paths WHERE job_count = 0 "
        "AND name = 'x'",
        count, count, targets_[0].id));
  };
  add(kMostSummed);
  ASSERT_OK_AND_ASSIGN(QueueSummary summary, report_->Summary());
  EXPECT_EQ(summary.targets[0].open_nar_bytes, 3u * kMostSummed);
  EXPECT_FALSE(summary.targets[0].open_nar_bytes_capped);
  add(1);
  ASSERT_OK_AND_ASSIGN(summary, report_->Summary());
  EXPECT_EQ(summary.targets[0].queued, kMostSummed + 1);
  EXPECT_EQ(summary.targets[0].open_nar_bytes, 3u * kMostSummed);
  EXPECT_TRUE(summary.targets[0].open_nar_bytes_capped);
}

TEST_F(ReportTest, JobsAreFiltered) {
  JobFilter nas;
  nas.target = "nas";
  EXPECT_THAT(Names(nas), ElementsAre("sending@nas", "waiting@nas",
                                      "queued@nas", "parked@nas", "done@nas"));
  nas.limit = 2;
  EXPECT_THAT(Names(nas), ElementsAre("sending@nas", "waiting@nas"));
  JobFilter open;
  open.open_only = true;
  open.target = "nas";
  EXPECT_THAT(Names(open), ElementsAre("sending@nas", "waiting@nas",
                                       "queued@nas", "parked@nas"));
  JobFilter parked;
  parked.state = JobState::kParked;
  EXPECT_THAT(Names(parked), ElementsAre("parked@nas"));
  JobFilter old;
  old.state = JobState::kQueued;
  old.target = "nas";
  old.older_than = absl::Seconds(30);
  EXPECT_THAT(Names(old), ElementsAre("waiting@nas"));
  JobFilter nobody;
  nobody.target = "nosuch";
  EXPECT_TRUE(absl::IsNotFound(report_->Jobs(nobody).status()));
}

// A path that is built again keeps its id, and is not the oldest any more.
TEST_F(ReportTest, OpenJobsAreOldestFirst) {
  Accept({"x", "y", "z"});
  int days = 9;
  for (const char* name : {"x", "y", "z"}) {
    Execute(
        absl::StrFormat("UPDATE jobs SET queued_unix_ms = %d WHERE path_id = "
                        "(SELECT id FROM paths WHERE path = '%s')",
                        absl::ToUnixMillis(start_ - days * absl::Hours(24)),
                        StorePathOf(name)));
    days = days == 9 ? 100 : 10;
  }
  JobFilter old;
  old.target = "nas";
  old.older_than = absl::Hours(24);
  for (JobState state :
       {JobState::kQueued, JobState::kParked, JobState::kSending}) {
    Execute(
        absl::StrFormat("UPDATE jobs SET state = '%s' WHERE "
                        "queued_unix_ms < %d",
                        std::string(Name(state)),
                        absl::ToUnixMillis(start_ - absl::Hours(24))));
    EXPECT_THAT(Names(old), ElementsAre("y@nas", "z@nas", "x@nas"))
        << Name(state);
  }
}

TEST_F(ReportTest, HistoryIsNewestFirst) {
  Settlement done;
  for (const ClaimedJob& job : Claim()) {
    done.job_id = job.job_id;
    clock_.Advance(absl::Seconds(1));
    ASSERT_OK(queue_->Settle({done}));
  }
  JobFilter filter;
  filter.state = JobState::kDone;
  EXPECT_THAT(Names(filter),
              ElementsAre("queued@nas", "sending@nas", "done@nas"));
}

TEST_F(ReportTest, RowsAreWhole) {
  ASSERT_OK_AND_ASSIGN(PathReport path, report_->Path(StorePathOf("waiting")));
  EXPECT_EQ(path.deriver, StorePathOf("waiting.drv"));
  EXPECT_EQ(path.system, "x86_64-linux");
  EXPECT_EQ(path.source, "hook");
  EXPECT_EQ(path.root, RootState::kHold);
  EXPECT_EQ(path.queued_at, start_);
  EXPECT_TRUE(path.accepted);
  EXPECT_THAT(path.arrivals, IsEmpty());
  ASSERT_THAT(path.jobs, SizeIs(2));
  const JobRow& job = path.jobs[0];
  EXPECT_EQ(job.target, "nas");
  EXPECT_EQ(job.state, JobState::kQueued);
  EXPECT_EQ(job.attempts, 1);
  EXPECT_EQ(job.queued_at, start_);
  EXPECT_EQ(job.changed_at, start_ + absl::Minutes(1));
  EXPECT_EQ(job.next_attempt, start_ + absl::Minutes(10));
  EXPECT_EQ(job.error_code, "unavailable");
  EXPECT_EQ(job.error_text, "connection refused");
  EXPECT_EQ(path.jobs[1].next_attempt, start_);
  ASSERT_OK_AND_ASSIGN(path, report_->Path(StorePathOf("done")));
  EXPECT_EQ(path.jobs[0].duration, absl::Milliseconds(1500));
  EXPECT_EQ(path.jobs[0].outcome, JobOutcome::kSent);
  EXPECT_FALSE(path.jobs[0].next_attempt);
}

TEST_F(ReportTest, PathsAreFoundByWhatPeopleType) {
  Accept({"waiting-doc"});
  std::string base = StorePathOf("waiting").substr(strlen("/nix/store/"));
  for (const std::string& name : {StorePathOf("waiting"), base}) {
    ASSERT_OK_AND_ASSIGN(PathReport path, report_->Path(name));
    EXPECT_EQ(path.path, StorePathOf("waiting"));
  }
  // A base name that another one begins with is itself all the same.
  Execute("INSERT INTO paths (path, name, queued_unix_ms) VALUES ('" +
          StorePathOf("waiting") + "-lib', 'x', 1)");
  ASSERT_OK_AND_ASSIGN(PathReport path, report_->Path(base));
  EXPECT_EQ(path.path, StorePathOf("waiting"));
  absl::Status ambiguous = report_->Path(base.substr(0, 34)).status();
  EXPECT_TRUE(absl::IsInvalidArgument(ambiguous)) << ambiguous;
  EXPECT_THAT(std::string(ambiguous.message()), HasSubstr("not unique"));
  ASSERT_OK_AND_ASSIGN(path, report_->Path(base + "-l"));
  EXPECT_EQ(path.path, StorePathOf("waiting") + "-lib");
  EXPECT_TRUE(absl::IsNotFound(report_->Path("zzz").status()));
  EXPECT_TRUE(absl::IsNotFound(report_->Path("/nix/store/zzz").status()));
  EXPECT_TRUE(absl::IsNotFound(report_->Path("%").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(report_->Path("").status()));
}

// What hooks have left is found in each place where it may lie.
TEST_F(ReportTest, WhatIsNotYetTakenInIsFoundToo) {
  InboxEntry fresh = Output("fresh");
  fresh.deriver = StorePathOf("fresh.drv");
  InboxEntry floating = Output("floating.drv");
  floating.kind = InboxKind::kDerivation;
  floating.created_unix_ms += 2000;
  InboxEntry spooled = Output("spooled");
  spooled.created_unix_ms += 1000;
  {
    auto writer = InboxWriter::Open(Options().state_dir, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({floating, fresh, Output("waiting")}));
  }
  ASSERT_OK(WriteSpool(Options().state_dir, {spooled}));
  ASSERT_OK(queue_->Accept({}, {Output("asked.drv")}, {}));
  ASSERT_OK_AND_ASSIGN(auto due, queue_->DueDerivations(9));
  ASSERT_OK(queue_->DelayDerivation(
      due.at(0).id, clock_.Now() + absl::Minutes(5), "no such derivation"));

  for (const auto& [name, place] :
       {std::pair("fresh", "inbox"), std::pair("floating.drv", "inbox"),
        std::pair("spooled", "spool"), std::pair("asked.drv", "derivation")}) {
    SCOPED_TRACE(name);
    std::string base = StorePathOf(name).substr(strlen("/nix/store/"));
    for (const std::string& wanted :
         {StorePathOf(name), base, base.substr(0, base.size() - 1)}) {
      ASSERT_OK_AND_ASSIGN(PathReport path, report_->Path(wanted));
      EXPECT_EQ(path.path, StorePathOf(name));
      EXPECT_FALSE(path.accepted);
      EXPECT_EQ(path.root, path.path.ends_with(".drv") ? RootState::kNone
                                                       : RootState::kHold);
      EXPECT_EQ(path.source, "hook");
      EXPECT_GE(path.queued_at, absl::FromUnixMillis(1795230725000));
      EXPECT_THAT(path.jobs, IsEmpty());
      ASSERT_THAT(path.arrivals, SizeIs(1));
      EXPECT_EQ(Name(path.arrivals[0].place), place);
    }
  }
  ASSERT_OK_AND_ASSIGN(PathReport path, report_->Path(StorePathOf("fresh")));
  EXPECT_EQ(path.deriver, StorePathOf("fresh.drv"));
  ASSERT_OK_AND_ASSIGN(path, report_->Path(StorePathOf("asked.drv")));
  EXPECT_EQ(path.arrivals[0].attempts, 1);
  EXPECT_EQ(path.arrivals[0].next_attempt, clock_.Now() + absl::Minutes(5));
  EXPECT_EQ(path.arrivals[0].error_text, "no such derivation");
  // Built again: a row, and an entry.
  ASSERT_OK_AND_ASSIGN(path, report_->Path(StorePathOf("waiting")));
  EXPECT_TRUE(path.accepted);
  EXPECT_THAT(path.arrivals, SizeIs(1));
  EXPECT_THAT(path.jobs, SizeIs(2));

  auto names = [&](absl::Time before, size_t limit) {
    std::vector<std::string> result;
    auto arrivals = report_->Arrivals(before, limit);
    EXPECT_OK(arrivals.status());
    for (const Arrival& arrival : *arrivals) {
      result.push_back(arrival.path.substr(arrival.path.find('-') + 1));
    }
    return result;
  };
  EXPECT_THAT(
      names(absl::InfiniteFuture(), 100),
      ElementsAre("fresh", "waiting", "spooled", "floating.drv", "asked.drv"));
  EXPECT_THAT(names(absl::InfiniteFuture(), 1), ElementsAre("fresh"));
  EXPECT_THAT(names(absl::FromUnixMillis(spooled.created_unix_ms), 100),
              ElementsAre("fresh", "waiting", "spooled"));
}

TEST_F(ReportTest, CountsWhatIsOutstanding) {
  ASSERT_OK_AND_ASSIGN(Report::Outstanding all, report_->Count({}));
  EXPECT_EQ(all.open, 3 + 5);
  EXPECT_EQ(all.parked, 1);
  ASSERT_OK_AND_ASSIGN(
      Report::Outstanding some,
      report_->Count({StorePathOf("parked"), StorePathOf("nosuch")}));
  EXPECT_EQ(some.open, 1);
  EXPECT_EQ(some.parked, 1);
  auto writer = InboxWriter::Open(Options().state_dir, absl::Seconds(1));
  ASSERT_OK(writer.status());
  ASSERT_OK(writer->Put({Output("nosuch")}));
  ASSERT_OK(WriteSpool(Options().state_dir, {Output("parked")}));
  ASSERT_OK_AND_ASSIGN(
      some, report_->Count({StorePathOf("parked"), StorePathOf("nosuch")}));
  EXPECT_EQ(some.open, 3);
  ASSERT_OK(queue_->Accept({}, {Output("floating.drv")}, {}));
  ASSERT_OK_AND_ASSIGN(all, report_->Count({}));
  EXPECT_EQ(all.open, 3 + 5 + 3);
  ASSERT_OK_AND_ASSIGN(some, report_->Count({StorePathOf("floating.drv")}));
  EXPECT_EQ(some.open, 1);
}

TEST_F(ReportTest, WhatWillNotArriveIsNotDone) {
  // A skipped path is done; a path that is gone, or that has no jobs, is not.
  Accept({"skipped", "gone", "forgotten"});
  ASSERT_OK(queue_->Forget({.paths = {StorePathOf("forgotten")}}).status());
  for (int target : {0, 1}) {
    for (const ClaimedJob& job : Claim(1000, target)) {
      Settlement settlement;
      settlement.job_id = job.job_id;
      if (job.path == StorePathOf("skipped")) {
        settlement.outcome = JobOutcome::kSkipped;
      } else if (job.path == StorePathOf("gone")) {
        settlement.outcome = JobOutcome::kGone;
        settlement.error_text = "not there any more";
      }
      ASSERT_OK(queue_->Settle({settlement}));
    }
  }
  std::vector<std::string> paths;
  for (const char* name : {"done", "skipped", "gone", "forgotten", "nosuch"}) {
    paths.push_back(StorePathOf(name));
  }
  ASSERT_OK_AND_ASSIGN(Report::Outstanding some, report_->Count(paths));
  EXPECT_EQ(some.open, 0);
  EXPECT_EQ(some.parked, 0);
  ASSERT_THAT(some.failed, SizeIs(3));
  EXPECT_EQ(some.failed[0].path, StorePathOf("gone"));
  EXPECT_THAT(some.failed[0].why, HasSubstr("target nas had it: not there"));
  EXPECT_EQ(some.failed[1].path, StorePathOf("forgotten"));
  EXPECT_THAT(some.failed[1].why, HasSubstr("no jobs"));
  EXPECT_EQ(some.failed[2].path, StorePathOf("nosuch"));
  EXPECT_THAT(some.failed[2].why, HasSubstr("never heard of it"));
  EXPECT_THAT(some.failed[2].why, HasSubstr("queuectl add"));
}

// The outputs of a derivation have no rows until Nix has told them.
TEST_F(ReportTest, WhatMayBeAnOutputIsAwaited) {
  InboxEntry derivation = Output("floating.drv");
  derivation.kind = InboxKind::kDerivation;
  const std::vector<std::string> paths = {StorePathOf("its-output")};
  auto expect_awaited = [&](const char* where) {
    ASSERT_OK_AND_ASSIGN(Report::Outstanding some, report_->Count(paths));
    EXPECT_EQ(some.open, 1) << where;
    EXPECT_THAT(some.failed, IsEmpty()) << where;
    absl::Status unknown = report_->Path(paths[0]).status();
    EXPECT_TRUE(absl::IsNotFound(unknown)) << where << unknown;
    EXPECT_THAT(std::string(unknown.message()), HasSubstr("may be an output"));
  };
  ASSERT_OK(WriteSpool(Options().state_dir, {derivation}));
  expect_awaited("spool");
  ASSERT_OK_AND_ASSIGN(SpoolListing spool, ReadSpool(Options().state_dir, 9));
  ASSERT_OK(RemoveSpoolFile(spool.files.at(0).file));
  {
    auto writer = InboxWriter::Open(Options().state_dir, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({derivation}));
  }
  expect_awaited("inbox");
  ASSERT_OK_AND_ASSIGN(std::vector<InboxEntry> inbox, queue_->ReadInbox(9));
  ASSERT_OK(queue_->Accept({}, {derivation}, {inbox.at(0).id}));
  expect_awaited("derivations");
  ASSERT_OK_AND_ASSIGN(auto due, queue_->DueDerivations(9));
  ASSERT_OK(queue_->ResolveDerivation(due.at(0).id, {Path("another")}));
  ASSERT_OK_AND_ASSIGN(Report::Outstanding some,
                       report_->Count({paths[0], StorePathOf("floating.drv")}));
  EXPECT_EQ(some.open, 0);
  ASSERT_THAT(some.failed, SizeIs(2));
  EXPECT_THAT(some.failed[1].why, HasSubstr("wait for its outputs"));
  EXPECT_THAT(std::string(report_->Path(paths[0]).status().message()),
              HasSubstr("never heard of it"));
}

TEST_F(ReportTest, NeverWaitsForAWriter) {
  auto other = Database::Open(QueueFile(Options().state_dir), {});
  ASSERT_OK(other.status());
  ASSERT_OK_AND_ASSIGN(Transaction lock, Transaction::Begin(*other));
  ASSERT_OK(other->Execute("DELETE FROM jobs"));
  ASSERT_OK_AND_ASSIGN(Report::Outstanding all, report_->Count({}));
  EXPECT_EQ(all.parked, 1);
  EXPECT_OK(Report::Open(Options()).status());
}

TEST_F(ReportTest, TargetsThatAreWaitedFor) {
  auto names = [&](const std::vector<std::string>& paths) {
    std::vector<std::string> result;
    auto targets = report_->WaitedFor(paths);
    EXPECT_OK(targets.status());
    for (const TargetRow& target : *targets) result.push_back(target.name);
    return result;
  };
  EXPECT_THAT(names({}), ElementsAre("nas", "s3"));
  EXPECT_THAT(names({StorePathOf("done"), StorePathOf("parked")}),
              ElementsAre("s3"));
  EXPECT_THAT(names({StorePathOf("done"), StorePathOf("sending")}),
              ElementsAre("nas", "s3"));
  EXPECT_THAT(names({StorePathOf("nosuch")}), IsEmpty());
}

// Until the daemon has run there is the inbox, and nothing else.
TEST_F(ReportTest, AFileOfHooksAlone) {
  QueueOptions options = Options();
  options.state_dir = dir_ / "hooks";
  {
    auto writer = InboxWriter::Open(options.state_dir, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({Output("built")}));
    ASSERT_OK(WriteSpool(options.state_dir, {Output("spooled")}));
  }
  ASSERT_OK_AND_ASSIGN(Report report, Report::Open(options));
  EXPECT_TRUE(report.hooks_only());
  EXPECT_FALSE(report_->hooks_only());
  ASSERT_OK_AND_ASSIGN(QueueSummary summary, report.Summary());
  EXPECT_EQ(summary.inbox, 1);
  EXPECT_EQ(summary.spool_files, 1);
  EXPECT_THAT(summary.targets, IsEmpty());
  ASSERT_OK_AND_ASSIGN(std::vector<TargetRow> targets, report.Targets());
  EXPECT_THAT(targets, IsEmpty());
  ASSERT_OK_AND_ASSIGN(std::vector<JobRow> jobs, report.Jobs({}));
  EXPECT_THAT(jobs, IsEmpty());
  ASSERT_OK_AND_ASSIGN(auto arrivals,
                       report.Arrivals(absl::InfiniteFuture(), 9));
  EXPECT_THAT(arrivals, SizeIs(2));
  for (const char* name : {"built", "spooled"}) {
    std::string base = StorePathOf(name).substr(strlen("/nix/store/"));
    ASSERT_OK_AND_ASSIGN(PathReport path, report.Path(base.substr(0, 34)));
    EXPECT_EQ(path.path, StorePathOf(name));
    EXPECT_THAT(path.arrivals, SizeIs(1));
  }
  EXPECT_TRUE(absl::IsNotFound(report.Path(StorePathOf("other")).status()));
  ASSERT_OK_AND_ASSIGN(Report::Outstanding all, report.Count({}));
  EXPECT_EQ(all.open, 2);
  ASSERT_OK_AND_ASSIGN(
      Report::Outstanding some,
      report.Count({StorePathOf("built"), StorePathOf("other")}));
  EXPECT_EQ(some.open, 1);
  ASSERT_THAT(some.failed, SizeIs(1));
  EXPECT_EQ(some.failed[0].path, StorePathOf("other"));

  // The daemon starts: the same report sees its tables.
  ASSERT_OK_AND_ASSIGN(Queue queue, Queue::Open(options));
  ASSERT_OK(queue.SyncTargets({{"nas", "file:///nas"}}).status());
  ASSERT_OK_AND_ASSIGN(std::vector<InboxEntry> inbox, queue.ReadInbox(9));
  ASSERT_OK(queue.Accept({Path("built")}, {}, {inbox.at(0).id}));
  ASSERT_OK_AND_ASSIGN(some, report.Count({StorePathOf("built")}));
  EXPECT_EQ(some.open, 1);
  EXPECT_FALSE(report.hooks_only());
  ASSERT_OK_AND_ASSIGN(summary, report.Summary());
  EXPECT_EQ(summary.targets.at(0).queued, 1);
}

TEST_F(ReportTest, OpenSaysWhatToDo) {
  QueueOptions options = Options();
  options.state_dir = dir_ / "nowhere";
  absl::Status status = Report::Open(options).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no queue there yet"));
}

TEST_F(ReportTest, IntegrityIsChecked) {
  EXPECT_OK(report_->CheckIntegrity());
  ASSERT_OK(queue_->Checkpoint());
  queue_.reset();
  report_.reset();
  std::string file = QueueFile(Options().state_dir);
  std::string bytes = *ReadFile(file, 1 << 24);
  // The content of every page but the first, not its header.
  for (size_t i = 4096; i < bytes.size(); ++i) {
    if (i % 4096 > 3000 && i % 3 == 0) bytes[i] ^= 0x55;
  }
  ASSERT_OK(WriteFileAtomically(file, bytes, 0644));
  ASSERT_EQ(unlink((file + "-wal").c_str()), 0);
  auto damaged = Report::Open(Options());
  absl::Status status =
      damaged.ok() ? damaged->CheckIntegrity() : damaged.status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

}  // namespace
}  // namespace nixq
