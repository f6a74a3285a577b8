// Which paths are held, and what has become unnecessary.

#include <string>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "storage/queue/queue_impl.h"

namespace nixq {
namespace {

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
    rows.push_back(std::move(row));
  }
}

}  // namespace

absl::StatusOr<std::vector<Queue::PathRow>> Queue::FinishedHolds(size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      impl_->database.Prepare(
          "SELECT id, path, system, root FROM paths "
          "WHERE root = 'hold' AND open_count = 0 ORDER BY id LIMIT ?1"));
  return ReadPaths(select.Bind(limit));
}

absl::StatusOr<std::vector<Queue::PathRow>> Queue::Holds(int64_t after_id,
                                                         size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      impl_->database.Prepare(
          "SELECT id, path, system, root FROM paths WHERE root <> 'none' AND "
          "root = 'hold' AND id > ?1 ORDER BY id LIMIT ?2"));
  return ReadPaths(select.Bind(after_id, limit));
}

absl::Status Queue::SetRoot(int64_t path_id, RootState root) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement update,
      impl_->database.Prepare("UPDATE paths SET root = ?2 WHERE id = ?1"));
  return update.Bind(path_id, Name(root)).Run();
}

absl::Status Queue::SetRootByPath(const std::string& path, RootState root) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement update,
      impl_->database.Prepare("UPDATE paths SET root = ?2 WHERE path = ?1"));
  return update.Bind(path, Name(root)).Run();
}

absl::StatusOr<std::vector<int64_t>> Queue::OpenJobs(
    const std::vector<std::string>& paths) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      impl_->database.Prepare("SELECT open_count FROM paths WHERE path = ?1"));
  std::vector<int64_t> counts;
  counts.reserve(paths.size());
  for (const std::string& path : paths) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Bind(path).Step());
    counts.push_back(row ? select.Int(0) : 0);
  }
  return counts;
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
