// Looks at the store and at one target, and says what each claimed job needs.
#pragma once

#include <map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "queued/plan.h"
#include "queued/signer.h"
#include "queued/target.h"
#include "storage/base/cancel.h"
#include "storage/base/clock.h"
#include "storage/nix/store.h"

namespace nixq {

// Blocks on the store and on the target; runs in a worker. Thread-safe.
class Planner {
 public:
  // All must outlive the planner.
  Planner(StoreDir store_dir, Store& store, Signer& signer, Clock& clock);

  // One entry of the plan for each job. In order: what the store has lost is
  // gone; what the target's filters leave out is skipped; what is left is
  // signed; what the target shows already is present; the rest is missing,
  // with (if the target wants closures) the references that the target lacks
  // and no upstream has.
  // One path that cannot be asked about stops no other: a question about many
  // that fails because of one is asked again of fewer, and only the jobs that
  // need that path fail.
  Plan Make(Target& target, const std::vector<ClaimedJob>& jobs,
            const Cancellation& cancel);

 private:
  Plan MakeWhole(Target& target, const std::vector<ClaimedJob>& jobs,
                 const Cancellation& cancel);
  absl::Status Closure(Target& target, Plan& plan, const Cancellation& cancel);
  absl::StatusOr<std::vector<PathInfo>> ClosureOf(
      Target& target, const std::vector<StorePath>& roots, absl::Time now);
  static void DropWhatUpstreamsHave(Target& target,
                                    const std::vector<StorePath>& roots,
                                    std::vector<PathInfo>& missing,
                                    const Cancellation& cancel);
  static void Divide(const Target& target, std::vector<PathInfo> missing,
                     std::map<StorePath, Plan::Missing> claimed, Plan& plan);
  absl::Status SignAll(Target& target, Plan& plan);
  void Sort(const Target& target, const std::vector<ClaimedJob>& jobs,
            Plan& plan);

  StoreDir store_dir_;
  Store& store_;
  Signer& signer_;
  Clock& clock_;
};

// Plans `jobs` with `make`; when that fails because of a path, plans each half
// of them by itself, down to the jobs that fail alone. Their plans as one.
Plan PlanApart(const std::vector<ClaimedJob>& jobs,
               absl::FunctionRef<Plan(const std::vector<ClaimedJob>&)> make);

// The search for what is missing: which of `closure` (references before
// referrers) are not shown by a cache, asking as little as possible. A path
// that is shown has its closure shown too; each round looks twice as deep
// below what is missing, so that a long chain takes few rounds. `present`
// answers for many paths at once. Returns the missing, in the given order.
absl::StatusOr<std::vector<PathInfo>> FindMissing(
    const std::vector<PathInfo>& closure, const std::vector<StorePath>& roots,
    absl::FunctionRef<
        absl::StatusOr<std::vector<bool>>(const std::vector<StorePath>&)>
        present);

}  // namespace nixq
