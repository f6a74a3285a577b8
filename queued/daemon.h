// The daemon: one loop that owns the queue and the scheduler, workers that
// block, and everything that is built from one configuration.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "queued/config.h"
#include "queued/intake.h"
#include "queued/local_nix.h"
#include "queued/notify.h"
#include "queued/planner.h"
#include "queued/scheduler.h"
#include "queued/signals.h"
#include "queued/target.h"
#include "queued/transfers.h"
#include "queued/worker_pool.h"

namespace nixq {

// How long a claimed job stays ours without renewal, which comes each minute.
inline constexpr absl::Duration kLeaseLength = absl::Minutes(10);

// What the daemon is given and what outlives a reload of its configuration.
// Everything must outlive the daemon.
struct DaemonParts {
  Log& log;
  Clock& clock;
  Random& random;
  Notifier& notifier;
  Signals& signals;
  int wake_fd;
  int status_fd;
  // Reads the configuration anew, command line included.
  std::function<absl::StatusOr<Config>()> load_config;
};

// Lives in one thread, which calls everything; its workers come back to that
// thread through the mailbox.
class Daemon {
 public:
  enum class End {
    kStopped,
    kReload,         // next_config() is what to start again with
    kStuck,          // stopped, but a worker does not come back: leave at once
    kStuckAtReload,  // likewise, and another process is to go on
  };

  // Opens the queue, reads the keys, takes in what has come while no daemon
  // ran, makes lost roots again and frees what a dead daemon had claimed. The
  // caller holds the lock of the state directory.
  // Errors: those of Queue::Open, key files, the roots directory; CANCELLED: a
  // signal to stop has come.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(
      Config config, Surroundings surroundings, DaemonParts parts);
  ~Daemon();

  // Works until a signal ends it: stops claiming, aborts what is under way,
  // writes every row, within two seconds. A queue.db that is not the one that
  // is open any more ends it too, as a reload of the same configuration.
  End Run();

  Config next_config() { return std::move(*next_config_); }

 private:
  Daemon(Config config, Surroundings surroundings, DaemonParts parts,
         StoreDir store_dir, Queue queue, GcRoots roots,
         std::vector<SecretKey> keys);

  // daemon.cc: the loop.
  absl::Status Open();
  absl::Status OpenTargets();
  absl::Status TakeInWhatCame();
  void AskForStore();
  bool GoOnStarting();
  End Stop(End end);
  std::optional<End> HandleSignals();
  void NoticeClock(absl::Time now, absl::Duration elapsed);
  void FeedWatchdog(absl::Duration elapsed);
  bool QueueRests(absl::Duration elapsed);
  void Work(absl::Time now, absl::Duration elapsed);
  absl::Duration TimeToWait(absl::Time now, absl::Duration elapsed);
  void Wait(absl::Duration at_most);
  void Tick(absl::Time now, absl::Duration elapsed);
  void TakeInEverything();
  void Say(std::string_view event, const absl::Status& status);
  bool Wrote(std::string_view event, const absl::Status& status);
  std::string StatusLine() const;
  LiveStatus Live();

  // daemon_work.cc: actions and what becomes of them.
  void StartActions(absl::Time now);
  void StartClaim(const Action& action);
  void StartPlan(Target& target, absl::Time started,
                 std::vector<ClaimedJob> jobs);
  void FinishPlan(int64_t target_id, absl::Time started,
                  const std::vector<ClaimedJob>& jobs, Plan plan);
  void StartSend(Action action);
  void StartShow(Action action);
  void StartCopy(Action action);
  void ResolveDerivations();
  using Outputs =
      absl::StatusOr<std::map<std::string, std::optional<StorePath>>>;
  void FinishDerivations(
      const std::vector<std::pair<PendingDerivation, Outputs>>& resolved);
  bool FinishDerivation(const PendingDerivation& derivation,
                        const Outputs& outputs);
  bool KeepDerivation(const PendingDerivation& derivation,
                      std::vector<NewPath> paths, const absl::Status& why);
  void Flush(absl::Time now);
  bool EndHolds();
  void LogNote(const Scheduler::Note& note);
  void LogHealth(const TargetRow& row);
  void Prune(absl::Time now);
  Target& TargetOf(int64_t id) { return *targets_.at(id); }

  const Config config_;
  const Surroundings surroundings_;
  DaemonParts parts_;
  Log& log_;
  const StoreDir store_dir_;
  Queue queue_;
  GcRoots roots_;
  Intake intake_;
  std::unique_ptr<DaemonClient> store_;
  Signer signer_;
  Planner planner_;
  HttpClient http_;
  Transfers transfers_;
  std::map<int64_t, std::unique_ptr<Target>> targets_;
  Scheduler scheduler_;
  Cancellation cancel_;
  Mailbox mailbox_;
  // After everything that workers use, so that it ends first.
  std::unique_ptr<WorkerPool> pool_;

  std::vector<Settlement> unsettled_;
  std::map<int64_t, TargetRow> unsaved_health_;
  std::map<int64_t, TargetHealth> said_health_;
  std::optional<Config> next_config_;
  std::string nix_description_;
  const std::string files_stamp_;
  Signals::Pending signals_;  // taken, and not yet handled
  uint64_t sent_bytes_ = 0;
  int64_t sent_paths_ = 0;
  bool resolving_ = false;
  bool stopping_ = false;
  bool look_ = false;        // there may be more to take in
  int64_t holds_after_ = 0;  // where ending holds goes on; 0: from the start
  std::optional<absl::Time> next_due_;
  // What was said last of each event that went wrong, and when.
  std::map<std::string, std::pair<std::string, absl::Duration>, std::less<>>
      said_;

  // By the clock that does not jump.
  const absl::Duration started_;
  absl::Duration clock_offset_;  // the wall clock's from that
  absl::Duration next_tick_;
  absl::Duration next_housekeeping_;
  absl::Duration next_prune_;
  absl::Duration next_watchdog_;
  // The queue could not be written: nothing is tried with it until then.
  std::optional<absl::Duration> queue_again_at_;
};

}  // namespace nixq
