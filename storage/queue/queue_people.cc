// What people do to jobs: retry, forget.

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/queue/queue_impl.h"

namespace nixq {
namespace {

// Retries what `chosen` begins with, and what is blocked by it, and so on.
#define NIXQ_RETRY(begin)                                                      \
  "WITH RECURSIVE chosen (id, path_id) AS (" begin                             \
  " UNION SELECT j.id, j.path_id FROM chosen c JOIN jobs j "                   \
  "ON j.blocked_by = c.path_id AND j.target_id = ?1 "                          \
  "WHERE j.state = 'parked') "                                                 \
  "UPDATE jobs SET state = 'queued', attempts = 0, next_attempt_unix_ms = 0, " \
  "error_code = '', error_text = '', blocked_by = NULL, "                      \
  "changed_unix_ms = ?2 WHERE id IN (SELECT id FROM chosen)"

constexpr std::string_view kRetryParked = NIXQ_RETRY(
    "SELECT id, path_id FROM jobs WHERE target_id = ?1 AND state = 'parked'");
constexpr std::string_view kRetryAll = NIXQ_RETRY(
    "SELECT id, path_id FROM jobs WHERE target_id = ?1 AND state = 'parked' "
    "UNION "
    "SELECT id, path_id FROM jobs WHERE target_id = ?1 AND state = 'queued'");
constexpr std::string_view kRetryPath = NIXQ_RETRY(
    "SELECT j.id, j.path_id FROM paths p JOIN jobs j ON j.path_id = p.id "
    "WHERE p.path = ?3 AND j.target_id = ?1 AND "
    "(j.state = 'parked' OR (j.state = 'queued' AND NOT ?4))");

// What jobs wait for that are due and yet not tried.
constexpr std::string_view kProbeNow =
    "UPDATE targets SET health = 'unknown', failures = 0, retry_unix_ms = 0, "
    "error_code = '', error_text = '', error_unix_ms = 0 WHERE id = ?1 AND "
    "configured AND NOT paused AND health IN ('unreachable', 'refused')";

constexpr std::string_view kForgetOpen =
    "DELETE FROM jobs WHERE id IN ("
    "SELECT id FROM jobs WHERE target_id = ?1 AND state = 'queued' UNION ALL "
    "SELECT id FROM jobs WHERE target_id = ?1 AND state = 'sending' UNION ALL "
    "SELECT id FROM jobs WHERE target_id = ?1 AND state = 'parked')";
constexpr std::string_view kForgetParked =
    "DELETE FROM jobs WHERE target_id = ?1 AND state = 'parked'";
constexpr std::string_view kForgetAll = "DELETE FROM jobs WHERE target_id = ?1";
constexpr std::string_view kForgetPath =
    "DELETE FROM jobs WHERE path_id = (SELECT id FROM paths WHERE path = ?2) "
    "AND target_id = ?1 AND (state = 'parked' OR NOT ?3)";

// What waits for a reference that has no open job any more: nothing else would
// ever end that wait.
constexpr std::string_view kReviveUnblocked =
    "UPDATE jobs SET state = 'queued', attempts = 0, next_attempt_unix_ms = 0, "
    "error_code = '', error_text = '', blocked_by = NULL, "
    "changed_unix_ms = ?2 WHERE id IN (SELECT j.id FROM jobs j INDEXED BY "
    "jobs_blocked WHERE j.blocked_by IS NOT NULL AND j.target_id = ?1 AND "
    "j.state = 'parked' AND NOT EXISTS (SELECT 1 FROM jobs b WHERE "
    "b.path_id = j.blocked_by AND b.target_id = j.target_id AND "
    "b.state <> 'done'))";

// Derivations go to no target yet, and are never parked.
constexpr std::string_view kRetryDerivation =
    "UPDATE derivations SET attempts = 0, next_attempt_unix_ms = 0 "
    "WHERE path = ?1";
constexpr std::string_view kForgetDerivation =
    "DELETE FROM derivations WHERE path = ?1";

absl::StatusOr<int64_t> ChangeDerivations(Database& database,
                                          std::string_view sql,
                                          const JobSelection& selection) {
  int64_t changed = 0;
  if (selection.target.has_value() || selection.parked_only) return changed;
  NIXQ_ASSIGN_OR_RETURN(Statement change, database.Prepare(sql));
  for (const std::string& path : selection.paths) {
    NIXQ_RETURN_IF_ERROR(change.Bind(path).Run());
    changed += database.Changes();
  }
  return changed;
}

}  // namespace

absl::StatusOr<std::vector<TargetRow>> Queue::Impl::SelectedTargets(
    const JobSelection& selection) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database.Prepare("SELECT " NIXQ_TARGET_COLUMNS
                       " FROM targets t WHERE ?1 IS NULL OR name = ?1"));
  select.Bind(selection.target);
  std::vector<TargetRow> targets;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
    if (!row) break;
    targets.push_back(ReadTarget(select));
  }
  if (targets.empty() && selection.target) {
    return absl::NotFoundError(
        absl::StrFormat("no target \"%s\"", *selection.target));
  }
  return targets;
}

absl::StatusOr<Queue::Retried> Queue::Retry(const JobSelection& selection) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(std::vector<TargetRow> targets,
                        impl_->SelectedTargets(selection));
  const int64_t now_ms = impl_->NowMs();
  Retried retried;
  NIXQ_ASSIGN_OR_RETURN(
      retried.jobs, ChangeDerivations(database, kRetryDerivation, selection));
  for (const TargetRow& target : targets) {
    int64_t jobs = 0;
    if (selection.paths.empty()) {
      NIXQ_ASSIGN_OR_RETURN(
          Statement all,
          database.Prepare(selection.parked_only ? kRetryParked : kRetryAll));
      NIXQ_RETURN_IF_ERROR(all.Bind(target.id, now_ms).Run());
      jobs += database.Changes();
    }
    NIXQ_ASSIGN_OR_RETURN(Statement one, database.Prepare(kRetryPath));
    for (const std::string& path : selection.paths) {
      one.Bind(target.id, now_ms, path, selection.parked_only);
      NIXQ_RETURN_IF_ERROR(one.Run());
      jobs += database.Changes();
    }
    if (jobs == 0) continue;
    retried.jobs += jobs;
    if (target.paused) retried.paused.push_back(target.name);
    NIXQ_ASSIGN_OR_RETURN(Statement probe, database.Prepare(kProbeNow));
    NIXQ_RETURN_IF_ERROR(probe.Bind(target.id).Run());
    if (database.Changes() > 0) retried.probed.push_back(target.name);
  }
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return retried;
}

absl::StatusOr<Queue::Forgotten> Queue::Forget(const JobSelection& selection) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(std::vector<TargetRow> targets,
                        impl_->SelectedTargets(selection));
  Forgotten forgotten;
  NIXQ_ASSIGN_OR_RETURN(
      forgotten.jobs,
      ChangeDerivations(database, kForgetDerivation, selection));
  for (const TargetRow& target : targets) {
    if (selection.paths.empty()) {
      NIXQ_ASSIGN_OR_RETURN(
          Statement all, database.Prepare(selection.parked_only ? kForgetParked
                                          : selection.open_only ? kForgetOpen
                                                                : kForgetAll));
      NIXQ_RETURN_IF_ERROR(all.Bind(target.id).Run());
      forgotten.jobs += database.Changes();
    }
    NIXQ_ASSIGN_OR_RETURN(Statement one, database.Prepare(kForgetPath));
    for (const std::string& path : selection.paths) {
      one.Bind(target.id, path, selection.parked_only);
      NIXQ_RETURN_IF_ERROR(one.Run());
      forgotten.jobs += database.Changes();
    }
    NIXQ_ASSIGN_OR_RETURN(Statement revive, database.Prepare(kReviveUnblocked));
    NIXQ_RETURN_IF_ERROR(revive.Bind(target.id, impl_->NowMs()).Run());
    forgotten.revived += database.Changes();
  }
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return forgotten;
}

}  // namespace nixq
