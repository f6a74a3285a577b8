// Which paths are held, and what has become unnecessary.

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/queue/migrations.h"
#include "storage/queue/queue_impl.h"
#include "storage/queue/spool.h"

namespace nixq {
namespace {

constexpr size_t kMaxSpoolEntries = 10'000'000;

absl::StatusOr<std::vector<Queue::PathRow>> ReadPaths(Statement& statement) {
  std::vector<Queue::PathRow> rows;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool there, statement.Step());
    if (!there) return rows;
    Queue::PathRow row;
    row.id = statement.Int(0);
    row.path = statement.Text(1);
    row.system = statement.Text(2);
    row.root = RootStateFromName(statement.Text(3));
    row.queued_at = FromRow(statement.Int(4));
    rows.push_back(std::move(row));
  }
}

// Whether the daemon has made its tables: hooks make the inbox alone.
absl::StatusOr<bool> HasPaths(Database& database) {
  NIXQ_ASSIGN_OR_RETURN(int version, SchemaVersion(database));
  return version > kInboxSchema;
}

// What was given to the queue and is not in its tables yet.
class Waiting {
 public:
  void Add(bool derivation, std::string path) {
    constexpr std::string_view kSuffix = ".drv";
    if (derivation && path.ends_with(kSuffix)) {
      std::string_view name = NameOf(path);
      name.remove_suffix(std::min(name.size(), kSuffix.size()));
      made_.emplace(name);
    }
    paths_.insert(std::move(path));
  }

  // Nix names the output `out` of a derivation as the derivation, and others
  // `<its name>-<output>`.
  bool Has(const std::string& path) const {
    if (paths_.contains(path)) return true;
    if (made_.empty()) return false;
    const std::string name(NameOf(path));
    for (size_t end = name.size(); end != std::string::npos && end > 0;
         end = name.rfind('-', end - 1)) {
      if (made_.contains(name.substr(0, end))) return true;
    }
    return false;
  }

 private:
  std::unordered_set<std::string> paths_;
  std::unordered_set<std::string> made_;  // names of outputs to come
};

absl::Status ReadSpooled(const std::string& queue_file, Waiting& waiting) {
  const std::string state_dir = queue_file.substr(0, queue_file.rfind('/'));
  // A directory that may not be looked into is none to PeekSpool.
  absl::Status may_look =
      ListDirectory(state_dir + "/spool", kMaxSpoolEntries).status();
  if (absl::IsNotFound(may_look)) return absl::OkStatus();
  NIXQ_RETURN_IF_ERROR(may_look);
  NIXQ_ASSIGN_OR_RETURN(SpoolListing spool,
                        PeekSpool(state_dir, kMaxSpoolEntries));
  if (!spool.unreadable.empty()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: what it holds is not known; start queued, which puts it aside",
        spool.unreadable.front()));
  }
  for (SpoolFile& file : spool.files) {
    for (InboxEntry& entry : file.entries) {
      waiting.Add(entry.kind == InboxKind::kDerivation, std::move(entry.path));
    }
  }
  return absl::OkStatus();
}

// Adds the rows of `sql`: whether it is a derivation, and the path.
absl::Status ReadWaiting(Database& database, std::string_view sql,
                         Waiting& waiting) {
  NIXQ_ASSIGN_OR_RETURN(Statement select, database.Prepare(sql));
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
    if (!row) return absl::OkStatus();
    waiting.Add(select.Int(0) != 0, select.Text(1));
  }
}

}  // namespace

absl::StatusOr<std::vector<Queue::PathRow>> Queue::FinishedHolds(
    int64_t after_id, size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      impl_->database.Prepare(
          "SELECT id, path, system, root, queued_unix_ms FROM paths "
          "WHERE root = 'hold' AND open_count = 0 "
          "AND id > ?1 ORDER BY id LIMIT ?2"));
  return ReadPaths(select.Bind(after_id, limit));
}

absl::StatusOr<std::vector<Queue::PathRow>> Queue::Holds(int64_t after_id,
                                                         size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(Statement select,
                        impl_->database.Prepare(
                            "SELECT id, path, system, root, queued_unix_ms "
                            "FROM paths WHERE root <> 'none' AND "
                            "root = 'hold' AND id > ?1 ORDER BY id LIMIT ?2"));
  return ReadPaths(select.Bind(after_id, limit));
}

absl::StatusOr<std::vector<Queue::PathRow>> Queue::Pins(int64_t after_id,
                                                        size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(bool has_paths, HasPaths(impl_->database));
  if (!has_paths) return std::vector<PathRow>();
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      impl_->database.Prepare("SELECT id, path, system, root, queued_unix_ms "
                              "FROM paths WHERE root <> 'none' AND "
                              "root = 'pin' AND id > ?1 ORDER BY id LIMIT ?2"));
  return ReadPaths(select.Bind(after_id, limit));
}

absl::Status Queue::SetRoots(const std::vector<int64_t>& path_ids,
                             RootState root) {
  if (path_ids.empty()) return absl::OkStatus();
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(
      Statement update,
      database.Prepare("UPDATE paths SET root = ?2 WHERE id = ?1"));
  for (int64_t id : path_ids) {
    NIXQ_RETURN_IF_ERROR(update.Bind(id, Name(root)).Run());
  }
  return transaction.Commit();
}

absl::Status Queue::SetRootByPath(const std::string& path, RootState root) {
  NIXQ_ASSIGN_OR_RETURN(bool has_paths, HasPaths(impl_->database));
  if (!has_paths) return absl::OkStatus();
  NIXQ_ASSIGN_OR_RETURN(
      Statement update,
      impl_->database.Prepare("UPDATE paths SET root = ?2 WHERE path = ?1"));
  return update.Bind(path, Name(root)).Run();
}

absl::StatusOr<std::vector<RootNeed>> Queue::RootNeeds(
    const std::vector<std::string>& paths) {
  Database& database = impl_->database;
  // What leaves the spool goes into the database, never the other way: looked
  // at in this order, nothing is missed.
  Waiting waiting;
  NIXQ_RETURN_IF_ERROR(ReadSpooled(database.file(), waiting));
  NIXQ_ASSIGN_OR_RETURN(Transaction view, Transaction::BeginRead(database));
  NIXQ_RETURN_IF_ERROR(ReadWaiting(
      database, "SELECT kind = 'derivation', path FROM inbox", waiting));
  std::vector<RootNeed> needs(paths.size());
  NIXQ_ASSIGN_OR_RETURN(bool has_paths, HasPaths(database));
  if (has_paths) {
    NIXQ_RETURN_IF_ERROR(
        ReadWaiting(database, "SELECT 1, path FROM derivations", waiting));
    NIXQ_ASSIGN_OR_RETURN(
        Statement select,
        database.Prepare("SELECT open_count FROM paths WHERE path = ?1"));
    for (size_t i = 0; i < paths.size(); ++i) {
      NIXQ_ASSIGN_OR_RETURN(bool row, select.Bind(paths[i]).Step());
      if (row) needs[i].open_jobs = select.Int(0);
    }
  }
  for (size_t i = 0; i < paths.size(); ++i) {
    needs[i].not_taken_in = waiting.Has(paths[i]);
  }
  return needs;
}

absl::StatusOr<int64_t> Queue::RemoveFinished(absl::Time before, size_t limit) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(
      Statement jobs,
      database.Prepare("DELETE FROM jobs WHERE id IN (SELECT id FROM jobs "
                       "INDEXED BY jobs_history WHERE state = 'done' AND "
                       "changed_unix_ms < ?1 "
                       "ORDER BY changed_unix_ms LIMIT ?2)"));
  NIXQ_RETURN_IF_ERROR(jobs.Bind(ToRow(before), limit).Run());
  int64_t removed = database.Changes();
  // A path that parked jobs wait for stays, so that they can name it.
  NIXQ_ASSIGN_OR_RETURN(
      Statement paths,
      database.Prepare(
          "DELETE FROM paths WHERE id IN (SELECT id FROM paths p "
          "WHERE root = 'none' AND job_count = 0 AND NOT EXISTS (SELECT 1 FROM "
          "jobs WHERE blocked_by = p.id) LIMIT ?1)"));
  NIXQ_RETURN_IF_ERROR(paths.Bind(limit).Run());
  removed += database.Changes();
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return removed;
}

}  // namespace nixq
