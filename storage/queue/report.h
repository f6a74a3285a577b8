// The queue as people ask about it: read-only, works with the daemon up or
// down, never blocks a writer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/queue/queue.h"

namespace nixq {

// The sizes of so many queued jobs are looked up for a summary: each costs a
// row of `paths`, and there may be a million.
inline constexpr int64_t kMostSummed = 10000;

struct TargetSummary {
  TargetRow target;
  int64_t queued = 0;  // waiting, due or not
  int64_t sending = 0;
  int64_t parked = 0;
  int64_t done = 0;  // in the history
  int64_t sent_last_hour = 0;
  uint64_t sent_last_hour_bytes = 0;  // as sent (compressed)
  // NAR bytes of what is queued or being sent, as far as they are known; of no
  // more than kMostSummed queued jobs, and then `open_nar_bytes_capped`.
  uint64_t open_nar_bytes = 0;
  bool open_nar_bytes_capped = false;
  std::optional<absl::Time> oldest_open;
  std::optional<absl::Time> next_attempt;  // of what is queued
};

struct QueueSummary {
  std::vector<TargetSummary> targets;
  int64_t inbox = 0;
  int64_t derivations = 0;
  int64_t spool_files = 0;
  int64_t holds = 0;
  int64_t pins = 0;
  uint64_t file_bytes = 0;  // queue.db and its WAL
  int schema_version = 0;   // that of hooks alone: queued has never run
};

struct JobRow {
  std::string path;
  std::string target;
  JobState state = JobState::kQueued;
  JobOutcome outcome = JobOutcome::kNone;
  int attempts = 0;
  absl::Time queued_at;
  absl::Time changed_at;
  std::optional<absl::Time> next_attempt;  // of a queued one
  std::string error_code;
  std::string error_text;
  std::string blocked_by;  // full store path, or ""
  uint64_t nar_size_bytes = 0;
  uint64_t sent_size_bytes = 0;
  absl::Duration duration;
};

// What a hook has left, or queuectl, and is not yet jobs.
struct Arrival {
  // In the order in which it moves; a derivation gets jobs when Nix has told
  // its outputs.
  enum class Place { kSpool, kInbox, kDerivations };
  Place place = Place::kInbox;
  std::string path;  // in any place it may be a .drv
  std::string deriver;
  std::string source;
  absl::Time queued_at;
  // Of derivations: how asking went.
  int attempts = 0;
  absl::Time next_attempt;  // the epoch: at once
  std::string error_text;
};
// The word for the state of what is there: "spool", "inbox", "derivation".
std::string_view Name(Arrival::Place place);

struct PathReport {
  std::string path;
  bool accepted = false;  // false: only arrivals tell of it
  std::string deriver;
  std::string system;
  std::string source;
  RootState root = RootState::kNone;
  absl::Time queued_at;
  std::vector<JobRow> jobs;
  std::vector<Arrival> arrivals;  // oldest first
};

struct JobFilter {
  std::optional<JobState> state;
  bool open_only = false;  // none that is done
  std::optional<std::string> target;
  std::optional<absl::Duration> older_than;  // since it was queued
  size_t limit = 100;
};

// A file that only hooks have written is a queue too: it has arrivals, and
// neither targets nor jobs.
class Report {
 public:
  // NOT_FOUND: no queue there yet. FAILED_PRECONDITION: another schema, here
  // and in what follows. PERMISSION_DENIED says which group may read.
  static absl::StatusOr<Report> Open(const QueueOptions& options);
  Report(Report&&) noexcept;
  Report& operator=(Report&&) noexcept;
  ~Report();

  // Walks the jobs' indexes: tenths of a second for a million jobs.
  absl::StatusOr<QueueSummary> Summary();
  // All that have ever been configured, by name.
  absl::StatusOr<std::vector<TargetRow>> Targets();
  // What is being sent, queued, parked: each oldest first, by when it was
  // last queued; then what is done, newest first. In one view of the queue: a
  // job that changes its state meanwhile is neither missed nor there twice.
  // NOT_FOUND: there is no such target.
  absl::StatusOr<std::vector<JobRow>> Jobs(const JobFilter& filter);
  // At most `limit` of what was left before `before`, oldest first.
  absl::StatusOr<std::vector<Arrival>> Arrivals(absl::Time before,
                                                size_t limit);
  // By full path, base name or a unique prefix of the base name. NOT_FOUND;
  // INVALID_ARGUMENT when several match.
  absl::StatusOr<PathReport> Path(const std::string& path);
  // What `queuectl wait` watches: what is left to do for `paths` (all if
  // empty), and which of them will not arrive.
  struct Outstanding {
    // Jobs that are queued or being sent, and entries of inbox, spool and
    // derivations. A path without jobs counts as one while there are
    // derivations whose outputs are not known yet: it may be one of them.
    int64_t open = 0;
    int64_t parked = 0;
    struct Failure {
      std::string path;
      std::string why;  // and what to do
    };
    // Of `paths`: those that nothing is left to do for and that are not at
    // every target (gone from the store, without jobs, never heard of).
    std::vector<Failure> failed;
  };
  absl::StatusOr<Outstanding> Count(const std::vector<std::string>& paths);
  // The targets that have such open jobs.
  absl::StatusOr<std::vector<TargetRow>> WaitedFor(
      const std::vector<std::string>& paths);
  // Whether only hooks have written the file, as of the last question: queued
  // has never run.
  bool hooks_only() const;
  // SQLite's own integrity check; DATA_LOSS with its first complaint.
  absl::Status CheckIntegrity();

 private:
  class Impl;
  explicit Report(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nixq
