// What the sources of Report share. Private to this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/clock.h"
#include "storage/queue/report.h"
#include "storage/queue/sqlite.h"

namespace nixq {

// The columns that ReadJobs understands, in its order.
#define NIXQ_JOB_COLUMNS                                                    \
  "p.path, t.name, j.state, j.outcome, j.attempts, j.queued_unix_ms, "      \
  "j.changed_unix_ms, j.next_attempt_unix_ms, j.error_code, j.error_text, " \
  "(SELECT path FROM paths WHERE id = j.blocked_by), p.nar_size_bytes, "    \
  "j.sent_size_bytes, j.duration_ms "

// The rows of a statement that selects these columns.
absl::StatusOr<std::vector<JobRow>> ReadJobs(Statement& statement);

// The number that a statement selects.
absl::StatusOr<int64_t> CountOf(Database& database, std::string_view sql);

class Report::Impl {
 public:
  Impl(Database database, Clock& clock, std::string state_dir)
      : database_(std::move(database)),
        clock_(clock),
        state_dir_(std::move(state_dir)) {}

  // Finds out whether only hooks have written the file, and checks its schema
  // otherwise. Each question begins with it, in its transaction: the daemon
  // may have started since the last one.
  absl::Status CheckSchema();

  absl::StatusOr<QueueSummary> Summary();
  absl::StatusOr<std::vector<TargetRow>> Targets();
  absl::StatusOr<std::vector<JobRow>> Jobs(const JobFilter& filter);
  absl::StatusOr<std::vector<Arrival>> Arrivals(absl::Time before,
                                                size_t limit);
  absl::StatusOr<PathReport> Path(const std::string& path);
  absl::StatusOr<Outstanding> Count(const std::vector<std::string>& paths);
  absl::StatusOr<std::vector<TargetRow>> WaitedFor(
      const std::vector<std::string>& paths);
  absl::Status CheckIntegrity();

  bool hooks_only() const { return hooks_only_; }

 private:
  absl::StatusOr<std::vector<TargetRow>> ReadTargets();
  absl::Status FillTarget(TargetSummary* summary, int64_t now_ms);
  absl::Status FillDone(TargetSummary* summary, int64_t now_ms);
  absl::StatusOr<Outstanding> CountAll();
  // Adds one path to `outstanding`; `awaited` entries of the spool have it.
  absl::Status CountOne(const std::string& path, int64_t awaited,
                        bool may_be_derived, Outstanding* outstanding);
  // What the spool holds. To be asked before a transaction begins: what leaves
  // it meanwhile is then seen as rows.
  absl::StatusOr<std::vector<Arrival>> Spooled();
  // What the tables hold: of one path, or of all.
  absl::StatusOr<std::vector<Arrival>> ArrivedRows(
      const std::optional<std::string>& path, absl::Time before, size_t limit);
  // Whether there are derivations whose outputs nobody knows yet.
  absl::StatusOr<bool> OutputsAreUnknown(const std::vector<Arrival>& spooled);
  // NOT_FOUND, with what to do.
  absl::Status NeverHeardOf(const std::string& path,
                            const std::vector<Arrival>& spooled);
  // The full path that a person means: itself, or the only one whose base
  // name begins so.
  absl::StatusOr<std::string> FullPath(const std::string& path,
                                       const std::vector<Arrival>& spooled);
  absl::Status FillAccepted(PathReport* report);

  Database database_;
  Clock& clock_;
  std::string state_dir_;
  bool hooks_only_ = false;  // there is no table but the inbox
};

}  // namespace nixq
