// The targets' rows: configuration, health, pauses.

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/queue/queue_impl.h"

namespace nixq {

TargetRow ReadTarget(const Statement& row) {
  TargetRow target;
  target.id = row.Int(0);
  target.name = row.Text(1);
  target.url = row.Text(2);
  target.configured = row.Int(3) != 0;
  target.paused = row.Int(4) != 0;
  target.health = TargetHealthFromName(row.Text(5));
  target.failures = static_cast<int>(row.Int(6));
  target.retry_at = FromRow(row.Int(7));
  target.error_code = row.Text(8);
  target.error_text = row.Text(9);
  target.error_at = FromRow(row.Int(10));
  target.success_at = FromRow(row.Int(11));
  return target;
}

absl::StatusOr<std::vector<TargetRow>> Queue::SyncTargets(
    const std::vector<TargetSpec>& configured) {
  std::set<std::string> names;
  for (const TargetSpec& spec : configured) {
    if (spec.name.empty() || !names.insert(spec.name).second) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "target name \"%s\" is empty or not unique", spec.name));
    }
  }
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_RETURN_IF_ERROR(database.Execute("UPDATE targets SET configured = 0"));
  // Elsewhere is another target: what was wrong with the old place says
  // nothing about it. (The right sides are the values before the update.)
  NIXQ_ASSIGN_OR_RETURN(
      Statement put,
      database.Prepare(
          "INSERT INTO targets (name, url) VALUES (?1, ?2) "
          "ON CONFLICT (name) DO UPDATE SET configured = 1, url = ?2, "
          "health = iif(url = ?2, health, 'unknown'), "
          "failures = iif(url = ?2, failures, 0), "
          "retry_unix_ms = iif(url = ?2, retry_unix_ms, 0), "
          "error_code = iif(url = ?2, error_code, ''), "
          "error_text = iif(url = ?2, error_text, ''), "
          "error_unix_ms = iif(url = ?2, error_unix_ms, 0)"));
  NIXQ_ASSIGN_OR_RETURN(Statement get,
                        database.Prepare("SELECT " NIXQ_TARGET_COLUMNS
                                         " FROM targets t WHERE name = ?1"));
  std::vector<TargetRow> rows;
  for (const TargetSpec& spec : configured) {
    NIXQ_RETURN_IF_ERROR(put.Bind(spec.name, spec.url).Run());
    NIXQ_ASSIGN_OR_RETURN(bool found, get.Bind(spec.name).Step());
    if (found) rows.push_back(ReadTarget(get));
  }
  // One SELECT for each state, since its index is for that state alone.
  NIXQ_RETURN_IF_ERROR(database.Execute(
      "DELETE FROM targets WHERE NOT configured AND NOT EXISTS ("
      "SELECT 1 FROM jobs WHERE target_id = targets.id AND state = 'queued' "
      "UNION ALL SELECT 1 FROM jobs "
      "WHERE target_id = targets.id AND state = 'sending' "
      "UNION ALL SELECT 1 FROM jobs "
      "WHERE target_id = targets.id AND state = 'parked' "
      "UNION ALL SELECT 1 FROM jobs "
      "WHERE target_id = targets.id AND state = 'done')"));
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return rows;
}

absl::StatusOr<std::vector<TargetRow>> Queue::Targets() {
  NIXQ_ASSIGN_OR_RETURN(
      Statement statement,
      impl_->database.Prepare("SELECT " NIXQ_TARGET_COLUMNS
                              " FROM targets t ORDER BY t.id"));
  std::vector<TargetRow> rows;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, statement.Step());
    if (!row) return rows;
    rows.push_back(ReadTarget(statement));
  }
}

absl::Status Queue::SaveTargetHealth(const TargetRow& row) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement update,
      impl_->database.Prepare(
          "UPDATE targets SET health = ?2, failures = ?3, retry_unix_ms = ?4, "
          "error_code = ?5, error_text = ?6, error_unix_ms = ?7, "
          "success_unix_ms = ?8 WHERE id = ?1"));
  return update
      .Bind(row.id, Name(row.health), row.failures, ToRow(row.retry_at),
            row.error_code, row.error_text, ToRow(row.error_at),
            ToRow(row.success_at))
      .Run();
}

absl::Status Queue::SetPaused(const std::string& target, bool paused) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement update,
      impl_->database.Prepare(
          paused ? "UPDATE targets SET paused = 1 WHERE name = ?1"
                 : "UPDATE targets SET paused = 0, health = 'unknown', "
                   "failures = 0, retry_unix_ms = 0, error_code = '', "
                   "error_text = '', error_unix_ms = 0 WHERE name = ?1"));
  NIXQ_RETURN_IF_ERROR(update.Bind(target).Run());
  if (impl_->database.Changes() == 0) {
    return absl::NotFoundError(absl::StrFormat("no target \"%s\"", target));
  }
  return absl::OkStatus();
}

}  // namespace nixq
