#include "queued/prune.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "queued/config_reader.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr size_t kHoldsAtOnce = 500;

bool StaysPinned(const PinPolicy& policy, const std::string& system) {
  const std::vector<std::string>& systems = policy.systems;
  return policy.pins &&
         (systems.empty() ||
          std::find(systems.begin(), systems.end(), system) != systems.end());
}

// Removing a root that somebody else has removed is fine.
absl::Status RemoveRoot(GcRoots& roots, const StorePath& path) {
  absl::Status status = roots.Remove(path);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

}  // namespace

absl::StatusOr<size_t> EndFinishedHolds(Queue& queue, GcRoots& roots,
                                        const StoreDir& store_dir,
                                        const PinPolicy& policy) {
  size_t ended = 0;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(std::vector<Queue::PathRow> rows,
                          queue.FinishedHolds(kHoldsAtOnce));
    for (const Queue::PathRow& row : rows) {
      absl::StatusOr<StorePath> path = store_dir.ParsePath(row.path);
      RootState state = RootState::kNone;
      if (path.ok()) {
        absl::StatusOr<GcRoot> root = roots.Find(*path);
        const bool there = root.ok() && !root->dangling;
        if (there && StaysPinned(policy, row.system)) state = RootState::kPin;
      }
      NIXQ_RETURN_IF_ERROR(queue.SetRoot(row.id, state));
      if (state == RootState::kNone && path.ok()) {
        NIXQ_RETURN_IF_ERROR(RemoveRoot(roots, *path));
      }
      ++ended;
    }
    if (rows.size() < kHoldsAtOnce) return ended;
  }
}

absl::StatusOr<PruneReport> PruneRoots(Queue* queue, GcRoots& roots,
                                       const StoreDir& store_dir,
                                       absl::Duration max_age, absl::Time now,
                                       bool dry_run) {
  NIXQ_ASSIGN_OR_RETURN(GcRootListing listing, roots.List());
  PruneReport report;
  report.strange = std::move(listing.strange);
  std::vector<std::string> paths;
  for (const GcRoot& root : listing.roots) {
    paths.push_back(store_dir.Print(root.path));
  }
  std::vector<int64_t> open(paths.size(), 0);
  if (queue != nullptr) {
    NIXQ_ASSIGN_OR_RETURN(open, queue->OpenJobs(paths));
  }
  for (size_t i = 0; i < paths.size(); ++i) {
    const GcRoot& root = listing.roots[i];
    PruneReport::Root entry{paths[i], now - root.made, "", root.dangling};
    if (entry.age <= max_age) {
      entry.why = "younger than " + DurationText(max_age);
    } else if (open[i] > 0) {
      entry.why =
          absl::StrFormat("%d open job%s", open[i], open[i] == 1 ? "" : "s");
    }
    if (!entry.why.empty()) {
      report.kept.push_back(std::move(entry));
      continue;
    }
    if (!dry_run) {
      // A build may have renewed it since the listing.
      absl::StatusOr<GcRoot> fresh = roots.Find(root.path);
      if (fresh.ok() && now - fresh->made <= max_age) {
        entry.why = "renewed just now";
        report.kept.push_back(std::move(entry));
        continue;
      }
      NIXQ_RETURN_IF_ERROR(RemoveRoot(roots, root.path));
      if (queue != nullptr) {
        NIXQ_RETURN_IF_ERROR(queue->SetRootByPath(paths[i], RootState::kNone));
      }
    }
    report.removed.push_back(std::move(entry));
  }
  return report;
}

}  // namespace nixq
