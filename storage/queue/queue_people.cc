// What people do to jobs: retry, forget.

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/queue/queue_impl.h"

namespace nixq {
namespace {

// Retries what `chosen` begins with, and what is blocked by it, and so on.
// Jobs that are due anyway and have nothing to clear stay as they are.
#define NIXQ_RETRY(begin)                                                      \
  "WITH RECURSIVE chosen (id, path_id) AS (" begin                             \
  " UNION SELECT j.id, j.path_id FROM chosen c JOIN jobs j "                   \
  "ON j.blocked_by = c.path_id AND j.target_id = ?1 "                          \
  "WHERE j.state = 'parked') "                                                 \
  "UPDATE jobs SET state = 'queued', attempts = 0, next_attempt_unix_ms = 0, " \
  "error_code = '', error_text = '', blocked_by = NULL, "                      \
  "changed_unix_ms = ?2 WHERE id IN (SELECT id FROM chosen) AND "              \
  "(state = 'parked' OR next_attempt_unix_ms > 0 OR error_code <> '' OR "      \
  "error_text <> '' OR attempts > 0)"

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

constexpr std::string_view kForgetParked =
    "DELETE FROM jobs WHERE target_id = ?1 AND state = 'parked'";
constexpr std::string_view kForgetAll = "DELETE FROM jobs WHERE target_id = ?1";
constexpr std::string_view kForgetPath =
    "DELETE FROM jobs WHERE path_id = (SELECT id FROM paths WHERE path = ?2) "
    "AND target_id = ?1 AND (state = 'parked' OR NOT ?3)";

}  // namespace

absl::StatusOr<std::vector<int64_t>> Queue::Impl::SelectedTargets(
    const JobSelection& selection) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database.Prepare("SELECT id FROM targets WHERE ?1 IS NULL OR name = ?1"));
  select.Bind(selection.target);
  std::vector<int64_t> ids;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
    if (!row) break;
    ids.push_back(select.Int(0));
  }
  if (ids.empty() && selection.target) {
    return absl::NotFoundError(
        absl::StrFormat("no target \"%s\"", *selection.target));
  }
  return ids;
}

absl::StatusOr<int64_t> Queue::Retry(const JobSelection& selection) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(std::vector<int64_t> targets,
                        impl_->SelectedTargets(selection));
  const int64_t now_ms = impl_->NowMs();
  int64_t retried = 0;
  for (int64_t target_id : targets) {
    if (selection.paths.empty()) {
      NIXQ_ASSIGN_OR_RETURN(
          Statement all,
          database.Prepare(selection.parked_only ? kRetryParked : kRetryAll));
      NIXQ_RETURN_IF_ERROR(all.Bind(target_id, now_ms).Run());
      retried += database.Changes();
    }
    NIXQ_ASSIGN_OR_RETURN(Statement one, database.Prepare(kRetryPath));
    for (const std::string& path : selection.paths) {
      one.Bind(target_id, now_ms, path, selection.parked_only);
      NIXQ_RETURN_IF_ERROR(one.Run());
      retried += database.Changes();
    }
  }
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return retried;
}

absl::StatusOr<int64_t> Queue::Forget(const JobSelection& selection) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(std::vector<int64_t> targets,
                        impl_->SelectedTargets(selection));
  int64_t forgotten = 0;
  for (int64_t target_id : targets) {
    if (selection.paths.empty()) {
      NIXQ_ASSIGN_OR_RETURN(
          Statement all,
          database.Prepare(selection.parked_only ? kForgetParked : kForgetAll));
      NIXQ_RETURN_IF_ERROR(all.Bind(target_id).Run());
      forgotten += database.Changes();
    }
    NIXQ_ASSIGN_OR_RETURN(Statement one, database.Prepare(kForgetPath));
    for (const std::string& path : selection.paths) {
      one.Bind(target_id, path, selection.parked_only);
      NIXQ_RETURN_IF_ERROR(one.Run());
      forgotten += database.Changes();
    }
  }
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return forgotten;
}

}  // namespace nixq
