// What is to be queued: the inbox, the spool and the roots that the queue has
// never heard of, turned into paths and jobs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "queued/config.h"
#include "storage/base/clock.h"
#include "storage/base/log.h"
#include "storage/nix/gc_roots.h"
#include "storage/nix/store_path.h"
#include "storage/queue/queue.h"

namespace nixq {

// Runs in the loop thread: touches only the queue, the roots directory and
// small files; never the Nix daemon or a target.
class Intake {
 public:
  // All must outlive the intake.
  Intake(const Config& config, const StoreDir& store_dir, Queue& queue,
         GcRoots& roots, Log& log, Clock& clock);

  // Accepts everything that the inbox has. Returns how many entries.
  absl::StatusOr<size_t> TakeInbox();
  // Moves spool files into the queue. Returns how many entries.
  absl::StatusOr<size_t> TakeSpool();
  // Enqueues roots that the queue has never heard of, and reports dangling
  // ones and strangers.
  absl::StatusOr<size_t> AdoptRoots();
  // Makes the roots of held paths that have none (lost in a power cut).
  absl::Status RemakeHolds();

  // A path as the queue is to have it, its deriver's system looked up.
  NewPath Understand(const InboxEntry& entry) const;

 private:
  absl::Status Accept(const std::vector<InboxEntry>& entries, bool from_inbox);
  std::string SystemOf(const std::string& deriver) const;

  const Config& config_;
  const StoreDir& store_dir_;
  Queue& queue_;
  GcRoots& roots_;
  Log& log_;
  Clock& clock_;
};

}  // namespace nixq
