// When a root may go: holds that have ended, pins that are too old.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/nix/gc_roots.h"
#include "storage/nix/store_path.h"
#include "storage/queue/queue.h"

namespace nixq {

// Whose roots stay when nothing is open for them any more.
struct PinPolicy {
  bool pins = true;                  // false: nobody's
  std::vector<std::string> systems;  // empty: all systems'
};

// Turns the holds of paths that have no open job any more into pins, or
// removes their roots if `policy` does not let them stay.
// A path whose store object is gone loses its root. What a hook has given
// again, or may be about to, since its root has been made within an hour of
// `now` and after the path was taken in, keeps its hold until then.
// One call looks at a thousand of them at most, those after the path id
// `after` (0: all), and moves that on, to 0 when there are no more. Returns
// how many it has ended.
// Errors: those of GcRoots, after removing what it can, and Queue; `after`
// stays.
absl::StatusOr<size_t> EndFinishedHolds(Queue& queue, GcRoots& roots,
                                        const StoreDir& store_dir,
                                        const PinPolicy& policy, absl::Time now,
                                        int64_t& after);

struct PruneReport {
  struct Root {
    std::string path;  // full store path
    absl::Duration age;
    // Of kept ones: "2 open jobs", "younger than 30d", "not yet taken in".
    std::string why;
    bool dangling = false;
  };
  std::vector<Root> removed;  // with `dry_run`: what would be
  std::vector<Root> kept;
  std::vector<StrangeEntry> strange;  // left alone
  std::vector<std::string> unlinked;  // pins whose link is gone, forgotten
};

// Removes the roots that were made more than `max_age` before `now` and whose
// path has no open job and nothing waiting to become one. Nothing but symlinks
// into the store directly inside the roots directory is ever touched. Pins
// whose link somebody else has removed are pins no more.
// `queue` is opened by Queue::OpenForRoots or better, read-only if `dry_run`.
// Errors: those of GcRoots and Queue; what was removed before stays removed.
absl::StatusOr<PruneReport> PruneRoots(Queue& queue, GcRoots& roots,
                                       const StoreDir& store_dir,
                                       absl::Duration max_age, absl::Time now,
                                       bool dry_run);

}  // namespace nixq
