#include "queued/prune.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "queued/config_reader.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr size_t kRowsAtOnce = 1000;
// Far more than the second that a hook has from its root to its entry.
constexpr absl::Duration kEntryFollows = absl::Hours(1);

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

// Whether the root may have been made for a hook whose entry is still to come:
// roots are made first, and intake dates the path after that. What has not
// come by then never will: the root is one that was lost and made again, or
// dated by a clock that was wrong.
bool MayBeForAnEntryToCome(const GcRoot& root, const Queue::PathRow& row,
                           absl::Time now) {
  return absl::ToUnixMillis(root.made) > absl::ToUnixMillis(row.queued_at) &&
         absl::AbsDuration(now - root.made) < kEntryFollows;
}

// Which of `rows` become pins, and which lose their root; the rest wait.
struct Ending {
  std::vector<Queue::PathRow> pins;
  std::vector<Queue::PathRow> unneeded;
};

Ending Sort(const GcRoots& roots, const StoreDir& store_dir,
            const PinPolicy& policy, absl::Time now,
            std::vector<Queue::PathRow> rows) {
  Ending ending;
  for (Queue::PathRow& row : rows) {
    absl::StatusOr<StorePath> path = store_dir.ParsePath(row.path);
    absl::StatusOr<GcRoot> root =
        path.ok() ? roots.Find(*path) : absl::StatusOr<GcRoot>(path.status());
    const bool there = root.ok() && !root->dangling;
    if (there && StaysPinned(policy, row.system)) {
      ending.pins.push_back(std::move(row));
    } else if (!there || !MayBeForAnEntryToCome(*root, row, now)) {
      ending.unneeded.push_back(std::move(row));
    }
  }
  return ending;
}

std::vector<int64_t> IdsOf(const std::vector<Queue::PathRow>& rows) {
  std::vector<int64_t> ids;
  ids.reserve(rows.size());
  for (const Queue::PathRow& row : rows) ids.push_back(row.id);
  return ids;
}

// Leaves out what is given to the queue again and not yet taken in.
absl::Status KeepWhatComes(Queue& queue, std::vector<Queue::PathRow>& rows) {
  if (rows.empty()) return absl::OkStatus();
  std::vector<std::string> paths;
  paths.reserve(rows.size());
  for (const Queue::PathRow& row : rows) paths.push_back(row.path);
  NIXQ_ASSIGN_OR_RETURN(std::vector<RootNeed> needs, queue.RootNeeds(paths));
  size_t i = 0;
  std::erase_if(rows,
                [&](const Queue::PathRow&) { return needs[i++].not_taken_in; });
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<size_t> EndFinishedHolds(Queue& queue, GcRoots& roots,
                                        const StoreDir& store_dir,
                                        const PinPolicy& policy, absl::Time now,
                                        int64_t& after) {
  NIXQ_ASSIGN_OR_RETURN(std::vector<Queue::PathRow> rows,
                        queue.FinishedHolds(after, kRowsAtOnce));
  const int64_t next = rows.size() < kRowsAtOnce ? 0 : rows.back().id;
  auto [pins, unneeded] = Sort(roots, store_dir, policy, now, std::move(rows));
  NIXQ_RETURN_IF_ERROR(queue.SetRoots(IdsOf(pins), RootState::kPin));
  NIXQ_RETURN_IF_ERROR(KeepWhatComes(queue, unneeded));
  // The rows first: a crash leaves roots too many, never one too few.
  NIXQ_RETURN_IF_ERROR(queue.SetRoots(IdsOf(unneeded), RootState::kNone));
  // Nobody comes back to these, so one that cannot go stops no other.
  absl::Status removed;
  for (const Queue::PathRow& row : unneeded) {
    absl::StatusOr<StorePath> path = store_dir.ParsePath(row.path);
    if (path.ok()) removed.Update(RemoveRoot(roots, *path));
  }
  NIXQ_RETURN_IF_ERROR(removed);
  after = next;
  return pins.size() + unneeded.size();
}

namespace {

// Why a root stays; "" if nothing keeps it.
std::string WhyKept(absl::Duration age, absl::Duration max_age,
                    const RootNeed& need) {
  if (age <= max_age) return "younger than " + DurationText(max_age);
  if (need.open_jobs > 0) {
    return absl::StrFormat("%d open job%s", need.open_jobs,
                           need.open_jobs == 1 ? "" : "s");
  }
  return need.not_taken_in ? "not yet taken in by the daemon" : "";
}

// Pins of the queue that the directory does not have.
absl::Status ForgetUnlinkedPins(Queue& queue, const GcRoots& roots,
                                const StoreDir& store_dir, bool dry_run,
                                PruneReport& report) {
  int64_t after = 0;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(std::vector<Queue::PathRow> rows,
                          queue.Pins(after, kRowsAtOnce));
    if (rows.empty()) return absl::OkStatus();
    after = rows.back().id;
    std::erase_if(rows, [&](const Queue::PathRow& row) {
      absl::StatusOr<StorePath> path = store_dir.ParsePath(row.path);
      return path.ok() && !absl::IsNotFound(roots.Find(*path).status());
    });
    if (!dry_run) {
      NIXQ_RETURN_IF_ERROR(queue.SetRoots(IdsOf(rows), RootState::kNone));
    }
    for (const Queue::PathRow& row : rows) report.unlinked.push_back(row.path);
  }
}

}  // namespace

absl::StatusOr<PruneReport> PruneRoots(Queue& queue, GcRoots& roots,
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
  NIXQ_ASSIGN_OR_RETURN(std::vector<RootNeed> needs, queue.RootNeeds(paths));
  NIXQ_RETURN_IF_ERROR(
      ForgetUnlinkedPins(queue, roots, store_dir, dry_run, report));
  for (size_t i = 0; i < paths.size(); ++i) {
    const GcRoot& root = listing.roots[i];
    PruneReport::Root entry{paths[i], now - root.made, "", root.dangling};
    entry.why = WhyKept(entry.age, max_age, needs[i]);
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
      NIXQ_RETURN_IF_ERROR(queue.SetRootByPath(paths[i], RootState::kNone));
    }
    report.removed.push_back(std::move(entry));
  }
  return report;
}

}  // namespace nixq
