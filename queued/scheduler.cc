#include "queued/scheduler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {

struct Scheduler::Target {
  struct Batched {
    ClaimedJob job;
    PathInfo info;
  };

  Target(const TargetRow& row, const TargetLimits& target_limits,
         RetryPolicy policy, Random& random)
      : circuit(row, policy, random), limits(target_limits) {}

  int64_t id() const { return circuit.row().id; }
  int in_flight() const {
    return sending + showing + (claiming ? 1 : 0) + (copying ? 1 : 0);
  }
  size_t claimed() const {
    return graph.size() + batch_waiting.size() + batch_running.size();
  }

  Circuit circuit;
  TargetLimits limits;
  UploadGraph graph;
  std::map<StorePath, Batched> batch_waiting;
  std::map<StorePath, Batched> batch_running;
  bool maybe_due = true;
  bool claiming = false;  // a claim or its plan is under way
  bool copying = false;
  int sending = 0;
  int large_sending = 0;
  int showing = 0;
};

Scheduler::Scheduler(RetryPolicy policy, Random& random)
    : policy_(policy), random_(random) {}
Scheduler::~Scheduler() = default;

void Scheduler::AddTarget(const TargetRow& row, const TargetLimits& limits) {
  targets_[row.id] = std::make_unique<Target>(row, limits, policy_, random_);
}

void Scheduler::RefreshTarget(const TargetRow& row) {
  if (auto it = targets_.find(row.id); it != targets_.end()) {
    it->second->circuit.Refresh(row);
  }
}

void Scheduler::EndWaits() {
  for (auto& [id, target] : targets_) target->circuit.EndWait();
  store_retry_at_.reset();
}

void Scheduler::Poke(int64_t target_id) {
  for (auto& [id, target] : targets_) {
    if (target_id == 0 || target_id == id) target->maybe_due = true;
  }
}

Scheduler::Target& Scheduler::Get(int64_t target_id) {
  return *targets_.at(target_id);
}

// --- Starting ---------------------------------------------------------------

std::vector<Action> Scheduler::Next(absl::Time now) {
  std::vector<Action> actions;
  for (auto& [id, target] : targets_) {
    if (target->limits.flow == TargetLimits::Flow::kBatch) {
      StartBatch(*target, now, actions);
    } else {
      StartGraph(*target, now, actions);
    }
    Claim(*target, now, actions);
  }
  return actions;
}

// Whether a claim would bring anything, when its time has come.
bool Scheduler::MayClaim(const Target& target) {
  if (!target.maybe_due || target.claiming) return false;
  // A batch is sent whole before the next one is claimed.
  return target.claimed() < (target.limits.flow == TargetLimits::Flow::kBatch
                                 ? 1
                                 : target.limits.window);
}

void Scheduler::Claim(Target& target, absl::Time now,
                      std::vector<Action>& actions) {
  if (!MayClaim(target)) return;
  if (store_retry_at_.has_value() && now < *store_retry_at_) return;
  if (!target.circuit.MayStart(now, target.in_flight())) return;
  target.claiming = true;
  actions.push_back(Action{
      .kind = Action::Kind::kClaim,
      .target_id = target.id(),
      .started = now,
      .limit =
          target.circuit.open() ? 1 : target.limits.window - target.claimed(),
      .order = target.circuit.open() ? ClaimOrder::kLongestUntriedFirst
                                     : ClaimOrder::kOldestFirst,
      .info = std::nullopt,
      .show = false,
      .narinfo = std::nullopt,
      .paths = {}});
}

void Scheduler::StartGraph(Target& target, absl::Time now,
                           std::vector<Action>& actions) {
  Action action;
  action.target_id = target.id();
  action.started = now;
  while (target.sending + target.showing < target.limits.in_flight &&
         target.circuit.MayStart(now, target.in_flight())) {
    std::optional<StorePath> path = target.graph.NextShow();
    if (!path.has_value()) break;
    action.kind = Action::Kind::kShow;
    action.narinfo = target.graph.Find(*path)->narinfo;
    ++target.showing;
    actions.push_back(action);
  }
  action.narinfo.reset();
  action.kind = Action::Kind::kSend;
  while (target.sending + target.showing < target.limits.in_flight &&
         target.circuit.MayStart(now, target.in_flight())) {
    std::optional<uint64_t> at_most;
    if (target.large_sending >= target.limits.large_in_flight) {
      at_most = target.limits.large_bytes;
    }
    std::optional<StorePath> path = target.graph.NextNar(at_most, now);
    if (!path.has_value()) break;
    const UploadGraph::Node& node = *target.graph.Find(*path);
    action.info = node.info;
    action.show = node.waits_for.empty();
    ++target.sending;
    if (node.info.nar_size_bytes > target.limits.large_bytes) {
      ++target.large_sending;
    }
    actions.push_back(action);
  }
}

void Scheduler::StartBatch(Target& target, absl::Time now,
                           std::vector<Action>& actions) {
  if (target.batch_waiting.empty() || target.copying) return;
  if (!target.circuit.MayStart(now, target.in_flight())) return;
  Action action;
  action.kind = Action::Kind::kCopy;
  action.target_id = target.id();
  action.started = now;
  uint64_t bytes = 0;
  while (!target.batch_waiting.empty()) {
    auto it = target.batch_waiting.begin();
    bytes += it->second.info.nar_size_bytes;
    if (bytes > target.limits.batch_bytes && !action.paths.empty()) break;
    action.paths.push_back(it->second.info);
    target.batch_running.insert(target.batch_waiting.extract(it));
  }
  target.copying = true;
  actions.push_back(std::move(action));
}

// --- Claims and plans -------------------------------------------------------

void Scheduler::Claimed(int64_t target_id, size_t limit, size_t count) {
  Target& target = Get(target_id);
  if (count < limit) target.maybe_due = false;
  if (count == 0) target.claiming = false;
}

void Scheduler::NotClaimed(int64_t target_id) {
  Get(target_id).claiming = false;
}

void Scheduler::Planned(int64_t target_id, absl::Time started, absl::Time now,
                        const std::vector<ClaimedJob>& jobs, Plan plan,
                        const std::vector<Queue::ReferenceClaim>& references) {
  Target& target = Get(target_id);
  target.claiming = false;
  if (IsPathsFault(plan.status)) {
    for (const ClaimedJob& job : jobs) {
      settlements_.push_back(FailJob(target, job, plan.status, now));
    }
    return;
  }
  if (!plan.status.ok()) {
    absl::Time next = now;
    if (plan.store_failed &&
        plan.status.code() != absl::StatusCode::kCancelled) {
      ++store_failures_;
      next = now + Backoff(policy_, store_failures_, random_.NextUnit(),
                           std::nullopt);
      store_retry_at_ = next;
      target.maybe_due = true;
    } else if (VerdictOf(plan.status) != Verdict::kRelease) {
      TargetFailed(target, plan.status, started, now);
    }
    for (const ClaimedJob& job : jobs) {
      Release(target, job, next, Printable(std::string(plan.status.message())));
    }
    return;
  }
  store_failures_ = 0;
  store_retry_at_.reset();
  // Of a target in trouble a plan proves nothing as long as there is something
  // to send: a server may answer questions and take no uploads.
  const bool proves = !target.circuit.open() || plan.missing.empty();
  if (target.limits.flow != TargetLimits::Flow::kBatch && proves) {
    target.circuit.Succeeded(now);
  }
  for (const Plan::Finished& done : plan.finished) {
    Finish(target, done.job, done.outcome, done.reason, done.nar_size_bytes, 0,
           absl::ZeroDuration());
  }
  for (const Plan::Failed& failed : plan.failed) {
    settlements_.push_back(FailJob(target, failed.job, failed.status, now));
  }
  AddMissing(target, now, std::move(plan), references);
}

void Scheduler::AddMissing(
    Target& target, absl::Time now, Plan plan,
    const std::vector<Queue::ReferenceClaim>& references) {
  std::vector<Plan::Missing> adding = std::move(plan.missing);
  // Why paths that reference one of these cannot go on now.
  struct Obstacle {
    std::string parked_path;  // "": none is parked, it only takes a while
    std::string why;
  };
  std::map<StorePath, Obstacle> obstacles;
  for (size_t i = 0; i < references.size(); ++i) {
    const Queue::ReferenceClaim& claim = references[i];
    const PathInfo& info = plan.missing_references[i];
    if (claim.job.has_value()) {
      adding.push_back({*claim.job, info});
    } else if (claim.state == JobState::kParked) {
      obstacles[info.path] = {claim.path, claim.error_text};
    } else if (target.graph.Find(info.path) == nullptr) {
      obstacles[info.path] = {"", "its reference is being sent"};
    }
  }
  // What references an obstacle is one itself.
  for (bool changed = !obstacles.empty(); changed;) {
    changed = false;
    for (const Plan::Missing& missing : adding) {
      if (obstacles.contains(missing.info.path)) continue;
      for (const StorePath& reference : missing.info.references) {
        auto it = obstacles.find(reference);
        if (it == obstacles.end()) continue;
        const Obstacle obstacle = it->second;
        obstacles[missing.info.path] = obstacle;
        changed = true;
        break;
      }
    }
  }
  for (Plan::Missing& missing : adding) {
    if (auto it = obstacles.find(missing.info.path); it != obstacles.end()) {
      if (it->second.parked_path.empty()) {
        Release(target, missing.job, now + policy_.min_delay, it->second.why);
      } else {
        Block(target, missing.job, it->second.parked_path, it->second.why);
      }
    } else if (target.limits.flow == TargetLimits::Flow::kBatch) {
      const StorePath path = missing.info.path;
      target.batch_waiting.insert_or_assign(
          path,
          Target::Batched{std::move(missing.job), std::move(missing.info)});
    } else {
      target.graph.Add(missing.job, missing.info);
    }
  }
}

// --- What came of operations ------------------------------------------------

void Scheduler::Sent(int64_t target_id, const StorePath& path,
                     absl::Time started, absl::Time now, SendResult result) {
  Target& target = Get(target_id);
  const UploadGraph::Node* node = target.graph.Find(path);
  --target.sending;
  if (node->info.nar_size_bytes > target.limits.large_bytes) {
    --target.large_sending;
  }
  if (!result.narinfo.ok()) {
    FailNode(target, path, result.narinfo.status(), started, now);
    return;
  }
  if (node->orphaned) {
    for (const UploadGraph::Node& gone : target.graph.Fail(path)) {
      Release(target, gone.job, now + policy_.min_delay,
              "a reference was not sent");
    }
    return;
  }
  target.graph.Sent(path, *std::move(result.narinfo));
  if (!result.was_shown) {
    target.circuit.Succeeded(now);
  } else if (result.shown.ok()) {
    target.circuit.Succeeded(now);
    FinishNode(target, path, now);
  } else {
    FailNode(target, path, result.shown, started, now);
  }
}

void Scheduler::Shown(int64_t target_id, const StorePath& path,
                      absl::Time started, absl::Time now,
                      const absl::Status& status) {
  Target& target = Get(target_id);
  --target.showing;
  if (!status.ok()) {
    FailNode(target, path, status, started, now);
    return;
  }
  target.circuit.Succeeded(now);
  FinishNode(target, path, now);
}

void Scheduler::Copied(int64_t target_id, absl::Time started, absl::Time now,
                       const std::vector<CopyResult>& results) {
  Target& target = Get(target_id);
  target.copying = false;
  for (const CopyResult& result : results) {
    auto it = target.batch_running.find(result.path);
    if (it == target.batch_running.end()) continue;
    const Target::Batched batched = std::move(it->second);
    target.batch_running.erase(it);
    if (result.status.ok()) {
      target.circuit.Succeeded(now);
      Finish(target, batched.job, JobOutcome::kSent, "",
             batched.info.nar_size_bytes, batched.info.nar_size_bytes,
             now - started);
      continue;
    }
    if (!IsPathsFault(result.status) &&
        VerdictOf(result.status) != Verdict::kRelease) {
      TargetFailed(target, result.status, started, now);
    }
    settlements_.push_back(FailJob(target, batched.job, result.status, now));
  }
  // A batch that came back without naming a path has not sent it.
  for (const auto& [path, batched] : target.batch_running) {
    Release(target, batched.job, now + policy_.min_delay, "not reported");
  }
  target.batch_running.clear();
}

void Scheduler::FinishNode(Target& target, const StorePath& path,
                           absl::Time now) {
  const UploadGraph::Node node = target.graph.Shown(path);
  Finish(target, node.job, JobOutcome::kSent, "", node.info.nar_size_bytes,
         node.narinfo->file_size_bytes, now - node.started);
}

void Scheduler::FailNode(Target& target, const StorePath& path,
                         const absl::Status& status, absl::Time started,
                         absl::Time now) {
  const std::vector<UploadGraph::Node> failed = target.graph.Fail(path);
  if (!IsPathsFault(status) && VerdictOf(status) != Verdict::kRelease &&
      VerdictOf(status) != Verdict::kPark) {
    TargetFailed(target, status, started, now);
  }
  const Settlement first = FailJob(target, failed.front().job, status, now);
  settlements_.push_back(first);
  for (size_t i = 1; i < failed.size(); ++i) {
    if (first.verb == Settlement::Verb::kPark) {
      Block(target, failed[i].job, failed.front().job.path, first.error_text);
    } else {
      Release(target, failed[i].job,
              std::max(first.next_attempt, now + policy_.min_delay),
              "waits for its reference " + failed.front().job.path);
    }
  }
}

void Scheduler::TargetFailed(Target& target, const absl::Status& status,
                             absl::Time started, absl::Time now) {
  // What breaks off while everything is being stopped says nothing.
  if (!stopping_) target.circuit.Failed(status, started, now);
  target.maybe_due = true;
  LetGo(target, now);
}

void Scheduler::LetGo(Target& target, absl::Time now) {
  for (const UploadGraph::Node& node : target.graph.Drop()) {
    Release(target, node.job, now, "");
  }
  for (const auto& [path, batched] : target.batch_waiting) {
    Release(target, batched.job, now, "");
  }
  target.batch_waiting.clear();
}

void Scheduler::Abandon() {
  stopping_ = true;
  for (auto& [id, target] : targets_) LetGo(*target, absl::UnixEpoch());
}

// --- Settling ---------------------------------------------------------------

Settlement Scheduler::FailJob(Target& target, const ClaimedJob& job,
                              const absl::Status& status, absl::Time now) {
  Settlement settlement;
  settlement.job_id = job.job_id;
  settlement.error_code = std::string(CodeName(status.code()));
  settlement.error_text = Printable(std::string(status.message()));
  settlement.next_attempt = now;
  Verdict verdict = VerdictOf(status);
  if (stopping_ &&
      (verdict == Verdict::kRetry || verdict == Verdict::kRetryBounded)) {
    // It broke off before it heard of the stop.
    verdict = Verdict::kRelease;
  }
  switch (verdict) {
    case Verdict::kRetryBounded:
    case Verdict::kRetry:
      settlement.verb = Settlement::Verb::kRetry;
      settlement.next_attempt =
          now + Backoff(policy_, job.attempts + 1, random_.NextUnit(),
                        RetryAfterOf(status));
      if (verdict == Verdict::kRetryBounded &&
          job.attempts + 1 >= policy_.max_attempts) {
        settlement.verb = Settlement::Verb::kPark;
      }
      break;
    case Verdict::kRefused:
    case Verdict::kRelease:
      settlement.verb = Settlement::Verb::kRelease;
      break;
    case Verdict::kPark:
    case Verdict::kCorrupt:
      settlement.verb = Settlement::Verb::kPark;
      break;
  }
  target.maybe_due = true;
  Note note;
  note.path = job.path;
  note.target_id = target.id();
  note.verb = settlement.verb;
  note.corrupt = verdict == Verdict::kCorrupt;
  note.status = status;
  note.attempt = job.attempts + 1;
  if (settlement.verb == Settlement::Verb::kRetry) {
    note.next_attempt = settlement.next_attempt;
  }
  notes_.push_back(std::move(note));
  return settlement;
}

void Scheduler::Release(Target& target, const ClaimedJob& job,
                        absl::Time next_attempt, const std::string& why) {
  Settlement settlement;
  settlement.job_id = job.job_id;
  settlement.verb = Settlement::Verb::kRelease;
  settlement.next_attempt = stopping_ ? absl::UnixEpoch() : next_attempt;
  settlement.error_text = why;
  settlements_.push_back(std::move(settlement));
  target.maybe_due = true;
}

void Scheduler::Block(Target& target, const ClaimedJob& job,
                      const std::string& by, const std::string& why) {
  Settlement settlement;
  settlement.job_id = job.job_id;
  settlement.verb = Settlement::Verb::kPark;
  settlement.error_code = "blocked";
  settlement.error_text = "its reference " + by + " is parked: " + why;
  settlement.blocked_by = by;
  settlements_.push_back(settlement);
  Note note;
  note.path = job.path;
  note.target_id = target.id();
  note.verb = Settlement::Verb::kPark;
  note.status = absl::FailedPreconditionError(settlement.error_text);
  note.attempt = job.attempts;
  notes_.push_back(std::move(note));
}

void Scheduler::Finish(Target& target, const ClaimedJob& job,
                       JobOutcome outcome, const std::string& reason,
                       uint64_t nar_size, uint64_t sent_size,
                       absl::Duration duration) {
  Settlement settlement;
  settlement.job_id = job.job_id;
  settlement.verb = Settlement::Verb::kDone;
  settlement.outcome = outcome;
  settlement.error_text = reason;
  settlement.nar_size_bytes = nar_size;
  settlement.sent_size_bytes = sent_size;
  settlement.duration = duration;
  settlements_.push_back(std::move(settlement));
  // Jobs that were blocked by this path are due now.
  target.maybe_due = true;
  Note note;
  note.path = job.path;
  note.target_id = target.id();
  note.verb = Settlement::Verb::kDone;
  note.outcome = outcome;
  note.status = reason.empty() ? absl::OkStatus() : absl::UnknownError(reason);
  note.attempt = job.attempts + 1;
  note.nar_size_bytes = nar_size;
  note.sent_size_bytes = sent_size;
  note.duration = duration;
  notes_.push_back(std::move(note));
}

// --- What the daemon asks ---------------------------------------------------

std::vector<Settlement> Scheduler::TakeSettlements() {
  return std::exchange(settlements_, {});
}

std::vector<Scheduler::Note> Scheduler::TakeNotes() {
  return std::exchange(notes_, {});
}

std::vector<TargetRow> Scheduler::TakeHealth(absl::Time now) {
  std::vector<TargetRow> rows;
  for (auto& [id, target] : targets_) {
    if (target->circuit.TakeDirty(now)) rows.push_back(target->circuit.row());
  }
  return rows;
}

std::optional<absl::Time> Scheduler::NextProbe() const {
  std::optional<absl::Time> next;
  for (const auto& [id, target] : targets_) {
    const Circuit& circuit = target->circuit;
    if (circuit.row().paused) continue;
    // The probe that is under way brings an event.
    if (circuit.open() && target->in_flight() > 0) continue;
    const absl::Time earliest =
        circuit.open() ? circuit.retry_at() : absl::InfinitePast();
    std::optional<absl::Time> at;
    if (circuit.open() && !target->batch_waiting.empty()) at = earliest;
    if (MayClaim(*target) && (circuit.open() || store_retry_at_.has_value())) {
      at = std::max(earliest, store_retry_at_.value_or(earliest));
    }
    if (at.has_value() && (!next.has_value() || *at < *next)) next = at;
  }
  return next;
}

std::vector<int64_t> Scheduler::JobIds() const {
  std::vector<int64_t> ids;
  for (const auto& [id, target] : targets_) {
    std::vector<int64_t> of_graph = target->graph.JobIds();
    ids.insert(ids.end(), of_graph.begin(), of_graph.end());
    for (const auto* batch : {&target->batch_waiting, &target->batch_running}) {
      for (const auto& [path, batched] : *batch) {
        ids.push_back(batched.job.job_id);
      }
    }
  }
  return ids;
}

bool Scheduler::Idle() const {
  return std::all_of(targets_.begin(), targets_.end(), [](const auto& entry) {
    return entry.second->in_flight() == 0 && entry.second->claimed() == 0;
  });
}

}  // namespace nixq
