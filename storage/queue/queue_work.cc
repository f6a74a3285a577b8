// Claiming jobs and settling them.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/queue/queue_impl.h"

namespace nixq {
namespace {

constexpr size_t kMaxErrorBytes = 2048;

// Each piece walks an index and stops at the limit; together they are few
// enough to be put in the order of age.
constexpr std::string_view kClaim =
    "SELECT j.id, j.path_id, j.attempts, j.queued_unix_ms, p.path, p.deriver, "
    "p.system, p.source FROM (SELECT id FROM ("
    "SELECT id, tried FROM (SELECT id, 0 AS tried FROM jobs WHERE "
    "target_id = ?1 AND state = 'queued' AND next_attempt_unix_ms = 0 "
    "ORDER BY id LIMIT ?4) "
    "UNION ALL "
    "SELECT id, tried FROM (SELECT id, next_attempt_unix_ms AS tried FROM jobs "
    "WHERE target_id = ?1 AND state = 'queued' AND "
    "next_attempt_unix_ms BETWEEN 1 AND ?2 "
    "ORDER BY next_attempt_unix_ms LIMIT ?4) "
    "UNION ALL "
    "SELECT id, tried FROM (SELECT id, 0 AS tried FROM jobs WHERE "
    "target_id = ?1 AND state = 'queued' AND next_attempt_unix_ms > ?3 "
    "LIMIT ?4) "
    "UNION ALL "
    "SELECT id, tried FROM (SELECT id, lease_unix_ms AS tried FROM jobs WHERE "
    "target_id = ?1 AND state = 'sending' AND lease_unix_ms <= ?2 LIMIT ?4)) "
    "ORDER BY iif(?5, tried, 0), id LIMIT ?4) AS due "
    "CROSS JOIN jobs j ON j.id = due.id CROSS JOIN paths p ON p.id = j.path_id";

constexpr std::string_view kLease =
    "UPDATE jobs SET state = 'sending', lease_unix_ms = ?2, "
    "changed_unix_ms = ?3 WHERE id = ?1";

absl::StatusOr<std::vector<ClaimedJob>> SelectDue(Database& database,
                                                  int64_t target_id,
                                                  size_t limit,
                                                  ClaimOrder order,
                                                  int64_t now_ms) {
  NIXQ_ASSIGN_OR_RETURN(Statement select, database.Prepare(kClaim));
  select.Bind(target_id, now_ms, now_ms + kFarFutureMs, limit,
              order == ClaimOrder::kLongestUntriedFirst);
  std::vector<ClaimedJob> jobs;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
    if (!row) return jobs;
    ClaimedJob job;
    job.job_id = select.Int(0);
    job.path_id = select.Int(1);
    job.target_id = target_id;
    job.attempts = static_cast<int>(select.Int(2));
    job.queued_at = FromRow(select.Int(3));
    job.path = select.Text(4);
    job.deriver = select.Text(5);
    job.system = select.Text(6);
    job.source = select.Text(7);
    jobs.push_back(std::move(job));
  }
}

// One reference at a time, inside the caller's transaction.
class ReferenceClaimer {
 public:
  ReferenceClaimer(Database& database, int64_t target_id, int64_t now_ms,
                   int64_t lease_ms)
      : database_(database),
        target_id_(target_id),
        now_ms_(now_ms),
        lease_ms_(lease_ms) {}

  absl::StatusOr<Queue::ReferenceClaim> Claim(int64_t path_id) {
    NIXQ_ASSIGN_OR_RETURN(
        Statement find,
        database_.Prepare(
            "SELECT j.id, j.state, j.lease_unix_ms, j.attempts, "
            "j.queued_unix_ms, j.error_text, p.path, p.deriver, p.system, "
            "p.source "
            "FROM paths p LEFT JOIN jobs j ON j.path_id = p.id AND "
            "j.target_id = ?2 WHERE p.id = ?1"));
    NIXQ_ASSIGN_OR_RETURN(bool row, find.Bind(path_id, target_id_).Step());
    if (!row) return absl::InternalError("a path without its row");
    Queue::ReferenceClaim claim;
    claim.path = find.Text(6);
    claim.state = JobStateFromName(find.Text(1));
    bool is_new = find.IsNull(0);
    bool taken = claim.state == JobState::kSending && find.Int(2) > now_ms_;
    if (!is_new && (taken || claim.state == JobState::kParked)) {
      claim.error_text = find.Text(5);
      return claim;
    }
    ClaimedJob job;
    job.path_id = path_id;
    job.target_id = target_id_;
    job.path = claim.path;
    job.deriver = find.Text(7);
    job.system = find.Text(8);
    job.source = find.Text(9);
    bool starts_over = is_new || claim.state == JobState::kDone;
    job.attempts = starts_over ? 0 : static_cast<int>(find.Int(3));
    job.queued_at = FromRow(starts_over ? now_ms_ : find.Int(4));
    job.job_id = find.Int(0);
    claim.state = JobState::kSending;
    if (starts_over) {
      NIXQ_ASSIGN_OR_RETURN(job.job_id, Begin(path_id));
    } else {
      NIXQ_ASSIGN_OR_RETURN(Statement lease, database_.Prepare(kLease));
      NIXQ_RETURN_IF_ERROR(lease.Bind(job.job_id, lease_ms_, now_ms_).Run());
    }
    claim.job = std::move(job);
    return claim;
  }

 private:
  // A job that is new or was done: sending, as if just queued.
  absl::StatusOr<int64_t> Begin(int64_t path_id) {
    NIXQ_ASSIGN_OR_RETURN(
        Statement put,
        database_.Prepare(
            "INSERT INTO jobs (path_id, target_id, state, lease_unix_ms, "
            "queued_unix_ms, changed_unix_ms) "
            "VALUES (?1, ?2, 'sending', ?3, ?4, ?4) "
            "ON CONFLICT (path_id, target_id) DO UPDATE SET "
            "state = 'sending', outcome = '', attempts = 0, "
            "next_attempt_unix_ms = 0, lease_unix_ms = ?3, error_code = '', "
            "error_text = '', sent_size_bytes = 0, duration_ms = 0, "
            "queued_unix_ms = ?4, changed_unix_ms = ?4 RETURNING id"));
    put.Bind(path_id, target_id_, lease_ms_, now_ms_);
    NIXQ_ASSIGN_OR_RETURN(bool row, put.Step());
    if (!row) return absl::InternalError("RETURNING gave nothing");
    int64_t id = put.Int(0);
    NIXQ_RETURN_IF_ERROR(put.Run());
    return id;
  }

  Database& database_;
  int64_t target_id_;
  int64_t now_ms_;
  int64_t lease_ms_;
};

// Whether waiting for the reference makes sense: its job is there and open.
// Otherwise nothing would ever end the wait.
absl::StatusOr<bool> StillBlocks(Database& database,
                                 const std::string& reference,
                                 int64_t target_id, int64_t* reference_id) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement find,
      database.Prepare("SELECT p.id FROM paths p JOIN jobs j ON "
                       "j.path_id = p.id AND j.target_id = ?2 "
                       "WHERE p.path = ?1 AND j.state <> 'done'"));
  NIXQ_ASSIGN_OR_RETURN(bool row, find.Bind(reference, target_id).Step());
  if (row) *reference_id = find.Int(0);
  return row;
}

// What a settlement writes into its row.
struct JobUpdate {
  JobState state = JobState::kDone;
  JobOutcome outcome = JobOutcome::kNone;
  int attempts_more = 1;
  int64_t next_attempt_ms = 0;
  bool keep_error = false;
  std::optional<int64_t> blocked_by;
};

absl::StatusOr<JobUpdate> UpdateFor(Database& database,
                                    const Settlement& settlement,
                                    int64_t target_id) {
  JobUpdate update;
  switch (settlement.verb) {
    case Settlement::Verb::kDone:
      update.outcome = settlement.outcome;
      return update;
    case Settlement::Verb::kRetry:
      update.state = JobState::kQueued;
      update.next_attempt_ms = ToRow(settlement.next_attempt);
      return update;
    case Settlement::Verb::kRelease:
      update.state = JobState::kQueued;
      update.attempts_more = 0;
      update.next_attempt_ms = ToRow(settlement.next_attempt);
      update.keep_error = settlement.error_text.empty();
      return update;
    case Settlement::Verb::kPark:
      break;
  }
  update.state = JobState::kParked;
  if (!settlement.blocked_by) return update;
  int64_t reference_id = 0;
  NIXQ_ASSIGN_OR_RETURN(
      bool blocks,
      StillBlocks(database, *settlement.blocked_by, target_id, &reference_id));
  if (blocks) {
    update.blocked_by = reference_id;
  } else {
    update.state = JobState::kQueued;
  }
  return update;
}

absl::Status ReviveBlockedBy(Database& database, int64_t path_id,
                             int64_t target_id, int64_t now_ms) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement revive,
      database.Prepare("UPDATE jobs SET state = 'queued', attempts = 0, "
                       "next_attempt_unix_ms = 0, error_code = '', "
                       "error_text = '', blocked_by = NULL, "
                       "changed_unix_ms = ?3 WHERE blocked_by = ?1 AND "
                       "target_id = ?2 AND state = 'parked'"));
  return revive.Bind(path_id, target_id, now_ms).Run();
}

}  // namespace

absl::StatusOr<std::vector<ClaimedJob>> Queue::Claim(int64_t target_id,
                                                     size_t limit,
                                                     absl::Time lease_until,
                                                     ClaimOrder order) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  int64_t now_ms = impl_->NowMs();
  NIXQ_ASSIGN_OR_RETURN(std::vector<ClaimedJob> jobs,
                        SelectDue(database, target_id, limit, order, now_ms));
  if (jobs.empty()) return jobs;
  NIXQ_ASSIGN_OR_RETURN(Statement lease, database.Prepare(kLease));
  for (const ClaimedJob& job : jobs) {
    NIXQ_RETURN_IF_ERROR(
        lease.Bind(job.job_id, ToRow(lease_until), now_ms).Run());
  }
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return jobs;
}

absl::StatusOr<std::vector<Queue::ReferenceClaim>> Queue::ClaimReferences(
    int64_t target_id, const std::vector<NewPath>& references,
    absl::Time lease_until) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  ReferenceClaimer claimer(database, target_id, impl_->NowMs(),
                           ToRow(lease_until));
  std::vector<ReferenceClaim> claims;
  claims.reserve(references.size());
  for (NewPath reference : references) {
    reference.root = RootState::kNone;
    reference.source = kReferenceSource;
    NIXQ_ASSIGN_OR_RETURN(int64_t path_id, impl_->PutPath(reference));
    NIXQ_ASSIGN_OR_RETURN(ReferenceClaim claim, claimer.Claim(path_id));
    claims.push_back(std::move(claim));
  }
  NIXQ_RETURN_IF_ERROR(transaction.Commit());
  return claims;
}

absl::Status Queue::RenewLeases(const std::vector<int64_t>& job_ids,
                                absl::Time lease_until) {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(
      Statement renew,
      database.Prepare("UPDATE jobs SET lease_unix_ms = ?2 WHERE id = ?1 AND "
                       "state = 'sending'"));
  for (int64_t id : job_ids) {
    NIXQ_RETURN_IF_ERROR(renew.Bind(id, ToRow(lease_until)).Run());
  }
  return transaction.Commit();
}

absl::Status Queue::Impl::SettleOne(const Settlement& settlement) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement find,
      database.Prepare("SELECT path_id, target_id FROM jobs WHERE id = ?1 AND "
                       "state = 'sending'"));
  NIXQ_ASSIGN_OR_RETURN(bool there, find.Bind(settlement.job_id).Step());
  if (!there) return absl::OkStatus();
  int64_t path_id = find.Int(0);
  int64_t target_id = find.Int(1);
  NIXQ_ASSIGN_OR_RETURN(JobUpdate update,
                        UpdateFor(database, settlement, target_id));
  NIXQ_ASSIGN_OR_RETURN(
      Statement write,
      database.Prepare(
          "UPDATE jobs SET state = ?2, outcome = ?3, attempts = attempts + ?4, "
          "next_attempt_unix_ms = ?5, lease_unix_ms = 0, "
          "error_code = iif(?6, error_code, ?7), "
          "error_text = iif(?6, error_text, ?8), blocked_by = ?9, "
          "sent_size_bytes = ?10, duration_ms = ?11, changed_unix_ms = ?12 "
          "WHERE id = ?1"));
  write.Bind(settlement.job_id, Name(update.state), Name(update.outcome),
             update.attempts_more, update.next_attempt_ms, update.keep_error,
             settlement.error_code,
             Printable(settlement.error_text, kMaxErrorBytes),
             update.blocked_by, settlement.sent_size_bytes,
             absl::ToInt64Milliseconds(settlement.duration), NowMs());
  NIXQ_RETURN_IF_ERROR(write.Run());
  if (settlement.nar_size_bytes != 0) {
    NIXQ_ASSIGN_OR_RETURN(
        Statement size,
        database.Prepare("UPDATE paths SET nar_size_bytes = ?2 WHERE id = ?1 "
                         "AND nar_size_bytes <> ?2"));
    NIXQ_RETURN_IF_ERROR(size.Bind(path_id, settlement.nar_size_bytes).Run());
  }
  if (update.state != JobState::kDone) return absl::OkStatus();
  return ReviveBlockedBy(database, path_id, target_id, NowMs());
}

absl::Status Queue::Settle(const std::vector<Settlement>& settlements) {
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction,
                        Transaction::Begin(impl_->database));
  for (const Settlement& settlement : settlements) {
    NIXQ_RETURN_IF_ERROR(impl_->SettleOne(settlement));
  }
  return transaction.Commit();
}

absl::StatusOr<int64_t> Queue::ReleaseAll() {
  NIXQ_ASSIGN_OR_RETURN(
      Statement release,
      impl_->database.Prepare(
          "UPDATE jobs SET state = 'queued', next_attempt_unix_ms = 0, "
          "lease_unix_ms = 0, changed_unix_ms = ?1 WHERE state = 'sending'"));
  NIXQ_RETURN_IF_ERROR(release.Bind(impl_->NowMs()).Run());
  return impl_->database.Changes();
}

absl::Status Queue::EndWaits() {
  Database& database = impl_->database;
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(
      Statement jobs,
      database.Prepare("UPDATE jobs SET next_attempt_unix_ms = ?1 WHERE "
                       "state = 'queued' AND next_attempt_unix_ms > ?1"));
  NIXQ_RETURN_IF_ERROR(jobs.Bind(impl_->NowMs()).Run());
  NIXQ_ASSIGN_OR_RETURN(
      Statement derivations,
      database.Prepare("UPDATE derivations SET next_attempt_unix_ms = ?1 "
                       "WHERE next_attempt_unix_ms > ?1"));
  NIXQ_RETURN_IF_ERROR(derivations.Bind(impl_->NowMs()).Run());
  return transaction.Commit();
}

absl::StatusOr<std::vector<std::pair<std::string, int64_t>>>
Queue::LeftBehind() {
  // One count for each state, since its index is for that state alone.
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      impl_->database.Prepare(
          "SELECT name, open FROM (SELECT name, "
          "(SELECT count(*) FROM jobs WHERE target_id = t.id AND "
          "state = 'queued') + "
          "(SELECT count(*) FROM jobs WHERE target_id = t.id AND "
          "state = 'sending') + "
          "(SELECT count(*) FROM jobs WHERE target_id = t.id AND "
          "state = 'parked') AS open FROM targets t WHERE NOT configured) "
          "WHERE open > 0 ORDER BY name"));
  std::vector<std::pair<std::string, int64_t>> left;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
    if (!row) return left;
    left.emplace_back(select.Text(0), select.Int(1));
  }
}

absl::StatusOr<std::optional<absl::Time>> Queue::NextDue(absl::Time after) {
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      impl_->database.Prepare(
          "SELECT min(next) FROM ("
          "SELECT (SELECT next_attempt_unix_ms FROM jobs WHERE "
          "target_id = t.id AND state = 'queued' AND "
          "next_attempt_unix_ms > ?1 ORDER BY next_attempt_unix_ms LIMIT 1) "
          "AS next FROM targets t WHERE configured AND NOT paused "
          "UNION ALL "
          "SELECT min(next_attempt_unix_ms) FROM derivations "
          "WHERE next_attempt_unix_ms > ?1)"));
  // Fresh rows have 0, which is after the infinite past.
  const int64_t after_ms = after < absl::UnixEpoch() ? -1 : ToRow(after);
  NIXQ_ASSIGN_OR_RETURN(bool row, select.Bind(after_ms).Step());
  if (!row || select.IsNull(0)) return std::nullopt;
  return FromRow(select.Int(0));
}

}  // namespace nixq
