// What the sources of Report share. Private to this folder.
#pragma once

#include <cstdint>
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

  absl::StatusOr<QueueSummary> Summary();
  absl::StatusOr<std::vector<TargetRow>> Targets();
  absl::StatusOr<std::vector<JobRow>> Jobs(const JobFilter& filter);
  absl::StatusOr<PathReport> Path(const std::string& path);
  absl::StatusOr<Outstanding> Count(const std::vector<std::string>& paths);
  absl::Status CheckIntegrity();

 private:
  absl::Status FillTarget(TargetSummary* summary, int64_t now_ms);
  absl::Status FillDone(TargetSummary* summary, int64_t now_ms);
  absl::StatusOr<Outstanding> CountAll();
  // Adds one path to `outstanding`; `awaited` entries of the spool have it.
  absl::Status CountOne(const std::string& path, int64_t awaited,
                        bool may_be_derived, Outstanding* outstanding);
  // The full path that a person means: itself, or the only one whose base
  // name begins so.
  absl::StatusOr<std::string> FullPath(const std::string& path);
  absl::StatusOr<bool> InInbox(const std::string& path);

  Database database_;
  Clock& clock_;
  std::string state_dir_;
};

}  // namespace nixq
