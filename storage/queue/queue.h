// The durable upload queue: one job for each (store path, target).
//
// The file is <state dir>/queue.db, SQLite in WAL mode; schema/README.md
// explains it to people. Not thread-safe: one object belongs to one thread.
// Several processes may have the same file open (the daemon, queuectl, hooks);
// writers exclude one another through SQLite. Every call that changes
// something is one transaction. The daemon's transactions are not flushed one
// by one (synchronous = NORMAL): a power cut may undo the newest of them as a
// suffix, which costs a repeated check, never a path, since what hooks wrote
// is flushed by the hooks.
// Errors common to all calls: UNAVAILABLE locked for longer than the busy
// timeout; RESOURCE_EXHAUSTED disk full; DATA_LOSS the file is damaged;
// PERMISSION_DENIED.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/clock.h"
#include "storage/queue/inbox.h"
#include "storage/queue/jobs.h"

namespace nixq {

struct QueueOptions {
  std::string state_dir;
  absl::Duration busy_timeout = absl::Seconds(5);
  Clock* clock = nullptr;  // not owned; nullptr: the system's
  // Group that may read the file; nullopt: the state directory's.
  std::optional<uint32_t> reader_gid;
};

class Queue {
 public:
  // Opens for the daemon: creates the file if missing, applies migrations.
  // FAILED_PRECONDITION: written by a newer schema than this program's.
  static absl::StatusOr<Queue> Open(const QueueOptions& options);
  // Opens for queuectl: FAILED_PRECONDITION if the schema is not this
  // program's (older: the daemon has to run once); NOT_FOUND without a file.
  static absl::StatusOr<Queue> OpenExisting(const QueueOptions& options);
  // Opens for pruning, for RootNeeds, Pins and SetRootByPath alone: also a
  // file that only hooks have written yet, and with `read_only` one that is
  // not ours to write. Errors as for OpenExisting.
  static absl::StatusOr<Queue> OpenForRoots(const QueueOptions& options,
                                            bool read_only);
  Queue(Queue&&) noexcept;
  Queue& operator=(Queue&&) noexcept;
  ~Queue();

  // --- Targets -------------------------------------------------------------
  // Makes the rows agree with the configuration: adds, updates urls, marks
  // what is gone as not configured (its jobs stay, and wait), and removes that
  // once it has no jobs. A target that comes back keeps its jobs. Returns the
  // configured ones in the order given.
  struct TargetSpec {
    std::string name;
    std::string url;
  };
  absl::StatusOr<std::vector<TargetRow>> SyncTargets(
      const std::vector<TargetSpec>& configured);
  absl::StatusOr<std::vector<TargetRow>> Targets();
  // Writes health, failures, retry_at, error_* and success_at of `row`.
  absl::Status SaveTargetHealth(const TargetRow& row);
  // Pauses or resumes; resuming also forgets trouble, so that it is tried at
  // once. NOT_FOUND without such a target.
  absl::Status SetPaused(const std::string& target, bool paused);

  // --- Intake --------------------------------------------------------------
  // The oldest inbox entries.
  absl::StatusOr<std::vector<InboxEntry>> ReadInbox(size_t limit);
  // In one transaction: makes or refreshes `paths` and one queued job for
  // each and each configured target (a done or parked job becomes queued
  // again; one that is queued or sending stays), files `derivations`, and
  // deletes the inbox entries `inbox_ids`.
  absl::Status Accept(const std::vector<NewPath>& paths,
                      const std::vector<InboxEntry>& derivations,
                      const std::vector<int64_t>& inbox_ids);
  absl::StatusOr<std::vector<PendingDerivation>> DueDerivations(size_t limit);
  // Its outputs are known and accepted (in the same transaction), or not.
  absl::Status ResolveDerivation(int64_t id, const std::vector<NewPath>& paths);
  // `paths`: those of its outputs that are known, accepted likewise.
  absl::Status DelayDerivation(int64_t id, absl::Time next_attempt,
                               const std::string& error_text,
                               const std::vector<NewPath>& paths = {});
  // Which of these full paths have a row, as path or as derivation.
  absl::StatusOr<std::vector<bool>> Known(
      const std::vector<std::string>& paths);
  // Which of these full paths have an open job, or are held or pinned.
  absl::StatusOr<std::vector<bool>> NeedRoots(
      const std::vector<std::string>& paths);

  // --- Work ----------------------------------------------------------------
  // Claims due queued jobs (and sending ones whose lease has run out) of one
  // target until `lease_until`.
  absl::StatusOr<std::vector<ClaimedJob>> Claim(
      int64_t target_id, size_t limit, absl::Time lease_until,
      ClaimOrder order = ClaimOrder::kOldestFirst);
  // References that the target lacks: makes the paths (root: none, source:
  // "reference") and jobs that are not there yet, and claims them. A done job
  // is claimed again; one that is sending or parked is not, and is reported.
  struct ReferenceClaim {
    std::string path;
    std::optional<ClaimedJob> job;  // nullopt: `state` says why not
    JobState state = JobState::kSending;
    std::string error_text;  // of a parked one
  };
  absl::StatusOr<std::vector<ReferenceClaim>> ClaimReferences(
      int64_t target_id, const std::vector<NewPath>& references,
      absl::Time lease_until);
  absl::Status RenewLeases(const std::vector<int64_t>& job_ids,
                           absl::Time lease_until);
  // Settles claimed jobs, all in one transaction. A job that a person has
  // forgotten meanwhile stays forgotten. A path that became done revives the
  // jobs of the same target that are parked because of it.
  absl::Status Settle(const std::vector<Settlement>& settlements);
  // Makes all sending jobs queued and due (a new daemon's first act; it holds
  // the lock that says that there is no other). Returns how many.
  absl::StatusOr<int64_t> ReleaseAll();
  // Makes all that waits (jobs, derivations) due now: the clock has been set
  // back, and nobody can say how long there is left to wait.
  absl::Status EndWaits();
  // Targets that have left the configuration, with the number of their open
  // jobs, if they have any.
  absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> LeftBehind();
  // The first time after `after` at which a queued job of a configured, not
  // paused target becomes due, or a derivation; nullopt: none will. (What was
  // due before `after` is for Claim to find.)
  absl::StatusOr<std::optional<absl::Time>> NextDue(absl::Time after);

  // --- Roots ---------------------------------------------------------------
  struct PathRow {
    int64_t id = 0;
    std::string path;
    std::string system;
    RootState root = RootState::kNone;
    absl::Time queued_at;  // when intake last took it in
  };
  // Held paths, by id, after `after_id`, that have no open (queued, sending,
  // parked) job any more.
  absl::StatusOr<std::vector<PathRow>> FinishedHolds(int64_t after_id,
                                                     size_t limit);
  // Held paths, by id, after `after_id`: for making their roots again.
  absl::StatusOr<std::vector<PathRow>> Holds(int64_t after_id, size_t limit);
  // Pinned paths, likewise.
  absl::StatusOr<std::vector<PathRow>> Pins(int64_t after_id, size_t limit);
  absl::Status SetRoots(const std::vector<int64_t>& path_ids, RootState root);
  absl::Status SetRootByPath(const std::string& path, RootState root);
  // What the roots of these full paths are still needed for. Errors besides the
  // common ones: a spool file that cannot be read, since nobody knows what it
  // needs.
  absl::StatusOr<std::vector<RootNeed>> RootNeeds(
      const std::vector<std::string>& paths);

  // --- People's verbs ------------------------------------------------------
  // Makes parked and waiting jobs due now and clears their error and attempt
  // count; also the jobs blocked by them. Their targets that cannot be reached
  // or refuse us are tried at once too, unless they are paused. A .drv whose
  // outputs are not known is a job here and below: Nix is asked anew.
  struct Retried {
    int64_t jobs = 0;
    std::vector<std::string> probed;  // names of targets
    std::vector<std::string> paused;  // likewise: nothing is sent to these
  };
  absl::StatusOr<Retried> Retry(const JobSelection& selection);
  // Removes the jobs, whatever their state (parked_only: only those parked).
  // Paths without jobs left become history-less; their holds end as any
  // finished hold does. What was blocked by a forgotten job is due again, to
  // see anew what it needs.
  struct Forgotten {
    int64_t jobs = 0;
    int64_t revived = 0;  // of others
  };
  absl::StatusOr<Forgotten> Forget(const JobSelection& selection);

  // FAILED_PRECONDITION: the file of this name is not, or no longer, the one
  // that is open, so that what hooks write comes to nobody.
  absl::Status CheckFile() const;

  // --- Keeping small -------------------------------------------------------
  // Removes done jobs that changed before `before`, and paths without jobs
  // and root, at most `limit` rows each in one transaction. Returns how many
  // rows; call again while it returns `limit` or more.
  absl::StatusOr<int64_t> RemoveFinished(absl::Time before, size_t limit);
  // Moves the WAL into the file, without waiting for readers.
  absl::Status Checkpoint();

 private:
  class Impl;
  explicit Queue(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nixq
