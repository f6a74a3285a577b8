#include "queued/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "storage/base/status.h"
#include "storage/nix/closure.h"
#include "tests/queued/fakes.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A cache that remembers what it was asked.
class AskedCache {
 public:
  explicit AskedCache(const std::vector<std::string>& names) {
    for (const std::string& name : names) shown_.insert(TestPath(name));
  }
  std::vector<std::string> Missing(const std::vector<PathInfo>& closure,
                                   const std::vector<std::string>& roots) {
    std::vector<StorePath> paths;
    for (const std::string& root : roots) paths.push_back(TestPath(root));
    auto missing = FindMissing(TopologicallySorted(closure), paths,
                               [&](const std::vector<StorePath>& asked)
                                   -> absl::StatusOr<std::vector<bool>> {
                                 ++rounds;
                                 std::vector<bool> answer;
                                 for (const StorePath& path : asked) {
                                   EXPECT_TRUE(asked_.insert(path).second)
                                       << "asked twice";
                                   answer.push_back(shown_.contains(path));
                                 }
                                 return answer;
                               });
    EXPECT_TRUE(missing.ok());
    std::vector<std::string> names;
    for (const PathInfo& info : *missing) names.emplace_back(info.path.name());
    return names;
  }
  size_t asked() const { return asked_.size(); }
  int rounds = 0;

 private:
  std::set<StorePath> shown_;
  std::set<StorePath> asked_;
};

TEST(FindMissingTest, AsksOnlyForTheRootWhenItIsThere) {
  AskedCache cache({"top", "bottom"});
  EXPECT_THAT(
      cache.Missing({TestInfo("top", 1, {"bottom"}), TestInfo("bottom", 1)},
                    {"top"}),
      IsEmpty());
  EXPECT_EQ(cache.asked(), 1u);
}

TEST(FindMissingTest, FindsReferencesFirst) {
  AskedCache cache({"libc"});
  EXPECT_THAT(cache.Missing({TestInfo("app", 1, {"lib", "libc", "app"}),
                             TestInfo("lib", 1, {"libc"}), TestInfo("libc", 1)},
                            {"app"}),
              ElementsAre("lib", "app"));
}

TEST(FindMissingTest, ALongChainTakesFewRounds) {
  std::vector<PathInfo> chain;
  for (int i = 0; i < 1000; ++i) {
    std::vector<std::string> references;
    if (i > 0) references.push_back("p" + std::to_string(i - 1));
    chain.push_back(TestInfo("p" + std::to_string(i), 1, references));
  }
  AskedCache cache({});
  EXPECT_EQ(cache.Missing(chain, {"p999"}).size(), 1000u);
  EXPECT_LE(cache.rounds, 12);
}

TEST(FindMissingTest, APresentPathDoesNotVouchForARootThatIsMissing) {
  // The cache has lost "middle" and what only it leads to.
  AskedCache cache({"top"});
  EXPECT_THAT(
      cache.Missing({TestInfo("top", 1, {"middle"}),
                     TestInfo("middle", 1, {"bottom"}), TestInfo("bottom", 1)},
                    {"top", "middle"}),
      ElementsAre("bottom", "middle"));
}

TEST(FindMissingTest, AnErrorEndsTheSearch) {
  auto missing = FindMissing(
      {TestInfo("a", 1)}, {TestPath("a")},
      [](const std::vector<StorePath>&) -> absl::StatusOr<std::vector<bool>> {
        return absl::UnavailableError("down");
      });
  EXPECT_TRUE(absl::IsUnavailable(missing.status()));
}

ClaimedJob JobFor(const std::string& name) {
  ClaimedJob job;
  job.path = TestStoreDir().Print(TestPath(name));
  return job;
}

std::vector<ClaimedJob> JobsFor(const std::vector<std::string>& names) {
  std::vector<ClaimedJob> jobs;
  for (const std::string& name : names) jobs.push_back(JobFor(name));
  return jobs;
}

template <typename Entries>
std::vector<std::string> Names(const Entries& entries) {
  std::vector<std::string> names;
  for (const auto& entry : entries) {
    names.emplace_back(TestStoreDir().ParsePath(entry.job.path)->name());
  }
  return names;
}

// A plan in which all is missing, with "lib" as everybody's reference; it
// fails when "bad" is among the jobs.
Plan PlanUnlessBad(const std::vector<ClaimedJob>& jobs) {
  Plan plan;
  for (const ClaimedJob& job : jobs) {
    if (job.path.ends_with("-bad")) {
      plan = Plan{};
      plan.status = BlamePath(absl::UnavailableError("500 for one key"));
      return plan;
    }
    plan.missing.push_back({job, TestInfo("x", 1)});
  }
  plan.missing_references.push_back(TestInfo("lib", 1));
  return plan;
}

TEST(PlanApartTest, OnlyTheJobsOfABadPathFail) {
  const Plan plan =
      PlanApart(JobsFor({"a", "b", "bad", "c", "d"}), PlanUnlessBad);
  EXPECT_TRUE(plan.status.ok()) << plan.status;
  EXPECT_THAT(Names(plan.missing), ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(Names(plan.failed), ElementsAre("bad"));
  EXPECT_TRUE(IsPathsFault(plan.failed[0].status));
  // Not once for each part.
  EXPECT_EQ(plan.missing_references.size(), 1u);
}

TEST(PlanApartTest, WhatOneHalfHasClaimedIsNoReferenceOfTheOther) {
  const Plan plan = PlanApart(JobsFor({"app", "bad", "lib"}),
                              [](const std::vector<ClaimedJob>& jobs) {
                                Plan some = PlanUnlessBad(jobs);
                                if (!some.missing.empty() && jobs.size() == 1 &&
                                    jobs[0].path.ends_with("-lib")) {
                                  some.missing[0].info = TestInfo("lib", 1);
                                  some.missing_references.clear();
                                }
                                return some;
                              });
  EXPECT_THAT(Names(plan.missing), ElementsAre("app", "lib"));
  EXPECT_THAT(plan.missing_references, IsEmpty());
}

TEST(PlanApartTest, ATargetThatFailsIsAskedOnce) {
  int asked = 0;
  const Plan plan =
      PlanApart(JobsFor({"a", "b"}), [&](const std::vector<ClaimedJob>&) {
        ++asked;
        Plan failed;
        failed.status = absl::UnavailableError("down");
        return failed;
      });
  EXPECT_TRUE(absl::IsUnavailable(plan.status));
  EXPECT_EQ(asked, 1);
}

class PlannerTest : public testing::Test {
 protected:
  Plan Make(const std::vector<ClaimedJob>& jobs) {
    config_.store_dir = "/nix/store";
    config_.real_store_dir = "/nix/store";
    target_config_.name = "nas";
    target_config_.url = "file://" + directory_.path() + "/cache";
    Target target(1, target_config_, config_, {}, http_, random_);
    return planner_.Make(target, jobs, cancel_);
  }

  TemporaryDirectory directory_;
  Config config_;
  TargetConfig target_config_;
  HttpClient http_;
  SeededRandom random_{3};
  FakeClock clock_;
  FakeStore store_;
  Signer signer_{{}, TestStoreDir(), store_, NullLog()};
  Planner planner_{TestStoreDir(), store_, signer_, clock_};
  Cancellation cancel_;
};

TEST_F(PlannerTest, APathThatTheStoreCannotTellOfStopsNoOther) {
  for (const std::string name : {"a", "odd", "b"}) {
    store_.Add(TestInfo(name, 1));
  }
  store_.unreadable.insert(TestPath("odd"));
  Plan plan = Make(JobsFor({"a", "odd", "b"}));
  EXPECT_TRUE(plan.status.ok()) << plan.status;
  EXPECT_THAT(Names(plan.missing), ElementsAre("a", "b"));
  EXPECT_THAT(Names(plan.failed), ElementsAre("odd"));
}

TEST_F(PlannerTest, AReferenceThatTheStoreCannotTellOfFailsWhatNeedsIt) {
  store_.Add(TestInfo("a", 1, {"odd"}));
  store_.Add(TestInfo("b", 1));
  store_.unreadable.insert(TestPath("odd"));
  Plan plan = Make(JobsFor({"a", "b"}));
  EXPECT_TRUE(plan.status.ok()) << plan.status;
  EXPECT_THAT(Names(plan.missing), ElementsAre("b"));
  EXPECT_THAT(Names(plan.failed), ElementsAre("a"));
}

TEST_F(PlannerTest, AStoreThatIsAwayFailsThePlan) {
  store_.status = absl::UnavailableError("nix-daemon is away");
  Plan plan = Make(JobsFor({"a", "b"}));
  EXPECT_TRUE(absl::IsUnavailable(plan.status));
  EXPECT_TRUE(plan.store_failed);
}

TEST_F(PlannerTest, FiltersLeaveReferencesAlone) {
  target_config_.include = {"app"};
  for (const std::string name : {"app", "lib", "other"}) {
    store_.Add(TestInfo(name, 1));
  }
  std::vector<ClaimedJob> jobs = JobsFor({"app", "lib", "other"});
  jobs[1].source = kReferenceSource;
  Plan plan = Make(jobs);
  EXPECT_THAT(Names(plan.missing), ElementsAre("app", "lib"));
  EXPECT_THAT(Names(plan.finished), ElementsAre("other"));
}

}  // namespace
}  // namespace nixq
