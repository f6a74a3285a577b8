#include "storage/queue/report.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/queue/migrations.h"
#include "storage/queue/queue_impl.h"
#include "storage/queue/report_impl.h"
#include "storage/queue/spool.h"

namespace nixq {
namespace {

constexpr absl::Duration kRecently = absl::Hours(1);

uint64_t FileBytes(const std::string& file) {
  struct stat info;
  return stat(file.c_str(), &info) == 0 ? info.st_size : 0;
}

// What can be said about a failure to open, for a person.
absl::Status Explain(const absl::Status& status, const std::string& file) {
  struct stat info;
  if (absl::IsNotFound(status) && stat(file.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrFormat(
        "%s: no queue there yet: neither queued nor a hook has run", file));
  }
  if (!absl::IsPermissionDenied(status) && !absl::IsNotFound(status)) {
    return status;
  }
  if (access(file.c_str(), R_OK) == 0 &&
      access((file + "-wal").c_str(), F_OK) != 0) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "%s: its -wal file is missing, and not ours to make: it comes back "
        "when queued or a hook runs",
        file));
  }
  const std::string directory = file.substr(0, file.rfind('/'));
  if (stat(file.c_str(), &info) != 0 && stat(directory.c_str(), &info) != 0) {
    return status;
  }
  return absl::PermissionDeniedError(
      absl::StrFormat("%s; its owner and members of group %d may read it",
                      std::string(status.message()), info.st_gid));
}

// One statement for each state, since partial indexes need its literal. The
// ids are found along that index first, so that only what is shown is read.
std::string_view JobsOfState(JobState state) {
#define NIXQ_JOBS_WHERE(index, condition, order)                             \
  "SELECT " NIXQ_JOB_COLUMNS "FROM (SELECT id FROM jobs j INDEXED BY " index \
  " WHERE " condition                                                        \
  " AND queued_unix_ms <= ?2 AND (?1 IS NULL OR target_id = "                \
  "(SELECT id FROM targets WHERE name = ?1)) ORDER BY " order                \
  " LIMIT ?3) f "                                                            \
  "CROSS JOIN jobs j ON j.id = f.id CROSS JOIN paths p ON p.id = j.path_id " \
  "CROSS JOIN targets t ON t.id = j.target_id ORDER BY " order
#define NIXQ_OLDEST_FIRST "j.queued_unix_ms, j.id"
  switch (state) {
    case JobState::kQueued:
      return NIXQ_JOBS_WHERE("jobs_queued", "state = 'queued'",
                             NIXQ_OLDEST_FIRST);
    case JobState::kSending:
      return NIXQ_JOBS_WHERE("jobs_sending", "state = 'sending'",
                             NIXQ_OLDEST_FIRST);
    case JobState::kParked:
      return NIXQ_JOBS_WHERE("jobs_parked", "state = 'parked'",
                             NIXQ_OLDEST_FIRST);
    case JobState::kDone:
      return NIXQ_JOBS_WHERE("jobs_history", "state = 'done'",
                             "j.changed_unix_ms DESC");
  }
#undef NIXQ_OLDEST_FIRST
#undef NIXQ_JOBS_WHERE
  return "";
}

}  // namespace

absl::Status Report::Impl::FillTarget(TargetSummary* summary, int64_t now_ms) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement queued,
      database_.Prepare(
          "SELECT count(*), min(queued_unix_ms), min(next_attempt_unix_ms) "
          "FROM jobs WHERE target_id = ?1 AND state = 'queued'"));
  NIXQ_ASSIGN_OR_RETURN(bool row, queued.Bind(summary->target.id).Step());
  NIXQ_ASSIGN_OR_RETURN(
      Statement sending,
      database_.Prepare("SELECT count(*), min(queued_unix_ms) FROM jobs "
                        "WHERE target_id = ?1 AND state = 'sending'"));
  NIXQ_ASSIGN_OR_RETURN(bool row2, sending.Bind(summary->target.id).Step());
  NIXQ_ASSIGN_OR_RETURN(
      Statement parked,
      database_.Prepare("SELECT count(*) FROM jobs "
                        "WHERE target_id = ?1 AND state = 'parked'"));
  NIXQ_ASSIGN_OR_RETURN(bool row3, parked.Bind(summary->target.id).Step());
  NIXQ_ASSIGN_OR_RETURN(
      Statement bytes,
      database_.Prepare(
          "SELECT (SELECT sum(nar_size_bytes) FROM (SELECT path_id FROM jobs "
          "WHERE target_id = ?1 AND state = 'queued' LIMIT ?2) "
          "CROSS JOIN paths p ON p.id = path_id), "
          "(SELECT sum(nar_size_bytes) FROM jobs j CROSS JOIN paths p "
          "ON p.id = j.path_id WHERE target_id = ?1 AND state = 'sending')"));
  NIXQ_ASSIGN_OR_RETURN(bool row4,
                        bytes.Bind(summary->target.id, kMostSummed).Step());
  if (!row || !row2 || !row3 || !row4) {
    return absl::InternalError("a count without a row");
  }
  summary->queued = queued.Int(0);
  summary->sending = sending.Int(0);
  summary->parked = parked.Int(0);
  summary->open_nar_bytes = bytes.Int(0) + bytes.Int(1);
  summary->open_nar_bytes_capped = summary->queued > kMostSummed;
  for (const Statement* open : {&queued, &sending}) {
    if (open->IsNull(1)) continue;
    absl::Time oldest = FromRow(open->Int(1));
    summary->oldest_open =
        std::min(oldest, summary->oldest_open.value_or(oldest));
  }
  if (summary->queued > 0) {
    summary->next_attempt =
        FromRow(queued.Int(2) == 0 ? now_ms : queued.Int(2));
  }
  return absl::OkStatus();
}

absl::Status Report::Impl::FillDone(TargetSummary* summary, int64_t now_ms) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement done,
      database_.Prepare("SELECT count(*) FROM jobs "
                        "WHERE target_id = ?1 AND state = 'done'"));
  NIXQ_ASSIGN_OR_RETURN(bool row, done.Bind(summary->target.id).Step());
  NIXQ_ASSIGN_OR_RETURN(
      Statement recent,
      database_.Prepare(
          "SELECT count(*), sum(sent_size_bytes) FROM jobs INDEXED BY "
          "jobs_done WHERE target_id = ?1 AND state = 'done' AND "
          "changed_unix_ms > ?2 AND outcome = 'sent'"));
  recent.Bind(summary->target.id,
              now_ms - absl::ToInt64Milliseconds(kRecently));
  NIXQ_ASSIGN_OR_RETURN(bool row2, recent.Step());
  if (!row || !row2) return absl::InternalError("a count without a row");
  summary->done = done.Int(0);
  summary->sent_last_hour = recent.Int(0);
  summary->sent_last_hour_bytes = recent.Int(1);
  return absl::OkStatus();
}

absl::Status Report::Impl::CheckSchema() {
  NIXQ_ASSIGN_OR_RETURN(int version, SchemaVersion(database_));
  hooks_only_ = version == HooksSchemaVersion();
  return hooks_only_ ? absl::OkStatus() : CheckSchemaVersion(database_);
}

absl::StatusOr<std::vector<TargetRow>> Report::Impl::Targets() {
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  return ReadTargets();
}

absl::StatusOr<std::vector<TargetRow>> Report::Impl::ReadTargets() {
  std::vector<TargetRow> targets;
  if (hooks_only_) return targets;
  NIXQ_ASSIGN_OR_RETURN(Statement select,
                        database_.Prepare("SELECT " NIXQ_TARGET_COLUMNS
                                          " FROM targets t ORDER BY t.name"));
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
    if (!row) return targets;
    targets.push_back(ReadTarget(select));
  }
}

absl::StatusOr<QueueSummary> Report::Impl::Summary() {
  const int64_t now_ms = ToRow(clock_.Now());
  QueueSummary summary;
  NIXQ_ASSIGN_OR_RETURN(summary.spool_files, CountSpoolFiles(state_dir_));
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  NIXQ_ASSIGN_OR_RETURN(summary.schema_version, SchemaVersion(database_));
  summary.file_bytes =
      FileBytes(database_.file()) + FileBytes(database_.file() + "-wal");
  NIXQ_ASSIGN_OR_RETURN(summary.inbox,
                        CountOf(database_, "SELECT count(*) FROM inbox"));
  if (hooks_only_) return summary;
  NIXQ_ASSIGN_OR_RETURN(std::vector<TargetRow> targets, ReadTargets());
  for (TargetRow& target : targets) {
    summary.targets.push_back({.target = std::move(target)});
  }
  for (TargetSummary& target : summary.targets) {
    NIXQ_RETURN_IF_ERROR(FillTarget(&target, now_ms));
    NIXQ_RETURN_IF_ERROR(FillDone(&target, now_ms));
  }
  NIXQ_ASSIGN_OR_RETURN(summary.derivations,
                        CountOf(database_, "SELECT count(*) FROM derivations"));
  NIXQ_ASSIGN_OR_RETURN(
      summary.holds,
      CountOf(database_,
              "SELECT count(*) FROM paths WHERE root <> 'none' AND "
              "root = 'hold'"));
  NIXQ_ASSIGN_OR_RETURN(
      summary.pins,
      CountOf(database_,
              "SELECT count(*) FROM paths WHERE root <> 'none' AND "
              "root = 'pin'"));
  return summary;
}

absl::StatusOr<std::vector<JobRow>> Report::Impl::Jobs(
    const JobFilter& filter) {
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  NIXQ_ASSIGN_OR_RETURN(std::vector<TargetRow> targets, ReadTargets());
  if (filter.target &&
      std::none_of(targets.begin(), targets.end(), [&](const TargetRow& row) {
        return row.name == *filter.target;
      })) {
    return absl::NotFoundError(
        absl::StrFormat("no target \"%s\"", *filter.target));
  }
  if (hooks_only_) return std::vector<JobRow>();
  absl::Time queued_before = filter.older_than
                                 ? clock_.Now() - *filter.older_than
                                 : absl::InfiniteFuture();
  // As a person reads: what happens now, what will, what is stuck, history.
  std::vector<JobRow> jobs;
  for (JobState state : {JobState::kSending, JobState::kQueued,
                         JobState::kParked, JobState::kDone}) {
    if (filter.state && *filter.state != state) continue;
    if (filter.open_only && state == JobState::kDone) continue;
    if (jobs.size() >= filter.limit) break;
    NIXQ_ASSIGN_OR_RETURN(Statement select,
                          database_.Prepare(JobsOfState(state)));
    select.Bind(filter.target, ToRow(queued_before),
                filter.limit - jobs.size());
    NIXQ_ASSIGN_OR_RETURN(std::vector<JobRow> some, ReadJobs(select));
    for (JobRow& job : some) jobs.push_back(std::move(job));
  }
  return jobs;
}

absl::Status Report::Impl::CheckIntegrity() {
  NIXQ_ASSIGN_OR_RETURN(Statement check,
                        database_.Prepare("PRAGMA integrity_check(1)"));
  NIXQ_ASSIGN_OR_RETURN(bool row, check.Step());
  if (row && check.Text(0) == "ok") return absl::OkStatus();
  std::string complaint = row ? check.Text(0) : "no answer";
  // Some versions put a heading before it.
  if (complaint.starts_with("***")) {
    complaint.erase(0, complaint.find('\n') + 1);
  }
  return absl::DataLossError(
      absl::StrFormat("%s: damaged: %s", database_.file(),
                      complaint.substr(0, complaint.find('\n'))));
}

absl::StatusOr<Report> Report::Open(const QueueOptions& options) {
  DatabaseOptions database_options;
  database_options.read_only = true;
  database_options.busy_timeout = options.busy_timeout;
  std::string file = QueueFile(options.state_dir);
  absl::StatusOr<Database> database = Database::Open(file, database_options);
  if (!database.ok()) return Explain(database.status(), file);
  auto impl = std::make_unique<Impl>(
      *std::move(database),
      options.clock != nullptr ? *options.clock : SystemClock(),
      options.state_dir);
  NIXQ_RETURN_IF_ERROR(impl->CheckSchema());
  return Report(std::move(impl));
}

Report::Report(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Report::Report(Report&&) noexcept = default;
Report& Report::operator=(Report&&) noexcept = default;
Report::~Report() = default;

absl::StatusOr<QueueSummary> Report::Summary() { return impl_->Summary(); }
absl::StatusOr<std::vector<TargetRow>> Report::Targets() {
  return impl_->Targets();
}
absl::StatusOr<std::vector<JobRow>> Report::Jobs(const JobFilter& filter) {
  return impl_->Jobs(filter);
}
absl::StatusOr<std::vector<Arrival>> Report::Arrivals(absl::Time before,
                                                      size_t limit) {
  return impl_->Arrivals(before, limit);
}
absl::StatusOr<PathReport> Report::Path(const std::string& path) {
  return impl_->Path(path);
}
absl::StatusOr<Report::Outstanding> Report::Count(
    const std::vector<std::string>& paths) {
  return impl_->Count(paths);
}
absl::StatusOr<std::vector<TargetRow>> Report::WaitedFor(
    const std::vector<std::string>& paths) {
  return impl_->WaitedFor(paths);
}
bool Report::hooks_only() const { return impl_->hooks_only(); }
absl::Status Report::CheckIntegrity() { return impl_->CheckIntegrity(); }

}  // namespace nixq
