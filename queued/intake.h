// What is to be queued: the inbox, the spool and the roots that the queue has
// never heard of, turned into paths and jobs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
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

  // All four work in pieces. Between two of them, when there may be more, they
  // ask whether to go on, and otherwise leave it at that.
  using GoOn = absl::FunctionRef<bool()>;
  static bool ToTheEnd() { return true; }

  // Accepts what the inbox has. Returns how many entries.
  absl::StatusOr<size_t> TakeInbox(GoOn go_on = ToTheEnd);
  // Moves spool files into the queue. Returns how many entries.
  absl::StatusOr<size_t> TakeSpool(GoOn go_on = ToTheEnd);
  // Enqueues roots that the queue has never heard of, and reports dangling
  // ones and strangers. Returns how many.
  absl::StatusOr<size_t> AdoptRoots(GoOn go_on = ToTheEnd);
  // Makes the roots of held paths that have none (lost in a power cut). One
  // that cannot be made is logged.
  absl::Status RemakeHolds(GoOn go_on = ToTheEnd);

  // A path as the queue is to have it, its deriver's system looked up.
  NewPath Understand(const InboxEntry& entry) const;

 private:
  absl::Status Accept(const std::vector<InboxEntry>& entries, bool from_inbox);
  bool LeftOut(const InboxEntry& entry) const;
  void Hold(const StorePath& path);
  void RemoveUnneeded(const std::vector<StorePath>& paths);
  std::string SystemOf(const std::string& deriver) const;

  const Config& config_;
  const StoreDir& store_dir_;
  Queue& queue_;
  GcRoots& roots_;
  Log& log_;
  Clock& clock_;
};

}  // namespace nixq
