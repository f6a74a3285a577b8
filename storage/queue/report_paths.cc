// What people ask about single paths.

#include <algorithm>
#include <cstdint>
#include <iterator>
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
// Entries of one path that a report on it lists.
constexpr size_t kMostArrivals = 100;

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

// What the tables hold that is not yet jobs: of path ?1 or, if that is NULL, of
// all, until ?2, at most ?3.
constexpr std::string_view kInInbox =
    "SELECT path, deriver, source, created_unix_ms, 0, 0, '' FROM inbox "
    "WHERE (?1 IS NULL OR path = ?1) AND created_unix_ms <= ?2 "
    "ORDER BY created_unix_ms, id LIMIT ?3";
constexpr std::string_view kInDerivations =
    "SELECT path, '', source, queued_unix_ms, attempts, next_attempt_unix_ms, "
    "error_text FROM derivations "
    "WHERE (?1 IS NULL OR path = ?1) AND queued_unix_ms <= ?2 "
    "ORDER BY queued_unix_ms, id LIMIT ?3";

Arrival ReadArrival(const Statement& row, Arrival::Place place) {
  Arrival arrival;
  arrival.place = place;
  arrival.path = row.Text(0);
  arrival.deriver = row.Text(1);
  arrival.source = row.Text(2);
  arrival.queued_at = FromRow(row.Int(3));
  arrival.attempts = static_cast<int>(row.Int(4));
  arrival.next_attempt = FromRow(row.Int(5));
  arrival.error_text = row.Text(6);
  return arrival;
}

// The first two paths whose base name begins with ?1; all of `paths` are in
// one store directory, so that an index can be used: any row tells which.
constexpr std::string_view kBeginningInPaths =
    "WITH wanted (first) AS (SELECT rtrim(path, replace(path, '/', '')) || ?1 "
    "FROM paths LIMIT 1) SELECT p.path FROM wanted CROSS JOIN paths p "
    "ON p.path >= first AND p.path < first || char(127) ORDER BY 1 LIMIT 2";
#define NIXQ_BEGINNING_IN(table)                                            \
  "SELECT DISTINCT path FROM " table                                        \
  " WHERE substr(path, 1 + "                                                \
  "length(rtrim(path, replace(path, '/', ''))), length(?1)) = ?1 ORDER BY " \
  "path LIMIT 2"

void SortOldestFirst(std::vector<Arrival>& arrivals) {
  std::stable_sort(arrivals.begin(), arrivals.end(),
                   [](const Arrival& a, const Arrival& b) {
                     return a.queued_at < b.queued_at;
                   });
}

// Of path ?1: its entries, and its open, all and parked jobs.
constexpr std::string_view kOutstanding =
    "SELECT (SELECT count(*) FROM inbox WHERE path = ?1) + "
    "(SELECT count(*) FROM derivations WHERE path = ?1), "
    "p.open_count, p.job_count, "
    "(SELECT count(*) FROM jobs WHERE state = 'parked' AND path_id = p.id) "
    "FROM (SELECT 1) LEFT JOIN paths p ON p.path = ?1";
constexpr std::string_view kOutstandingInInbox =
    "SELECT (SELECT count(*) FROM inbox WHERE path = ?1), NULL, 0, 0";

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

std::string_view Name(Arrival::Place place) {
  switch (place) {
    case Arrival::Place::kSpool:
      return "spool";
    case Arrival::Place::kInbox:
      return "inbox";
    case Arrival::Place::kDerivations:
      return "derivation";
  }
  return "";
}

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

absl::StatusOr<std::vector<Arrival>> Report::Impl::Spooled() {
  NIXQ_ASSIGN_OR_RETURN(SpoolListing spool,
                        PeekSpool(state_dir_, kMaxSpoolFiles));
  std::vector<Arrival> arrivals;
  for (SpoolFile& file : spool.files) {
    for (InboxEntry& entry : file.entries) {
      Arrival arrival;
      arrival.place = Arrival::Place::kSpool;
      arrival.path = std::move(entry.path);
      arrival.deriver = std::move(entry.deriver);
      arrival.source = std::move(entry.source);
      arrival.queued_at = FromRow(entry.created_unix_ms);
      arrivals.push_back(std::move(arrival));
    }
  }
  return arrivals;
}

absl::StatusOr<std::vector<Arrival>> Report::Impl::ArrivedRows(
    const std::optional<std::string>& path, absl::Time before, size_t limit) {
  std::vector<Arrival> arrivals;
  for (Arrival::Place place :
       {Arrival::Place::kInbox, Arrival::Place::kDerivations}) {
    const bool inbox = place == Arrival::Place::kInbox;
    if (hooks_only_ && !inbox) continue;
    NIXQ_ASSIGN_OR_RETURN(Statement select,
                          database_.Prepare(inbox ? kInInbox : kInDerivations));
    select.Bind(path, ToRow(before), limit);
    while (true) {
      NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
      if (!row) break;
      arrivals.push_back(ReadArrival(select, place));
    }
  }
  return arrivals;
}

absl::StatusOr<std::vector<Arrival>> Report::Impl::Arrivals(absl::Time before,
                                                            size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(std::vector<Arrival> spooled, Spooled());
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  NIXQ_ASSIGN_OR_RETURN(std::vector<Arrival> arrivals,
                        ArrivedRows(std::nullopt, before, limit));
  for (Arrival& arrival : spooled) {
    if (arrival.queued_at <= before) arrivals.push_back(std::move(arrival));
  }
  SortOldestFirst(arrivals);
  if (arrivals.size() > limit) arrivals.resize(limit);
  return arrivals;
}

absl::StatusOr<bool> Report::Impl::OutputsAreUnknown(
    const std::vector<Arrival>& spooled) {
  for (const Arrival& arrival : spooled) {
    if (arrival.path.ends_with(".drv")) return true;
  }
  NIXQ_ASSIGN_OR_RETURN(
      int64_t unknown,
      CountOf(database_,
              "SELECT EXISTS (SELECT 1 FROM inbox WHERE kind = 'derivation')"));
  if (unknown == 0 && !hooks_only_) {
    NIXQ_ASSIGN_OR_RETURN(
        unknown,
        CountOf(database_, "SELECT EXISTS (SELECT 1 FROM derivations)"));
  }
  return unknown != 0;
}

absl::Status Report::Impl::NeverHeardOf(const std::string& path,
                                        const std::vector<Arrival>& spooled) {
  NIXQ_ASSIGN_OR_RETURN(bool unknown, OutputsAreUnknown(spooled));
  return absl::NotFoundError(
      path + (unknown ? ": the queue has not heard of it; it may be an output "
                        "of a derivation in `queuectl list` that Nix is still "
                        "to be asked about"
                      : ": the queue has never heard of it; `queuectl add` "
                        "queues it"));
}

absl::StatusOr<std::string> Report::Impl::FullPath(
    const std::string& path, const std::vector<Arrival>& spooled) {
  if (path.starts_with('/')) return path;
  std::set<std::string> found;  // an exact one comes before longer ones
  for (const Arrival& arrival : spooled) {
    const std::string& full = arrival.path;
    if (full.compare(full.rfind('/') + 1, path.size(), path) == 0) {
      found.insert(full);
    }
  }
  std::vector<std::string_view> places = {NIXQ_BEGINNING_IN("inbox")};
  if (!hooks_only_) {
    places.insert(places.end(),
                  {kBeginningInPaths, NIXQ_BEGINNING_IN("derivations")});
  }
  for (std::string_view place : places) {
    NIXQ_ASSIGN_OR_RETURN(Statement select, database_.Prepare(place));
    select.Bind(path);
    while (true) {
      NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
      if (!row) break;
      found.insert(select.Text(0));
    }
  }
  if (found.empty()) return NeverHeardOf(path, spooled);
  const std::string& first = *found.begin();
  if (found.size() > 1 && !first.ends_with("/" + path)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: not unique: %s, %s", path, first, *std::next(found.begin())));
  }
  return first;
}

absl::Status Report::Impl::FillAccepted(PathReport* report) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare("SELECT deriver, system, source, root, queued_unix_ms "
                        "FROM paths WHERE path = ?1"));
  NIXQ_ASSIGN_OR_RETURN(report->accepted, select.Bind(report->path).Step());
  if (!report->accepted) return absl::OkStatus();
  report->deriver = select.Text(0);
  report->system = select.Text(1);
  report->source = select.Text(2);
  report->root = RootStateFromName(select.Text(3));
  report->queued_at = FromRow(select.Int(4));
  NIXQ_ASSIGN_OR_RETURN(
      Statement jobs,
      database_.Prepare("SELECT " NIXQ_JOB_COLUMNS
                        "FROM paths p CROSS JOIN jobs j ON j.path_id = p.id "
                        "JOIN targets t ON t.id = j.target_id "
                        "WHERE p.path = ?1 ORDER BY t.name"));
  NIXQ_ASSIGN_OR_RETURN(report->jobs, ReadJobs(jobs.Bind(report->path)));
  return absl::OkStatus();
}

absl::StatusOr<PathReport> Report::Impl::Path(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("which path?");
  NIXQ_ASSIGN_OR_RETURN(std::vector<Arrival> spooled, Spooled());
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  PathReport report;
  NIXQ_ASSIGN_OR_RETURN(report.path, FullPath(path, spooled));
  NIXQ_ASSIGN_OR_RETURN(
      report.arrivals,
      ArrivedRows(report.path, absl::InfiniteFuture(), kMostArrivals));
  for (Arrival& arrival : spooled) {
    if (arrival.path == report.path) report.arrivals.push_back(arrival);
  }
  SortOldestFirst(report.arrivals);
  if (!hooks_only_) NIXQ_RETURN_IF_ERROR(FillAccepted(&report));
  if (report.accepted) return report;
  if (report.arrivals.empty()) return NeverHeardOf(path, spooled);
  const Arrival& first = report.arrivals.front();
  report.deriver = first.deriver;
  report.source = first.source;
  report.queued_at = first.queued_at;
  // Whoever left it there holds it.
  if (!report.path.ends_with(".drv")) report.root = RootState::kHold;
  return report;
}

absl::StatusOr<Report::Outstanding> Report::Impl::CountAll() {
  NIXQ_ASSIGN_OR_RETURN(int64_t spool_files, CountSpoolFiles(state_dir_));
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  if (hooks_only_) {
    NIXQ_ASSIGN_OR_RETURN(int64_t inbox,
                          CountOf(database_, "SELECT count(*) FROM inbox"));
    return Outstanding{.open = inbox + spool_files};
  }
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
      database_.Prepare(hooks_only_ ? kOutstandingInInbox : kOutstanding));
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
  NIXQ_ASSIGN_OR_RETURN(std::vector<Arrival> spooled, Spooled());
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  NIXQ_ASSIGN_OR_RETURN(bool may_be_derived, OutputsAreUnknown(spooled));
  std::multiset<std::string_view> awaited;
  for (const Arrival& arrival : spooled) awaited.insert(arrival.path);
  Outstanding outstanding;
  for (const std::string& path : paths) {
    NIXQ_RETURN_IF_ERROR(CountOne(path,
                                  static_cast<int64_t>(awaited.count(path)),
                                  may_be_derived, &outstanding));
  }
  return outstanding;
}

absl::StatusOr<std::vector<TargetRow>> Report::Impl::WaitedFor(
    const std::vector<std::string>& paths) {
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database_));
  NIXQ_RETURN_IF_ERROR(CheckSchema());
  std::vector<TargetRow> waited_for;
  NIXQ_ASSIGN_OR_RETURN(std::vector<TargetRow> targets, ReadTargets());
  for (TargetRow& target : targets) {
    NIXQ_ASSIGN_OR_RETURN(
        Statement any,
        database_.Prepare(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE target_id = ?1 AND "
            "state = 'queued') OR EXISTS (SELECT 1 FROM jobs WHERE "
            "target_id = ?1 AND state = 'sending')"));
    NIXQ_ASSIGN_OR_RETURN(
        Statement of_path,
        database_.Prepare(
            "SELECT EXISTS (SELECT 1 FROM paths p CROSS JOIN "
            "jobs j ON j.path_id = p.id WHERE p.path = ?2 AND "
            "target_id = ?1 AND state IN ('queued', 'sending'))"));
    bool waits = false;
    if (paths.empty()) {
      NIXQ_ASSIGN_OR_RETURN(bool row, any.Bind(target.id).Step());
      waits = row && any.Int(0) != 0;
    }
    for (const std::string& path : paths) {
      NIXQ_ASSIGN_OR_RETURN(bool row, of_path.Bind(target.id, path).Step());
      waits |= row && of_path.Int(0) != 0;
    }
    if (waits) waited_for.push_back(std::move(target));
  }
  return waited_for;
}

}  // namespace nixq
