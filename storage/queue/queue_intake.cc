// From the inbox to jobs.

#include <string>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "storage/queue/queue_impl.h"

namespace nixq {

std::string_view NameOf(std::string_view path) {
  size_t slash = path.rfind('/');
  std::string_view base =
      slash == std::string_view::npos ? path : path.substr(slash + 1);
  size_t dash = base.find('-');
  return dash == std::string_view::npos ? base : base.substr(dash + 1);
}

namespace {

absl::StatusOr<std::vector<int64_t>> ConfiguredTargets(Database& database) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement statement,
      database.Prepare("SELECT id FROM targets WHERE configured ORDER BY id"));
  std::vector<int64_t> ids;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, statement.Step());
    if (!row) return ids;
    ids.push_back(statement.Int(0));
  }
}

}  // namespace

absl::StatusOr<std::vector<InboxEntry>> Queue::ReadInbox(size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement statement,
      impl_->database.Prepare("SELECT id, kind, path, deriver, named, source, "
                              "created_unix_ms FROM inbox ORDER BY id "
                              "LIMIT ?1"));
  statement.Bind(limit);
  std::vector<InboxEntry> entries;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, statement.Step());
    if (!row) return entries;
    InboxEntry entry;
    entry.id = statement.Int(0);
    entry.kind = statement.Text(1) == "derivation" ? InboxKind::kDerivation
                                                   : InboxKind::kOutput;
    entry.path = statement.Text(2);
    entry.deriver = statement.Text(3);
    entry.named = statement.Int(4) != 0;
    entry.source = statement.Text(5);
    entry.created_unix_ms = statement.Int(6);
    entries.push_back(std::move(entry));
  }
}

absl::StatusOr<int64_t> Queue::Impl::PutPath(const NewPath& path) {
  // A hold is never weakened here: jobs that are open may need it.
  NIXQ_ASSIGN_OR_RETURN(
      Statement put,
      database.Prepare(
          "INSERT INTO paths (path, name, deriver, system, source, "
          "nar_size_bytes, root, queued_unix_ms) "
          "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) "
          "ON CONFLICT (path) DO UPDATE SET "
          "deriver = iif(?3 = '', deriver, ?3), "
          "system = iif(?4 = '', system, ?4), "
          "source = iif(?7 = 'none', source, ?5), "
          "nar_size_bytes = iif(?6 = 0, nar_size_bytes, ?6), "
          "root = iif(?7 = 'none' OR root = 'hold', root, ?7), "
          "queued_unix_ms = iif(?7 = 'none', queued_unix_ms, ?8) "
          "RETURNING id"));
  put.Bind(path.path, NameOf(path.path), path.deriver, path.system, path.source,
           path.nar_size_bytes, Name(path.root), NowMs());
  NIXQ_ASSIGN_OR_RETURN(bool row, put.Step());
  if (!row) return absl::InternalError("RETURNING gave nothing");
  int64_t id = put.Int(0);
  NIXQ_RETURN_IF_ERROR(put.Run());
  return id;
}

absl::Status Queue::Impl::AcceptPaths(const std::vector<NewPath>& paths) {
  NIXQ_ASSIGN_OR_RETURN(std::vector<int64_t> targets,
                        ConfiguredTargets(database));
  NIXQ_ASSIGN_OR_RETURN(
      Statement put,
      database.Prepare(
          "INSERT INTO jobs (path_id, target_id, queued_unix_ms, "
          "changed_unix_ms) VALUES (?1, ?2, ?3, ?3) "
          "ON CONFLICT (path_id, target_id) DO UPDATE SET "
          "state = 'queued', outcome = '', attempts = 0, "
          "next_attempt_unix_ms = 0, error_code = '', error_text = '', "
          "blocked_by = NULL, sent_size_bytes = 0, duration_ms = 0, "
          "queued_unix_ms = ?3, changed_unix_ms = ?3 "
          "WHERE state IN ('done', 'parked')"));
  int64_t now_ms = NowMs();
  for (const NewPath& path : paths) {
    NIXQ_ASSIGN_OR_RETURN(int64_t path_id, PutPath(path));
    for (int64_t target_id : targets) {
      NIXQ_RETURN_IF_ERROR(put.Bind(path_id, target_id, now_ms).Run());
    }
  }
  return absl::OkStatus();
}

absl::Status Queue::Accept(const std::vector<NewPath>& paths,
                           const std::vector<InboxEntry>& derivations,
                           const std::vector<int64_t>& inbox_ids) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_RETURN_IF_ERROR(impl_->AcceptPaths(paths));
  NIXQ_ASSIGN_OR_RETURN(
      Statement file,
      database.Prepare(
          "INSERT INTO derivations (path, source, queued_unix_ms) "
          "VALUES (?1, ?2, ?3) ON CONFLICT (path) DO UPDATE SET "
          "attempts = 0, next_attempt_unix_ms = 0, error_text = ''"));
  for (const InboxEntry& derivation : derivations) {
    NIXQ_RETURN_IF_ERROR(
        file.Bind(derivation.path, derivation.source, impl_->NowMs()).Run());
  }
  NIXQ_ASSIGN_OR_RETURN(Statement remove,
                        database.Prepare("DELETE FROM inbox WHERE id = ?1"));
  for (int64_t id : inbox_ids) NIXQ_RETURN_IF_ERROR(remove.Bind(id).Run());
  return transaction.Commit();
}

absl::StatusOr<std::vector<PendingDerivation>> Queue::DueDerivations(
    size_t limit) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement statement,
      impl_->database.Prepare(
          "SELECT id, path, source, attempts FROM derivations "
          "WHERE next_attempt_unix_ms <= ?1 OR next_attempt_unix_ms > ?2 "
          "ORDER BY id LIMIT ?3"));
  int64_t now_ms = impl_->NowMs();
  statement.Bind(now_ms, now_ms + kFarFutureMs, limit);
  std::vector<PendingDerivation> result;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, statement.Step());
    if (!row) return result;
    PendingDerivation derivation;
    derivation.id = statement.Int(0);
    derivation.path = statement.Text(1);
    derivation.source = statement.Text(2);
    derivation.attempts = static_cast<int>(statement.Int(3));
    result.push_back(std::move(derivation));
  }
}

absl::Status Queue::ResolveDerivation(int64_t id,
                                      const std::vector<NewPath>& paths) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_RETURN_IF_ERROR(impl_->AcceptPaths(paths));
  NIXQ_ASSIGN_OR_RETURN(
      Statement remove,
      database.Prepare("DELETE FROM derivations WHERE id = ?1"));
  NIXQ_RETURN_IF_ERROR(remove.Bind(id).Run());
  return transaction.Commit();
}

absl::Status Queue::DelayDerivation(int64_t id, absl::Time next_attempt,
                                    const std::string& error_text,
                                    const std::vector<NewPath>& paths) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_RETURN_IF_ERROR(impl_->AcceptPaths(paths));
  NIXQ_ASSIGN_OR_RETURN(
      Statement update,
      database.Prepare(
          "UPDATE derivations SET attempts = attempts + 1, "
          "next_attempt_unix_ms = ?2, error_text = ?3 WHERE id = ?1"));
  NIXQ_RETURN_IF_ERROR(update.Bind(id, ToRow(next_attempt), error_text).Run());
  return transaction.Commit();
}

absl::StatusOr<std::vector<bool>> Queue::NeedRoots(
    const std::vector<std::string>& paths) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement statement,
      impl_->database.Prepare("SELECT 1 FROM paths WHERE path = ?1 AND "
                              "(open_count > 0 OR root <> 'none')"));
  std::vector<bool> need;
  need.reserve(paths.size());
  for (const std::string& path : paths) {
    NIXQ_ASSIGN_OR_RETURN(bool row, statement.Bind(path).Step());
    need.push_back(row);
  }
  return need;
}

absl::StatusOr<std::vector<bool>> Queue::Known(
    const std::vector<std::string>& paths) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement statement,
      impl_->database.Prepare("SELECT 1 FROM paths WHERE path = ?1 UNION ALL "
                              "SELECT 1 FROM derivations WHERE path = ?1"));
  std::vector<bool> known;
  known.reserve(paths.size());
  for (const std::string& path : paths) {
    NIXQ_ASSIGN_OR_RETURN(bool row, statement.Bind(path).Step());
    known.push_back(row);
  }
  return known;
}

}  // namespace nixq
