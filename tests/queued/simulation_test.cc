// The scheduler with a real queue, simulated time and simulated targets: one
// seed is one whole history of builds, faults, restarts and recoveries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "queued/planner.h"
#include "queued/scheduler.h"
#include "storage/base/status.h"
#include "storage/nix/closure.h"
#include "tests/queued/fakes.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

constexpr absl::Duration kLease = absl::Minutes(10);

// What one operation does to a target that has its bad days.
struct SimulatedTarget {
  int64_t id = 0;
  double failure_rate = 0;    // of each operation
  absl::Time dead_until;      // unreachable, whatever is tried
  bool hangs = false;         // operations take a minute and fail
  std::set<StorePath> nars;   // complete NARs
  std::set<StorePath> shown;  // narinfos
  std::map<StorePath, int> shows;
  int faults = 0;
};

class Simulation {
 public:
  Simulation(uint64_t seed, const std::string& directory)
      : random_(seed), directory_(directory) {
    Restart();
  }

  void AddTarget(const std::string& name) {
    names_.push_back(name);
    targets_.push_back({});
    Restart();
  }
  SimulatedTarget& target(size_t i) { return targets_[i]; }
  absl::Time now() { return clock_.Now(); }
  FakeStore& store() { return store_; }
  SeededRandom& random() { return random_; }
  int64_t restarts() const { return restarts_; }

  // A build: the path is valid, and its hook has written the inbox.
  void Build(PathInfo info) {
    NewPath path;
    path.path = TestStoreDir().Print(info.path);
    built_.push_back(info.path);
    store_.Add(std::move(info));
    ASSERT_TRUE(queue_->Accept({path}, {}, {}).ok());
    scheduler_->Poke();
  }
  // Valid, but never enqueued: only references lead to it.
  void Substitute(PathInfo info) { store_.Add(std::move(info)); }

  // Every built path and all that it references.
  std::vector<StorePath> Expected() {
    auto closure = ComputeClosure(store_, built_, 100'000,
                                  [](const PathInfo&) { return true; });
    std::vector<StorePath> paths;
    for (const PathInfo& info : closure->paths) paths.push_back(info.path);
    return paths;
  }
  bool AllArrived() {
    const std::vector<StorePath> expected = Expected();
    return std::all_of(targets_.begin(), targets_.end(), [&](auto& target) {
      return std::all_of(
          expected.begin(), expected.end(),
          [&](const StorePath& path) { return target.shown.contains(path); });
    });
  }
  // A person revives what "odd" errors have parked.
  void RetryParked() {
    JobSelection all;
    all.parked_only = true;
    ASSERT_TRUE(queue_->Retry(all).ok());
  }

  // The daemon is killed: what was under way never reports.
  void Restart() {
    ++restarts_;
    pending_.clear();
    queue_.reset();
    QueueOptions options;
    options.state_dir = directory_;
    options.clock = &clock_;
    auto queue = Queue::Open(options);
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = std::make_unique<Queue>(*std::move(queue));
    ASSERT_TRUE(queue_->ReleaseAll().ok());
    scheduler_ = std::make_unique<Scheduler>(RetryPolicy{}, random_);
    std::vector<Queue::TargetSpec> specs;
    for (const std::string& name : names_) specs.push_back({name, "x://"});
    auto rows = queue_->SyncTargets(specs);
    ASSERT_TRUE(rows.ok()) << rows.status();
    for (size_t i = 0; i < rows->size(); ++i) {
      targets_[i].id = (*rows)[i].id;
      scheduler_->AddTarget((*rows)[i],
                            TargetLimits{.in_flight = 4, .window = 16});
    }
  }

  // One turn of the loop: events that are due, settlements, new actions; then
  // time goes on to the next thing that can happen.
  void Step() {
    while (!pending_.empty() && pending_.begin()->first <= now()) {
      auto event = std::move(pending_.begin()->second);
      pending_.erase(pending_.begin());
      event();
    }
    Flush();
    for (Action& action : scheduler_->Next(now())) Start(std::move(action));
    Flush();
    absl::Time next = now() + absl::Minutes(1);
    if (!pending_.empty()) next = std::min(next, pending_.begin()->first);
    if (auto probe = scheduler_->NextProbe(); probe.has_value()) {
      next = std::min(next, *probe);
    }
    if (auto due = queue_->NextDue(now()); due.ok() && due->has_value()) {
      next = std::min(next, **due);
    }
    clock_.Advance(std::max(next - now(), absl::Milliseconds(1)));
    scheduler_->Poke();
    ASSERT_TRUE(queue_->RenewLeases(scheduler_->JobIds(), now() + kLease).ok());
  }

  // Promise 4, at every moment: what is shown is complete, closure and all.
  void CheckNoLies() {
    for (const SimulatedTarget& target : targets_) {
      for (const StorePath& path : target.shown) {
        ASSERT_TRUE(target.nars.contains(path)) << path.base_name();
        for (const StorePath& reference : store_.paths.at(path).references) {
          ASSERT_TRUE(target.shown.contains(reference) || reference == path)
              << path.base_name() << " without " << reference.base_name();
        }
      }
    }
  }

 private:
  void Flush() {
    std::vector<Settlement> settlements = scheduler_->TakeSettlements();
    if (!settlements.empty()) {
      absl::Status status = queue_->Settle(settlements);
      ASSERT_TRUE(status.ok()) << status;
    }
    for (const TargetRow& row : scheduler_->TakeHealth(now())) {
      ASSERT_TRUE(queue_->SaveTargetHealth(row).ok());
    }
    scheduler_->TakeNotes();
  }

  void After(absl::Duration delay, std::function<void()> event) {
    pending_.emplace(now() + delay, std::move(event));
  }

  SimulatedTarget& Of(int64_t id) {
    for (SimulatedTarget& target : targets_) {
      if (target.id == id) return target;
    }
    abort();
  }

  // OK, or the fault of this moment.
  absl::Status Weather(SimulatedTarget& target) {
    if (target.hangs) return absl::DeadlineExceededError("hangs");
    if (now() < target.dead_until || random_.NextUnit() < target.failure_rate) {
      ++target.faults;
      switch (random_.Next() % 4) {
        case 0:
          return BlamePath(absl::UnavailableError("reset on this path"));
        case 1:
          return WithRetryAfter(absl::UnavailableError("503"),
                                absl::Seconds(3));
        case 2:
          return absl::UnknownError("odd");
        default:
          return absl::UnavailableError("connection refused");
      }
    }
    return absl::OkStatus();
  }

  absl::Duration TimeOf(SimulatedTarget& target) {
    if (!target.hangs) {
      return absl::Milliseconds(1 + random_.NextUnit() * 500);
    }
    ++target.faults;
    return absl::Minutes(1);
  }

  void Start(Action action) {
    SimulatedTarget& target = Of(action.target_id);
    const int64_t id = action.target_id;
    const absl::Time started = action.started;
    switch (action.kind) {
      case Action::Kind::kClaim: {
        auto jobs = queue_->Claim(id, action.limit, now() + kLease);
        ASSERT_TRUE(jobs.ok()) << jobs.status();
        scheduler_->Claimed(id, action.limit, jobs->size());
        if (jobs->empty()) return;
        After(TimeOf(target),
              [this, id, started, jobs = *jobs] { Plan(id, started, jobs); });
        return;
      }
      case Action::Kind::kSend:
        After(TimeOf(target),
              [this, id, started, info = *action.info, show = action.show] {
                Send(id, started, info, show);
              });
        return;
      case Action::Kind::kShow:
        After(TimeOf(target),
              [this, id, started, path = action.narinfo->info.path] {
                const absl::Status status = Show(Of(id), path);
                scheduler_->Shown(id, path, started, now(), status);
              });
        return;
      case Action::Kind::kCopy:
        FAIL() << "no batches here";
    }
  }

  void Plan(int64_t id, absl::Time started,
            const std::vector<ClaimedJob>& jobs) {
    SimulatedTarget& target = Of(id);
    nixq::Plan plan;
    plan.status = Weather(target);
    std::vector<Queue::ReferenceClaim> claims;
    if (plan.status.ok()) {
      std::map<StorePath, ClaimedJob> claimed;
      std::vector<StorePath> roots;
      for (const ClaimedJob& job : jobs) {
        roots.push_back(*TestStoreDir().ParsePath(job.path));
        claimed.emplace(roots.back(), job);
      }
      auto closure = ComputeClosure(store_, roots, 100'000,
                                    [](const PathInfo&) { return true; });
      ASSERT_TRUE(closure.ok());
      auto missing =
          FindMissing(closure->paths, roots,
                      [&](const std::vector<StorePath>& asked)
                          -> absl::StatusOr<std::vector<bool>> {
                        std::vector<bool> there;
                        for (const StorePath& path : asked) {
                          there.push_back(target.shown.contains(path));
                        }
                        return there;
                      });
      std::vector<NewPath> references;
      for (const PathInfo& info : *missing) {
        auto it = claimed.find(info.path);
        if (it != claimed.end()) {
          plan.missing.push_back({it->second, info});
          claimed.erase(it);
          continue;
        }
        plan.missing_references.push_back(info);
        NewPath path;
        path.path = TestStoreDir().Print(info.path);
        path.source = "reference";
        path.root = RootState::kNone;
        references.push_back(path);
      }
      for (const auto& [path, job] : claimed) {
        plan.finished.push_back({job, JobOutcome::kPresent, "", 0});
      }
      auto reference_claims =
          queue_->ClaimReferences(id, references, now() + kLease);
      ASSERT_TRUE(reference_claims.ok()) << reference_claims.status();
      claims = *reference_claims;
    }
    scheduler_->Planned(id, started, now(), jobs, std::move(plan), claims);
  }

  void Send(int64_t id, absl::Time started, const PathInfo& info, bool show) {
    SimulatedTarget& target = Of(id);
    Scheduler::SendResult result;
    const absl::Status status = Weather(target);
    if (status.ok()) {
      target.nars.insert(info.path);
      result.narinfo = NarInfo{.info = info,
                               .url = "",
                               .compression = "",
                               .file_hash = std::nullopt};
      if (show) {
        result.was_shown = true;
        result.shown = Show(target, info.path);
      }
    } else {
      result.narinfo = status;
    }
    scheduler_->Sent(id, info.path, started, now(), std::move(result));
  }

  absl::Status Show(SimulatedTarget& target, const StorePath& path) {
    absl::Status status = Weather(target);
    if (status.ok()) {
      target.shown.insert(path);
      ++target.shows[path];
    }
    return status;
  }

  FakeClock clock_;
  SeededRandom random_;
  std::string directory_;
  FakeStore store_;
  std::vector<StorePath> built_;
  std::vector<std::string> names_;
  std::vector<SimulatedTarget> targets_;
  std::unique_ptr<Queue> queue_;
  std::unique_ptr<Scheduler> scheduler_;
  std::multimap<absl::Time, std::function<void()>> pending_;
  int64_t restarts_ = 0;
};

// A random store: each path references some that came before it; one in four
// was substituted and is nobody's job.
void BuildSome(Simulation& simulation, int from, int to) {
  for (int i = from; i < to; ++i) {
    std::vector<std::string> references;
    for (uint64_t r = simulation.random().Next() % 4; r > 0 && i > 0; --r) {
      references.push_back("p" + std::to_string(simulation.random().Next() %
                                                static_cast<uint64_t>(i)));
    }
    std::sort(references.begin(), references.end());
    references.erase(std::unique(references.begin(), references.end()),
                     references.end());
    PathInfo info =
        TestInfo("p" + std::to_string(i),
                 simulation.random().Next() % 1'000'000, references);
    if (simulation.random().Next() % 4 == 0) {
      simulation.Substitute(std::move(info));
    } else {
      simulation.Build(std::move(info));
    }
  }
}

class SimulationTest : public testing::TestWithParam<uint64_t> {};

TEST_P(SimulationTest, EverythingArrivesInTheEndAndNothingLies) {
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  TemporaryDirectory directory;
  Simulation simulation(GetParam(), directory.path());
  simulation.AddTarget("good");
  simulation.AddTarget("flaky");
  simulation.target(1).failure_rate = 0.3;
  simulation.AddTarget("hung");
  simulation.target(2).hangs = true;
  simulation.target(0).dead_until = simulation.now() + absl::Minutes(3);

  int built = 0;
  for (int step = 0; step < 1500; ++step) {
    if (built < 120 && step % 5 == 0) {
      BuildSome(simulation, built, built + 3);
      built += 3;
    }
    simulation.Step();
    ASSERT_FALSE(testing::Test::HasFatalFailure());
    simulation.CheckNoLies();
    ASSERT_FALSE(testing::Test::HasFatalFailure());
    if (simulation.random().Next() % 150 == 0) simulation.Restart();
  }
  // Faults happened, to whom they should.
  EXPECT_GT(simulation.target(1).faults, 0);
  EXPECT_GT(simulation.target(2).faults, 0);
  EXPECT_GT(simulation.restarts(), 3);
  EXPECT_TRUE(simulation.target(2).shown.empty());

  // The weather clears.
  for (size_t i = 0; i < 3; ++i) {
    simulation.target(i).failure_rate = 0;
    simulation.target(i).hangs = false;
  }
  simulation.Restart();
  simulation.RetryParked();
  const absl::Time clear = simulation.now();
  int steps = 0;
  while (!simulation.AllArrived() &&
         simulation.now() - clear < absl::Hours(3)) {
    simulation.Step();
    ASSERT_FALSE(testing::Test::HasFatalFailure());
    ++steps;
  }
  // Each step is an event or a time that had come, not a busy loop.
  EXPECT_LT(steps, 20'000);
  simulation.CheckNoLies();
  for (size_t i = 0; i < 3; ++i) {
    for (const StorePath& path : simulation.Expected()) {
      EXPECT_TRUE(simulation.target(i).shown.contains(path))
          << path.base_name() << " at target " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimulationTest,
                         testing::Range<uint64_t>(1, 11));

}  // namespace
}  // namespace nixq
