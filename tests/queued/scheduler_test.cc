#include "queued/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "storage/base/status.h"
#include "tests/queued/fakes.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kTarget = 1;

class SchedulerTest : public testing::Test {
 protected:
  SchedulerTest() { AddTarget(TargetLimits{}); }

  void AddTarget(const TargetLimits& limits) {
    TargetRow row;
    row.id = kTarget;
    row.name = "nas";
    scheduler_.AddTarget(row, limits);
  }
  absl::Time now() { return clock_.Now(); }

  ClaimedJob Job(const std::string& name, int attempts = 0) {
    ClaimedJob job;
    job.job_id = static_cast<int64_t>(job_names_.size()) + 1;
    job_names_[job.job_id] = name;
    job.target_id = kTarget;
    job.path = TestStoreDir().Print(TestPath(name));
    job.attempts = attempts;
    return job;
  }

  // Claims and plans the given paths, all missing.
  void PlanMissing(const std::vector<PathInfo>& infos, int attempts = 0) {
    const std::vector<Action> actions = scheduler_.Next(now());
    ASSERT_THAT(actions, SizeIs(1));
    ASSERT_EQ(actions[0].kind, Action::Kind::kClaim);
    Plan plan;
    std::vector<ClaimedJob> jobs;
    for (const PathInfo& info : infos) {
      jobs.push_back(Job(std::string(info.path.name()), attempts));
      plan.missing.push_back({jobs.back(), info});
    }
    scheduler_.Claimed(kTarget, actions[0].limit, jobs.size());
    scheduler_.Planned(kTarget, now(), now(), jobs, std::move(plan), {});
  }

  static std::string NameOf(const Action& action) {
    switch (action.kind) {
      case Action::Kind::kClaim:
        return "claim";
      case Action::Kind::kSend:
        return std::string(action.show ? "send+show " : "send ") +
               std::string(action.info->path.name());
      case Action::Kind::kShow:
        return "show " + std::string(action.narinfo->info.path.name());
      case Action::Kind::kCopy:
        return "copy " + std::to_string(action.paths.size());
    }
    return "";
  }
  std::vector<std::string> Next() {
    std::vector<std::string> names;
    for (const Action& action : scheduler_.Next(now())) {
      names.push_back(NameOf(action));
    }
    return names;
  }

  void Sent(const std::string& name, absl::Status status,
            std::optional<absl::Status> shown = std::nullopt) {
    Scheduler::SendResult result;
    if (status.ok()) {
      result.narinfo = NarInfo{.info = TestInfo(name, 1),
                               .url = "",
                               .compression = "",
                               .file_hash = std::nullopt,
                               .file_size_bytes = 7};
    } else {
      result.narinfo = status;
    }
    result.was_shown = shown.has_value();
    if (shown.has_value()) result.shown = *shown;
    scheduler_.Sent(kTarget, TestPath(name), now(), now(), result);
  }

  // "name verb" of each settlement since the last call.
  std::vector<std::string> Settled() {
    static const char* const kVerbs[] = {"done", "retry", "release", "park"};
    std::vector<std::string> texts;
    for (const Settlement& s : scheduler_.TakeSettlements()) {
      texts.push_back(job_names_[s.job_id] + " " +
                      kVerbs[static_cast<int>(s.verb)]);
      last_ = s;
    }
    return texts;
  }

  FakeClock clock_;
  SeededRandom random_{11};
  RetryPolicy policy_;
  Scheduler scheduler_{policy_, random_};
  std::map<int64_t, std::string> job_names_;
  Settlement last_;
};

TEST_F(SchedulerTest, SendsLargestFirstAndShowsInOrder) {
  PlanMissing({TestInfo("lib", 10), TestInfo("app", 50, {"lib"})});
  EXPECT_THAT(Next(), ElementsAre("send app", "send+show lib"));
  Sent("app", absl::OkStatus());
  EXPECT_THAT(Next(), IsEmpty());
  Sent("lib", absl::OkStatus(), absl::OkStatus());
  EXPECT_THAT(Settled(), ElementsAre("lib done"));
  EXPECT_THAT(Next(), ElementsAre("show app", "claim"));
  scheduler_.Shown(kTarget, TestPath("app"), now(), now(), absl::OkStatus());
  EXPECT_THAT(Settled(), ElementsAre("app done"));
  EXPECT_EQ(last_.sent_size_bytes, 7u);
}

TEST_F(SchedulerTest, AFailedTargetLetsGoOfEverythingAndProbesOnce) {
  PlanMissing({TestInfo("a", 3), TestInfo("b", 2), TestInfo("c", 1)});
  EXPECT_THAT(Next(), SizeIs(3));
  Sent("a", absl::UnavailableError("down"));
  EXPECT_THAT(Settled(), ElementsAre("a retry"));
  EXPECT_THAT(Next(), IsEmpty());
  Sent("b", absl::UnavailableError("down"));
  Sent("c", absl::UnavailableError("down"));
  EXPECT_THAT(Settled(), ElementsAre("b retry", "c retry"));
  ASSERT_TRUE(scheduler_.NextProbe().has_value());
  EXPECT_GT(*scheduler_.NextProbe(), now());
  EXPECT_THAT(Next(), IsEmpty());
  clock_.Advance(absl::Seconds(5));
  const std::vector<Action> probe = scheduler_.Next(now());
  ASSERT_THAT(probe, SizeIs(1));
  EXPECT_EQ(probe[0].kind, Action::Kind::kClaim);
  EXPECT_EQ(probe[0].limit, 1u);
  EXPECT_EQ(probe[0].order, ClaimOrder::kLongestUntriedFirst);
}

// Otherwise the loop would look again and again until the probe is back.
TEST_F(SchedulerTest, AProbeThatIsUnderWayIsWaitedFor) {
  PlanMissing({TestInfo("a", 2), TestInfo("b", 1)});
  Next();
  Sent("a", absl::UnavailableError("down"));
  Sent("b", absl::UnavailableError("down"));
  clock_.Advance(absl::Seconds(5));
  ASSERT_TRUE(scheduler_.NextProbe().has_value());
  EXPECT_LE(*scheduler_.NextProbe(), now());
  EXPECT_THAT(Next(), ElementsAre("claim"));
  EXPECT_EQ(scheduler_.NextProbe(), std::nullopt);
  scheduler_.Claimed(kTarget, 1, 1);
  EXPECT_EQ(scheduler_.NextProbe(), std::nullopt);
  Plan plan;
  plan.status = absl::UnavailableError("still down");
  scheduler_.Planned(kTarget, now(), now(), {Job("a")}, plan, {});
  ASSERT_TRUE(scheduler_.NextProbe().has_value());
  EXPECT_GT(*scheduler_.NextProbe(), now());
}

// A server that answers questions and takes no uploads: each failure counts,
// and one upload at a time goes out until one arrives.
TEST_F(SchedulerTest, AProbeThatHasSomethingToSendHasToSendIt) {
  PlanMissing({TestInfo("a", 2)});
  EXPECT_THAT(Next(), ElementsAre("send+show a"));
  Sent("a", absl::UnavailableError("no uploads"));
  for (int failures = 2; failures < 5; ++failures) {
    clock_.Advance(absl::Hours(1));
    PlanMissing({TestInfo("a", 2), TestInfo("b", 1)});
    EXPECT_THAT(Next(), ElementsAre("send+show a"));
    Sent("a", absl::UnavailableError("no uploads"));
    const std::vector<TargetRow> health = scheduler_.TakeHealth(now());
    ASSERT_THAT(health, SizeIs(1));
    EXPECT_EQ(health[0].health, TargetHealth::kUnreachable);
    EXPECT_EQ(health[0].failures, failures);
  }
  clock_.Advance(absl::Hours(1));
  PlanMissing({TestInfo("a", 2), TestInfo("b", 1)});
  EXPECT_THAT(Next(), ElementsAre("send+show a"));
  Sent("a", absl::OkStatus(), absl::OkStatus());
  EXPECT_THAT(Next(), ElementsAre("send+show b", "claim"));
}

TEST_F(SchedulerTest, AFullWindowWaitsForNoTime) {
  TargetLimits limits;
  limits.window = 1;
  limits.in_flight = 1;
  AddTarget(limits);
  PlanMissing({TestInfo("a", 1)});
  EXPECT_THAT(Next(), ElementsAre("send+show a"));
  TargetRow other;
  other.id = kTarget + 1;
  scheduler_.AddTarget(other, TargetLimits{});
  EXPECT_THAT(Next(), ElementsAre("claim"));
  scheduler_.Claimed(other.id, TargetLimits{}.window, 1);
  ClaimedJob job = Job("b");
  job.target_id = other.id;
  Plan plan;
  plan.status = absl::UnavailableError("nix-daemon is away");
  plan.store_failed = true;
  scheduler_.Planned(other.id, now(), now(), {job}, plan, {});
  clock_.Advance(absl::Seconds(5));
  EXPECT_THAT(Next(), ElementsAre("claim"));
  EXPECT_EQ(scheduler_.NextProbe(), std::nullopt);
}

TEST_F(SchedulerTest, RefusedKeepsTheJobsWithoutCountingAttempts) {
  PlanMissing({TestInfo("a", 1)});
  Next();
  Sent("a", absl::UnauthenticatedError("401"));
  EXPECT_THAT(Settled(), ElementsAre("a release"));
  const std::vector<TargetRow> rows = scheduler_.TakeHealth(now());
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].health, TargetHealth::kRefused);
  clock_.Advance(absl::Minutes(30));
  EXPECT_THAT(Next(), IsEmpty());
}

TEST_F(SchedulerTest, ACorruptPathIsParkedAndOthersGoOn) {
  PlanMissing({TestInfo("bad", 9), TestInfo("good", 1)});
  EXPECT_THAT(Next(), SizeIs(2));
  Sent("bad", BlamePath(absl::DataLossError("hash mismatch")));
  EXPECT_THAT(Settled(), ElementsAre("bad park"));
  const std::vector<Scheduler::Note> notes = scheduler_.TakeNotes();
  ASSERT_THAT(notes, SizeIs(1));
  EXPECT_TRUE(notes[0].corrupt);
  Sent("good", absl::OkStatus(), absl::OkStatus());
  EXPECT_THAT(Settled(), ElementsAre("good done"));
  EXPECT_THAT(scheduler_.TakeHealth(now()), SizeIs(1));
}

TEST_F(SchedulerTest, WhatNeedsAParkedReferenceIsBlocked) {
  PlanMissing({TestInfo("lib", 1), TestInfo("app", 2, {"lib"}),
               TestInfo("suite", 3, {"app"})});
  EXPECT_THAT(Next(), SizeIs(3));
  Sent("suite", absl::OkStatus());
  Sent("app", absl::OkStatus());
  Sent("lib", BlamePath(absl::InvalidArgumentError("413 too large")));
  EXPECT_THAT(Settled(), ElementsAre("lib park", "app park", "suite park"));
  EXPECT_EQ(last_.error_code, "blocked");
  EXPECT_EQ(last_.blocked_by, TestStoreDir().Print(TestPath("lib")));
}

TEST_F(SchedulerTest, WhatNeedsADelayedReferenceWaitsForIt) {
  PlanMissing({TestInfo("lib", 1), TestInfo("app", 2, {"lib"})});
  Next();
  Sent("app", absl::OkStatus());
  Sent("lib", BlamePath(absl::UnavailableError("try later")));
  EXPECT_THAT(Settled(), ElementsAre("lib retry", "app release"));
  EXPECT_GT(last_.next_attempt, now());
}

TEST_F(SchedulerTest, AnOrphanIsReleasedWhenItComesBack) {
  PlanMissing({TestInfo("lib", 1), TestInfo("app", 2, {"lib"})});
  Next();
  Sent("lib", BlamePath(absl::UnavailableError("try later")));
  EXPECT_THAT(Settled(), ElementsAre("lib retry"));
  Sent("app", absl::OkStatus());
  EXPECT_THAT(Settled(), ElementsAre("app release"));
  EXPECT_TRUE(scheduler_.Idle());
}

TEST_F(SchedulerTest, UnknownErrorsAreTriedSoOftenAndThenParked) {
  PlanMissing({TestInfo("odd", 1)}, policy_.max_attempts - 2);
  Next();
  Sent("odd", BlamePath(absl::UnknownError("?")));
  EXPECT_THAT(Settled(), ElementsAre("odd retry"));
  clock_.Advance(absl::Hours(2));
  PlanMissing({TestInfo("odd", 1)}, policy_.max_attempts - 1);
  Next();
  Sent("odd", BlamePath(absl::UnknownError("?")));
  EXPECT_THAT(Settled(), ElementsAre("odd park"));
}

TEST_F(SchedulerTest, AStoreThatCannotBeAskedIsNotTheTargetsFault) {
  const std::vector<Action> actions = scheduler_.Next(now());
  const ClaimedJob job = Job("a");
  scheduler_.Claimed(kTarget, actions[0].limit, 1);
  Plan plan;
  plan.status = absl::UnavailableError("nix-daemon is away");
  plan.store_failed = true;
  scheduler_.Planned(kTarget, now(), now(), {job}, plan, {});
  EXPECT_THAT(Settled(), ElementsAre("a release"));
  EXPECT_THAT(scheduler_.TakeHealth(now()), IsEmpty());
  EXPECT_THAT(Next(), IsEmpty());
  ASSERT_TRUE(scheduler_.NextProbe().has_value());
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(Next(), ElementsAre("claim"));
}

TEST_F(SchedulerTest, APlanThatFailsBecauseOfAPathOpensNoCircuit) {
  const std::vector<Action> actions = scheduler_.Next(now());
  scheduler_.Claimed(kTarget, actions[0].limit, 1);
  Plan plan;
  plan.status = BlamePath(absl::UnavailableError("500 for one key"));
  scheduler_.Planned(kTarget, now(), now(), {Job("a")}, plan, {});
  EXPECT_THAT(Settled(), ElementsAre("a retry"));
  EXPECT_GT(last_.next_attempt, now());
  EXPECT_THAT(scheduler_.TakeHealth(now()), IsEmpty());
  EXPECT_THAT(Next(), ElementsAre("claim"));
}

TEST_F(SchedulerTest, AClaimThatTheQueueRefusedIsWantedAgain) {
  EXPECT_THAT(Next(), ElementsAre("claim"));
  scheduler_.NotClaimed(kTarget);
  EXPECT_TRUE(scheduler_.Idle());
  EXPECT_THAT(Next(), ElementsAre("claim"));
}

TEST_F(SchedulerTest, EndWaitsIsForTheStoreToo) {
  const std::vector<Action> actions = scheduler_.Next(now());
  scheduler_.Claimed(kTarget, actions[0].limit, 1);
  Plan plan;
  plan.status = absl::UnavailableError("nix-daemon is away");
  plan.store_failed = true;
  scheduler_.Planned(kTarget, now(), now(), {Job("a")}, plan, {});
  EXPECT_THAT(Next(), IsEmpty());
  scheduler_.EndWaits();
  EXPECT_THAT(Next(), ElementsAre("claim"));
}

TEST_F(SchedulerTest, AReferenceParkedEarlierBlocksWhatNeedsIt) {
  const std::vector<Action> actions = scheduler_.Next(now());
  const std::vector<ClaimedJob> jobs = {Job("app"), Job("other")};
  scheduler_.Claimed(kTarget, actions[0].limit, 2);
  Plan plan;
  plan.missing = {{jobs[0], TestInfo("app", 1, {"lib"})},
                  {jobs[1], TestInfo("other", 1)}};
  plan.missing_references = {TestInfo("lib", 1)};
  Queue::ReferenceClaim claim;
  claim.path = TestStoreDir().Print(TestPath("lib"));
  claim.state = JobState::kParked;
  claim.error_text = "rotten";
  scheduler_.Planned(kTarget, now(), now(), jobs, plan, {claim});
  EXPECT_THAT(Settled(), ElementsAre("app park"));
  EXPECT_THAT(Next(), ElementsAre("send+show other"));
}

TEST_F(SchedulerTest, LimitsHold) {
  TargetLimits limits;
  limits.in_flight = 3;
  limits.large_in_flight = 1;
  limits.large_bytes = 100;
  AddTarget(limits);
  PlanMissing({TestInfo("l1", 500), TestInfo("l2", 400), TestInfo("s1", 5),
               TestInfo("s2", 4), TestInfo("s3", 3)});
  EXPECT_THAT(Next(),
              ElementsAre("send+show l1", "send+show s1", "send+show s2"));
  Sent("s1", absl::OkStatus(), absl::OkStatus());
  EXPECT_THAT(Next(), ElementsAre("send+show s3", "claim"));
  Sent("l1", absl::OkStatus(), absl::OkStatus());
  EXPECT_THAT(Next(), ElementsAre("send+show l2"));
}

TEST_F(SchedulerTest, BatchesAreBoundedAndOneAtATime) {
  TargetLimits limits;
  limits.flow = TargetLimits::Flow::kBatch;
  limits.batch_bytes = 100;
  AddTarget(limits);
  PlanMissing({TestInfo("a", 60), TestInfo("b", 60), TestInfo("c", 10)});
  const std::vector<Action> first = scheduler_.Next(now());
  ASSERT_THAT(first, SizeIs(1));
  ASSERT_EQ(first[0].kind, Action::Kind::kCopy);
  EXPECT_THAT(Next(), IsEmpty());
  std::vector<Scheduler::CopyResult> results;
  for (const PathInfo& info : first[0].paths) {
    results.push_back({info.path, absl::OkStatus()});
  }
  scheduler_.Copied(kTarget, now(), now(), results);
  EXPECT_THAT(Settled(), SizeIs(results.size()));
  const std::vector<Action> second = scheduler_.Next(now());
  ASSERT_THAT(second, SizeIs(1));
  EXPECT_EQ(first[0].paths.size() + second[0].paths.size(), 3u);
}

TEST_F(SchedulerTest, AbandonLetsGoOfWhatIsNotUnderWay) {
  PlanMissing({TestInfo("lib", 1), TestInfo("app", 2, {"lib"})});
  Next();
  Sent("app", absl::OkStatus());
  scheduler_.Abandon();
  EXPECT_THAT(Settled(), ElementsAre("app release"));
  EXPECT_FALSE(scheduler_.Idle());
  Sent("lib", absl::CancelledError("stopping"));
  EXPECT_THAT(Settled(), ElementsAre("lib release"));
  EXPECT_TRUE(scheduler_.Idle());
}

TEST_F(SchedulerTest, WhatAStopInterruptsIsDueAtOnce) {
  PlanMissing(
      {TestInfo("lib", 1), TestInfo("app", 2, {"lib"}), TestInfo("other", 3)});
  Next();
  scheduler_.TakeHealth(now());
  scheduler_.Abandon();
  // Its referrer is still under way, an orphan that is then sent whole.
  Sent("lib", absl::CancelledError("stopping"));
  Sent("app", absl::OkStatus());
  // Broke off before it heard of the stop.
  Sent("other", absl::UnavailableError("connection lost"));
  const std::vector<Settlement> settled = scheduler_.TakeSettlements();
  ASSERT_THAT(settled, SizeIs(3));
  for (const Settlement& settlement : settled) {
    EXPECT_EQ(settlement.verb, Settlement::Verb::kRelease);
    EXPECT_LE(settlement.next_attempt, now());
  }
  EXPECT_THAT(scheduler_.TakeHealth(now()), IsEmpty());
}

}  // namespace
}  // namespace nixq
