// What to do next, for all targets: events in, actions out. Pure: no I/O, no
// clock, no threads; the daemon carries the actions out and brings back what
// became of them.
//
// For each target there is a circuit (may it be tried now?) and the work that
// is under way: a graph of paths for binary caches, a list of paths for
// targets that take batches (SSH). Targets share nothing, so one that hangs
// cannot stop another.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "queued/circuit.h"
#include "queued/graph.h"
#include "queued/plan.h"
#include "queued/retry.h"
#include "storage/base/clock.h"
#include "storage/queue/queue.h"

namespace nixq {

// What one target can take at once.
struct TargetLimits {
  enum class Flow {
    kGraph,   // NAR, then narinfo, path by path
    kBatch,   // many paths in one operation
    kVerify,  // nothing is sent: the target shows it or does not yet
  };
  Flow flow = Flow::kGraph;
  int in_flight = 16;       // operations
  int large_in_flight = 2;  // of NARs above large_bytes
  uint64_t large_bytes = 16ull << 20;
  size_t window = 1024;               // paths claimed at a time
  uint64_t batch_bytes = 4ull << 30;  // kBatch: NAR bytes
};

struct Action {
  enum class Kind {
    kClaim,  // claim up to `limit` due jobs in `order`, then Claimed()
    kSend,   // send the NAR of `info`, then Sent(); with `show`, show too
    kShow,   // put `narinfo`, then Shown()
    kCopy,   // send `paths` in one batch, then Copied()
  };
  Kind kind = Kind::kClaim;
  int64_t target_id = 0;
  absl::Time started;
  size_t limit = 0;
  ClaimOrder order = ClaimOrder::kOldestFirst;
  std::optional<PathInfo> info;
  bool show = false;
  std::optional<NarInfo> narinfo;
  std::vector<PathInfo> paths;
};

class Scheduler {
 public:
  // `random` must outlive this object.
  Scheduler(RetryPolicy policy, Random& random);
  ~Scheduler();

  void AddTarget(const TargetRow& row, const TargetLimits& limits);
  // What people changed in the rows (paused, resumed).
  void RefreshTarget(const TargetRow& row);
  // Ends all waits of targets, and that for the store.
  void EndWaits();
  // There may be due jobs for this target, or (0) for any.
  void Poke(int64_t target_id = 0);

  // What to start now. Each action is under way until its event comes.
  std::vector<Action> Next(absl::Time now);

  // Events. `started` is the action's.
  // The jobs that a kClaim brought; none ends the action, otherwise they are
  // to be planned and Planned() ends it.
  void Claimed(int64_t target_id, size_t limit, size_t count);
  // The queue could not be asked for jobs: that ends the action, and it is
  // wanted again. (Next() is to be asked again only when there is hope.)
  void NotClaimed(int64_t target_id);
  // `references` is what the queue said to Plan::missing_references.
  void Planned(int64_t target_id, absl::Time started, absl::Time now,
               const std::vector<ClaimedJob>& jobs, Plan plan,
               const std::vector<Queue::ReferenceClaim>& references);
  struct SendResult {
    absl::StatusOr<NarInfo> narinfo = absl::UnknownError("not sent");
    absl::Status shown;  // of a send with `show`
    bool was_shown = false;
  };
  void Sent(int64_t target_id, const StorePath& path, absl::Time started,
            absl::Time now, SendResult result);
  void Shown(int64_t target_id, const StorePath& path, absl::Time started,
             absl::Time now, const absl::Status& status);
  struct CopyResult {
    StorePath path;
    absl::Status status;
  };
  void Copied(int64_t target_id, absl::Time started, absl::Time now,
              const std::vector<CopyResult>& results);

  // What is to be written: settlements, and targets whose health is news.
  std::vector<Settlement> TakeSettlements();
  std::vector<TargetRow> TakeHealth(absl::Time now);
  // Everything that was settled for the log: path, target, what became of it.
  struct Note {
    std::string path;
    int64_t target_id = 0;
    Settlement::Verb verb = Settlement::Verb::kDone;
    JobOutcome outcome = JobOutcome::kNone;
    bool corrupt = false;
    absl::Status status;
    int attempt = 0;
    uint64_t nar_size_bytes = 0;
    uint64_t sent_size_bytes = 0;
    absl::Duration duration;
    std::optional<absl::Time> next_attempt;
  };
  std::vector<Note> TakeNotes();

  // When Next() could have something to do without an event, at the earliest;
  // nullopt: never. Not in the past once Next() has been asked: what waits for
  // something that is under way waits for its event.
  std::optional<absl::Time> NextProbe() const;
  // Job ids that are under way: for renewing leases.
  std::vector<int64_t> JobIds() const;
  bool Idle() const;
  // For stopping: lets go of all that is not under way. From now on whatever
  // comes back unfinished is due at once, without an attempt counted; Next()
  // is not to be asked any more.
  void Abandon();

 private:
  struct Target;
  Target& Get(int64_t target_id);
  static bool MayClaim(const Target& target);
  void Claim(Target& target, absl::Time now, std::vector<Action>& actions);
  void StartGraph(Target& target, absl::Time now, std::vector<Action>& actions);
  void StartBatch(Target& target, absl::Time now, std::vector<Action>& actions);
  void AddMissing(Target& target, absl::Time now, Plan plan,
                  const std::vector<Queue::ReferenceClaim>& references);
  void FailNode(Target& target, const StorePath& path,
                const absl::Status& status, absl::Time started, absl::Time now);
  void FinishNode(Target& target, const StorePath& path, absl::Time now);
  void TargetFailed(Target& target, const absl::Status& status,
                    absl::Time started, absl::Time now);
  void LetGo(Target& target, absl::Time now);
  Settlement FailJob(Target& target, const ClaimedJob& job,
                     const absl::Status& status, absl::Time now);
  void Release(Target& target, const ClaimedJob& job, absl::Time next_attempt,
               const std::string& why);
  void Block(Target& target, const ClaimedJob& job, const std::string& by,
             const std::string& why);
  void Finish(Target& target, const ClaimedJob& job, JobOutcome outcome,
              const std::string& reason, uint64_t nar_size, uint64_t sent_size,
              absl::Duration duration);

  RetryPolicy policy_;
  Random& random_;
  std::map<int64_t, std::unique_ptr<Target>> targets_;
  std::vector<Settlement> settlements_;
  std::vector<Note> notes_;
  std::optional<absl::Time> store_retry_at_;
  int store_failures_ = 0;
  bool stopping_ = false;
};

}  // namespace nixq
