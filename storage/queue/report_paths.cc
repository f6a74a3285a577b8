// What people ask about single paths.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/queue/queue_impl.h"
#include "storage/queue/report_impl.h"
#include "storage/queue/spool.h"

namespace nixq {
namespace {

// Spool files that are looked into for the paths that somebody waits for.
constexpr size_t kMaxSpoolFiles = 10000;

JobRow ReadJob(const Statement& row) {
  JobRow job;
  job.path = row.Text(0);
  job.target = row.Text(1);
  job.state = JobStateFromName(row.Text(2));
  job.outcome = JobOutcomeFromName(row.Text(3));
  job.attempts = static_cast<int>(row.Int(4));
  job.queued_at = FromRow(row.Int(5));
  job.changed_at = FromRow(row.Int(6));
  if (job.state == JobState::kQueued) {
    // 0 is "at once": due since it was queued.
    job.next_attempt = row.Int(7) == 0 ? job.queued_at : FromRow(row.Int(7));
  }
  job.error_code = row.Text(8);
  job.error_text = row.Text(9);
  job.blocked_by = row.Text(10);
  job.nar_size_bytes = row.Int(11);
  job.sent_size_bytes = row.Int(12);
  job.duration = absl::Milliseconds(row.Int(13));
  return job;
}

// Why nothing will be done for a path, for who waits for it.
std::string WhyWithoutJobs(const std::string& path, bool known) {
  if (path.ends_with(".drv")) {
    return "a derivation itself is never sent; wait for its outputs";
  }
  return known ? "it has no jobs: they were forgotten, or are older than "
                 "history-keep, or there was no target; `queuectl add` queues "
                 "it again"
               : "the queue has never heard of it; `queuectl add` queues it";
}

}  // namespace

absl::StatusOr<int64_t> CountOf(Database& database, std::string_view sql) {
  NIXQ_ASSIGN_OR_RETURN(std::optional<int64_t> count, database.QueryInt(sql));
  return count.value_or(0);
}

absl::StatusOr<std::vector<JobRow>> ReadJobs(Statement& statement) {
  std::vector<JobRow> jobs;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, statement.Step());
    if (!row) return jobs;
    jobs.push_back(ReadJob(statement));
  }
}

absl::StatusOr<bool> Report::Impl::InInbox(const std::string& path) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare("SELECT 1 FROM inbox WHERE path = ?1 LIMIT 1"));
  return select.Bind(path).Step();
}

absl::StatusOr<std::string> Report::Impl::FullPath(const std::string& path) {
  if (path.starts_with('/')) return path;
  // All paths of a queue are in one store directory, so that an index can be
  // used: any row tells which.
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare(
          "WITH any_path (path) AS (SELECT * FROM (SELECT path FROM paths "
          "LIMIT 1) UNION ALL SELECT * FROM (SELECT path FROM inbox LIMIT 1)), "
          "wanted (first) AS (SELECT rtrim(path, replace(path, '/', '')) || ?1 "
          "FROM any_path LIMIT 1) "
          "SELECT p.path FROM wanted CROSS JOIN paths p ON p.path >= first AND "
          "p.path < first || char(127) "
          "UNION "
          "SELECT i.path FROM wanted CROSS JOIN inbox i ON i.path >= first AND "
          "i.path < first || char(127) LIMIT 2"));
  NIXQ_ASSIGN_OR_RETURN(bool first, select.Bind(path).Step());
  if (!first) {
    return absl::NotFoundError(
        absl::StrFormat("%s: the queue has never heard of it", path));
  }
  std::string found = select.Text(0);
  NIXQ_ASSIGN_OR_RETURN(bool second, select.Step());
  if (second && !found.ends_with("/" + path)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: not unique: %s, %s", path, found, select.Text(0)));
  }
  return found;
}

absl::StatusOr<PathReport> Report::Impl::Path(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("which path?");
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  PathReport report;
  NIXQ_ASSIGN_OR_RETURN(report.path, FullPath(path));
  NIXQ_ASSIGN_OR_RETURN(report.in_inbox, InInbox(report.path));
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare("SELECT deriver, system, source, root, queued_unix_ms "
                        "FROM paths WHERE path = ?1"));
  NIXQ_ASSIGN_OR_RETURN(bool row, select.Bind(report.path).Step());
  if (!row && !report.in_inbox) {
    return absl::NotFoundError(
        absl::StrFormat("%s: the queue has never heard of it", path));
  }
  if (row) {
    report.deriver = select.Text(0);
    report.system = select.Text(1);
    report.source = select.Text(2);
    report.root = RootStateFromName(select.Text(3));
    report.queued_at = FromRow(select.Int(4));
  }
  NIXQ_ASSIGN_OR_RETURN(
      Statement jobs,
      database_.Prepare("SELECT " NIXQ_JOB_COLUMNS
                        "FROM paths p CROSS JOIN jobs j ON j.path_id = p.id "
                        "JOIN targets t ON t.id = j.target_id "
                        "WHERE p.path = ?1 ORDER BY t.name"));
  NIXQ_ASSIGN_OR_RETURN(report.jobs, ReadJobs(jobs.Bind(report.path)));
  return report;
}

absl::StatusOr<Report::Outstanding> Report::Impl::CountAll() {
  NIXQ_ASSIGN_OR_RETURN(int64_t spool_files, CountSpoolFiles(state_dir_));
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare(
          "SELECT (SELECT count(*) FROM jobs WHERE state = 'queued') + "
          "(SELECT count(*) FROM jobs WHERE state = 'sending') + "
          "(SELECT count(*) FROM inbox) + (SELECT count(*) FROM derivations), "
          "(SELECT count(*) FROM jobs WHERE state = 'parked')"));
  NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
  if (!row) return absl::InternalError("a count without a row");
  return Outstanding{.open = select.Int(0) + spool_files,
                     .parked = select.Int(1)};
}

absl::Status Report::Impl::CountOne(const std::string& path, int64_t awaited,
                                    bool may_be_derived,
                                    Outstanding* outstanding) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare("SELECT (SELECT count(*) FROM inbox WHERE path = ?1) + "
                        "(SELECT count(*) FROM derivations WHERE path = ?1), "
                        "p.open_count, p.job_count, "
                        "(SELECT count(*) FROM jobs WHERE state = 'parked' AND "
                        "path_id = p.id) "
                        "FROM (SELECT 1) LEFT JOIN paths p ON p.path = ?1"));
  NIXQ_ASSIGN_OR_RETURN(bool row, select.Bind(path).Step());
  if (!row) return absl::InternalError("a count without a row");
  awaited += select.Int(0);
  const bool known = !select.IsNull(1);
  const int64_t parked = select.Int(3);
  outstanding->open += awaited + select.Int(1) - parked;
  outstanding->parked += parked;
  if (awaited > 0) return absl::OkStatus();
  if (select.Int(2) == 0) {
    if (may_be_derived) {
      ++outstanding->open;
    } else {
      outstanding->failed.push_back({path, WhyWithoutJobs(path, known)});
    }
    return absl::OkStatus();
  }
  NIXQ_ASSIGN_OR_RETURN(
      Statement gone,
      database_.Prepare(
          "SELECT t.name, j.error_text FROM paths p "
          "CROSS JOIN jobs j ON j.path_id = p.id "
          "JOIN targets t ON t.id = j.target_id WHERE p.path = ?1 AND "
          "j.state = 'done' AND j.outcome = 'gone' ORDER BY t.name LIMIT 1"));
  NIXQ_ASSIGN_OR_RETURN(bool is_gone, gone.Bind(path).Step());
  if (is_gone) {
    outstanding->failed.push_back(
        {path, absl::StrFormat("gone before target %s had it: %s; build it "
                               "again",
                               gone.Text(0), gone.Text(1))});
  }
  return absl::OkStatus();
}

absl::StatusOr<Report::Outstanding> Report::Impl::Count(
    const std::vector<std::string>& paths) {
  if (paths.empty()) return CountAll();
  // The spool first: what leaves it meanwhile is then seen as rows.
  NIXQ_ASSIGN_OR_RETURN(SpoolListing spool,
                        PeekSpool(state_dir_, kMaxSpoolFiles));
  std::set<std::string> spooled;
  bool may_be_derived = false;
  for (const SpoolFile& file : spool.files) {
    for (const InboxEntry& entry : file.entries) {
      spooled.insert(entry.path);
      may_be_derived |= entry.kind == InboxKind::kDerivation;
    }
  }
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_ASSIGN_OR_RETURN(
      int64_t derivations,
      CountOf(database_,
              "SELECT EXISTS (SELECT 1 FROM derivations) OR "
              "EXISTS (SELECT 1 FROM inbox WHERE kind = 'derivation')"));
  may_be_derived |= derivations != 0;
  Outstanding outstanding;
  for (const std::string& path : paths) {
    NIXQ_RETURN_IF_ERROR(CountOne(path,
                                  static_cast<int64_t>(spooled.count(path)),
                                  may_be_derived, &outstanding));
  }
  return outstanding;
}

}  // namespace nixq
