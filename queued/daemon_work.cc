// The daemon's work: carrying out what the scheduler says, and writing down
// what became of it.
#include <utility>

#include "queued/daemon.h"
#include "queued/prune.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr size_t kDerivationsAtOnce = 50;
constexpr absl::Duration kSettleAgain = absl::Seconds(1);

}  // namespace

void Daemon::StartActions(absl::Time now) {
  if (stopping_) return;
  for (Action& action : scheduler_.Next(now)) {
    if (action.kind == Action::Kind::kClaim && queue_again_at_.has_value()) {
      scheduler_.NotClaimed(action.target_id);
      continue;
    }
    switch (action.kind) {
      case Action::Kind::kClaim:
        StartClaim(action);
        break;
      case Action::Kind::kSend:
        StartSend(std::move(action));
        break;
      case Action::Kind::kShow:
        StartShow(std::move(action));
        break;
      case Action::Kind::kCopy:
        StartCopy(std::move(action));
        break;
    }
  }
}

// --- Claims and plans -------------------------------------------------------

void Daemon::StartClaim(const Action& action) {
  absl::StatusOr<std::vector<ClaimedJob>> jobs =
      queue_.Claim(action.target_id, action.limit,
                   parts_.clock.Now() + kLeaseLength, action.order);
  if (!Wrote("claim", jobs.status())) {
    // Whatever it is, the queue would say the same at once.
    if (!queue_again_at_.has_value()) {
      queue_again_at_ = parts_.clock.Elapsed() + kSettleAgain;
    }
    scheduler_.NotClaimed(action.target_id);
    return;
  }
  scheduler_.Claimed(action.target_id, action.limit, jobs->size());
  if (!jobs->empty()) {
    StartPlan(TargetOf(action.target_id), action.started, *std::move(jobs));
  }
}

void Daemon::StartPlan(Target& target, absl::Time started,
                       std::vector<ClaimedJob> jobs) {
  pool_->Run([this, &target, started, jobs = std::move(jobs)] {
    std::unique_ptr<Transfers::Entry> entry =
        transfers_.Start({.path = jobs.size() == 1 ? jobs[0].path : "",
                          .target = target.config().name,
                          .phase = "planning",
                          .since = started});
    Plan plan = planner_.Make(target, jobs, cancel_);
    entry.reset();
    mailbox_.Post([this, id = target.id(), started, jobs,
                   plan = std::move(plan)]() mutable {
      FinishPlan(id, started, jobs, std::move(plan));
    });
  });
}

void Daemon::FinishPlan(int64_t target_id, absl::Time started,
                        const std::vector<ClaimedJob>& jobs, Plan plan) {
  const absl::Time now = parts_.clock.Now();
  if (!plan.status.ok() && !absl::IsCancelled(plan.status)) {
    log_.Warning("plan-failed", {{"target", TargetOf(target_id).config().name},
                                 {"jobs", static_cast<uint64_t>(jobs.size())},
                                 {"code", CodeName(plan.status.code())},
                                 {"why", std::string(plan.status.message())}});
  }
  // What was shown while this plan was made need not be sent again.
  std::erase_if(plan.missing_references, [&](const PathInfo& info) {
    return TargetOf(target_id).known().Contains(info.path, now);
  });
  std::vector<Queue::ReferenceClaim> claims;
  if (plan.status.ok() && !plan.missing_references.empty()) {
    std::vector<NewPath> references;
    for (const PathInfo& info : plan.missing_references) {
      NewPath path;
      path.path = store_dir_.Print(info.path);
      if (info.deriver.has_value()) {
        path.deriver = store_dir_.Print(*info.deriver);
      }
      path.source = kReferenceSource;
      path.nar_size_bytes = info.nar_size_bytes;
      path.root = RootState::kNone;
      references.push_back(std::move(path));
    }
    absl::StatusOr<std::vector<Queue::ReferenceClaim>> claimed =
        absl::UnavailableError("the queue could not be written just now");
    if (!queue_again_at_.has_value()) {
      claimed =
          queue_.ClaimReferences(target_id, references, now + kLeaseLength);
    }
    if (claimed.ok()) {
      claims = *std::move(claimed);
    } else {
      if (!queue_again_at_.has_value()) {
        Wrote("claim-references", claimed.status());
      }
      plan = Plan{};
      plan.status = claimed.status();
      plan.store_failed = true;
    }
  }
  scheduler_.Planned(target_id, started, now, jobs, std::move(plan), claims);
}

// --- Sending ----------------------------------------------------------------

void Daemon::StartSend(Action action) {
  Target& target = TargetOf(action.target_id);
  pool_->Run([this, &target, action = std::move(action)] {
    const PathInfo& info = *action.info;
    std::unique_ptr<Transfers::Entry> entry =
        transfers_.Start({.path = store_dir_.Print(info.path),
                          .target = target.config().name,
                          .phase = "sending",
                          .total_bytes = info.nar_size_bytes,
                          .since = action.started});
    Scheduler::SendResult result;
    result.narinfo = target.cache().SendNar(info, entry->progress(), cancel_);
    if (result.narinfo.ok() && action.show) {
      entry->set_phase("showing");
      result.shown = target.cache().Show(*result.narinfo, cancel_);
      result.was_shown = true;
      if (result.shown.ok()) target.known().Add(info.path, parts_.clock.Now());
    }
    entry.reset();
    mailbox_.Post([this, id = target.id(), path = info.path,
                   started = action.started,
                   result = std::move(result)]() mutable {
      scheduler_.Sent(id, path, started, parts_.clock.Now(), std::move(result));
    });
  });
}

void Daemon::StartShow(Action action) {
  Target& target = TargetOf(action.target_id);
  pool_->Run([this, &target, action = std::move(action)] {
    const StorePath path = action.narinfo->info.path;
    std::unique_ptr<Transfers::Entry> entry =
        transfers_.Start({.path = store_dir_.Print(path),
                          .target = target.config().name,
                          .phase = "showing",
                          .since = action.started});
    const absl::Status status = target.cache().Show(*action.narinfo, cancel_);
    if (status.ok()) target.known().Add(path, parts_.clock.Now());
    entry.reset();
    mailbox_.Post(
        [this, id = target.id(), path, started = action.started, status] {
          scheduler_.Shown(id, path, started, parts_.clock.Now(), status);
        });
  });
}

void Daemon::StartCopy(Action action) {
  Target& target = TargetOf(action.target_id);
  pool_->Run([this, &target, action = std::move(action)] {
    std::vector<StorePath> paths;
    uint64_t bytes = 0;
    for (const PathInfo& info : action.paths) {
      paths.push_back(info.path);
      bytes += info.nar_size_bytes;
    }
    std::unique_ptr<Transfers::Entry> entry = transfers_.Start(
        {.path = paths.size() == 1 ? store_dir_.Print(paths[0]) : "",
         .target = target.config().name,
         .phase = "copying",
         .total_bytes = bytes,
         .since = action.started});
    std::vector<Scheduler::CopyResult> results;
    for (CopyOutcome& outcome : target.ssh().Copy(
             paths, [&](uint64_t done) { entry->progress().store(done); },
             cancel_)) {
      results.push_back({outcome.path, std::move(outcome.status)});
    }
    entry.reset();
    mailbox_.Post([this, id = target.id(), started = action.started,
                   results = std::move(results)] {
      scheduler_.Copied(id, started, parts_.clock.Now(), results);
    });
  });
}

// --- Derivations ------------------------------------------------------------

void Daemon::ResolveDerivations() {
  if (resolving_ || stopping_) return;
  absl::StatusOr<std::vector<PendingDerivation>> due =
      queue_.DueDerivations(kDerivationsAtOnce);
  Say("derivations", due.status());
  if (!due.ok() || due->empty()) return;
  resolving_ = true;
  pool_->Run([this, due = *std::move(due)] {
    std::vector<std::pair<PendingDerivation, Outputs>> resolved;
    for (const PendingDerivation& derivation : due) {
      absl::StatusOr<StorePath> path = store_dir_.ParsePath(derivation.path);
      Outputs outputs = path.ok() ? store_->QueryDerivationOutputs(*path)
                                  : Outputs(path.status());
      if (outputs.ok()) {
        // The roots come later, and a collection may be running.
        std::vector<StorePath> known;
        for (const auto& [name, output] : *outputs) {
          if (output.has_value()) known.push_back(*output);
        }
        if (absl::Status held = store_->AddTempRoots(known); !held.ok()) {
          outputs = held;
        }
      }
      resolved.emplace_back(derivation, std::move(outputs));
    }
    mailbox_.Post([this, resolved = std::move(resolved)] {
      FinishDerivations(resolved);
    });
  });
}

void Daemon::FinishDerivations(
    const std::vector<std::pair<PendingDerivation, Outputs>>& resolved) {
  bool all_rooted = true;
  for (const auto& [derivation, outputs] : resolved) {
    if (queue_again_at_.has_value()) {
      all_rooted = false;
      look_ = true;  // it stays due
      break;
    }
    all_rooted &= FinishDerivation(derivation, outputs);
  }
  scheduler_.Poke();
  if (!all_rooted) {
    resolving_ = false;
    return;
  }
  // Their own roots hold them now.
  pool_->Run([this] {
    store_->DropTempRoots();
    mailbox_.Post([this] {
      resolving_ = false;
      ResolveDerivations();
    });
  });
}

// Whether its outputs have roots, and it is written that they are to go.
bool Daemon::FinishDerivation(const PendingDerivation& derivation,
                              const Outputs& outputs) {
  if (!outputs.ok()) return KeepDerivation(derivation, {}, outputs.status());
  std::vector<NewPath> paths;
  std::string unknown;
  bool rooted = true;
  for (const auto& [name, output] : *outputs) {
    if (!output.has_value()) {
      unknown += (unknown.empty() ? "" : ", ") + name;
      continue;
    }
    if (absl::Status held = roots_.Hold(*output); !held.ok()) {
      Say("no-root", Annotate(held, derivation.path));
      rooted = false;
    }
    InboxEntry entry;
    entry.path = store_dir_.Print(*output);
    entry.deriver = derivation.path;
    entry.source = derivation.source;
    paths.push_back(intake_.Understand(entry));
  }
  if (!unknown.empty() || paths.empty()) {
    return KeepDerivation(derivation, std::move(paths),
                          absl::UnavailableError(
                              unknown.empty() ? "it has no outputs"
                                              : "not built: " + unknown)) &&
           rooted;
  }
  if (!Wrote("derivations", queue_.ResolveDerivation(derivation.id, paths))) {
    return false;
  }
  log_.Info("derivation-resolved",
            {{"path", derivation.path},
             {"outputs", static_cast<uint64_t>(paths.size())}});
  return rooted;
}

// It stays in the queue, with the reason, until all its outputs are known or
// somebody forgets it; `paths`, those that are, need not wait for that.
bool Daemon::KeepDerivation(const PendingDerivation& derivation,
                            std::vector<NewPath> paths,
                            const absl::Status& why) {
  const int attempt = derivation.attempts + 1;
  if (attempt > 1 && !paths.empty()) {
    // What was accepted the first time is not to be sent at each.
    std::vector<std::string> names;
    names.reserve(paths.size());
    for (const NewPath& path : paths) names.push_back(path.path);
    absl::StatusOr<std::vector<bool>> known = queue_.Known(names);
    if (!Wrote("derivations", known.status())) return false;
    size_t i = 0;
    std::erase_if(paths, [&](const NewPath&) { return (*known)[i++]; });
  }
  const bool gone = absl::IsNotFound(why);
  const LogLevel level = !gone          ? LogLevel::kWarning
                         : attempt == 1 ? LogLevel::kError
                                        : LogLevel::kDebug;
  log_.Write(level, gone ? "derivation-gone" : "derivation-waits",
             {{"path", derivation.path},
              {"attempt", attempt},
              {"why", std::string(why.message())}});
  const absl::Duration delay =
      Backoff(RetryPolicy{config_.retry_min_delay, config_.retry_max_delay,
                          config_.retry_max_attempts},
              attempt, parts_.random.NextUnit(), std::nullopt);
  return Wrote("derivations",
               queue_.DelayDerivation(derivation.id, parts_.clock.Now() + delay,
                                      std::string(why.message()), paths));
}

// --- Writing down -----------------------------------------------------------

void Daemon::Flush(absl::Time now) {
  std::vector<Settlement> fresh = scheduler_.TakeSettlements();
  unsettled_.insert(unsettled_.end(), std::make_move_iterator(fresh.begin()),
                    std::make_move_iterator(fresh.end()));
  for (const Scheduler::Note& note : scheduler_.TakeNotes()) LogNote(note);
  for (const TargetRow& row : scheduler_.TakeHealth(now)) {
    LogHealth(row);
    unsaved_health_[row.id] = row;
  }
  if (!unsettled_.empty()) {
    if (!Wrote("settle", queue_.Settle(unsettled_))) {
      queue_again_at_ = parts_.clock.Elapsed() + kSettleAgain;
      return;
    }
    unsettled_.clear();
    if (!EndHolds() && queue_again_at_.has_value()) return;
  }
  while (!unsaved_health_.empty()) {
    if (!Wrote("targets",
               queue_.SaveTargetHealth(unsaved_health_.begin()->second)) &&
        queue_again_at_.has_value()) {
      return;
    }
    unsaved_health_.erase(unsaved_health_.begin());
  }
}

// In pieces, so that signals are heeded in between.
bool Daemon::EndHolds() {
  const PinPolicy policy = {config_.roots_enabled, config_.roots_systems};
  const bool ended =
      Wrote("roots", EndFinishedHolds(queue_, roots_, store_dir_, policy,
                                      parts_.clock.Now(), holds_after_)
                         .status());
  // What fails is tried again when it is time to look, not at once.
  if (!ended) holds_after_ = 0;
  look_ |= holds_after_ != 0;
  return ended;
}

void Daemon::LogNote(const Scheduler::Note& note) {
  const std::string& target = TargetOf(note.target_id).config().name;
  const std::string why(note.status.message());
  switch (note.verb) {
    case Settlement::Verb::kDone:
      if (note.outcome == JobOutcome::kSent) {
        ++sent_paths_;
        sent_bytes_ += note.sent_size_bytes;
        log_.Info("sent", {{"path", note.path},
                           {"target", target},
                           {"nar_bytes", note.nar_size_bytes},
                           {"bytes", note.sent_size_bytes},
                           {"ms", note.duration},
                           {"attempt", note.attempt}});
      } else {
        const LogLevel level = note.outcome == JobOutcome::kGone
                                   ? LogLevel::kWarning
                                   : LogLevel::kInfo;
        log_.Write(level, Name(note.outcome),
                   {{"path", note.path}, {"target", target}, {"why", why}});
      }
      break;
    case Settlement::Verb::kPark:
      log_.Write(note.corrupt ? LogLevel::kError : LogLevel::kWarning,
                 note.corrupt ? "CORRUPT" : "parked",
                 {{"path", note.path},
                  {"target", target},
                  {"attempt", note.attempt},
                  {"code", CodeName(note.status.code())},
                  {"why", why}});
      break;
    case Settlement::Verb::kRetry:
      log_.Warning("retry", {{"path", note.path},
                             {"target", target},
                             {"attempt", note.attempt},
                             {"in_ms", *note.next_attempt - parts_.clock.Now()},
                             {"code", CodeName(note.status.code())},
                             {"why", why}});
      break;
    case Settlement::Verb::kRelease:
      log_.Debug("released",
                 {{"path", note.path}, {"target", target}, {"why", why}});
      break;
  }
}

void Daemon::LogHealth(const TargetRow& row) {
  TargetHealth& said = said_health_[row.id];
  if (row.health == TargetHealth::kOk) {
    if (said != TargetHealth::kOk)
      log_.Info("target-ok", {{"target", row.name}});
  } else if (row.health != TargetHealth::kUnknown) {
    log_.Warning(row.health == TargetHealth::kRefused ? "target-refused"
                                                      : "target-unreachable",
                 {{"target", row.name},
                  {"failures", row.failures},
                  {"next_probe_ms", row.retry_at - parts_.clock.Now()},
                  {"code", row.error_code},
                  {"why", row.error_text}});
  }
  said = row.health;
}

void Daemon::Prune(absl::Time now) {
  absl::StatusOr<PruneReport> report =
      PruneRoots(queue_, roots_, store_dir_, config_.roots_max_age, now,
                 /*dry_run=*/false);
  if (!Wrote("prune", report.status()) && queue_again_at_.has_value()) {
    next_prune_ = parts_.clock.Elapsed();  // as soon as the queue is free
    return;
  }
  if (report.ok()) {
    for (const PruneReport::Root& root : report->removed) {
      log_.Info("pruned", {{"path", root.path}});
    }
    log_.Info("prune",
              {{"removed", static_cast<uint64_t>(report->removed.size())},
               {"kept", static_cast<uint64_t>(report->kept.size())}});
  }
  for (auto& [id, target] : targets_) {
    if (!target->config().pin_remote) continue;
    pool_->Run([this, &remote = *target] {
      absl::Status status = remote.Prepare(cancel_);
      absl::StatusOr<int> removed =
          status.ok() ? remote.ssh().PruneRemote(config_.roots_max_age, cancel_)
                      : absl::StatusOr<int>(status);
      mailbox_.Post([this, name = remote.config().name, removed] {
        Say("prune-remote", Annotate(removed.status(), name));
        if (removed.ok()) {
          log_.Info("prune-remote", {{"target", name}, {"removed", *removed}});
        }
      });
    });
  }
}

}  // namespace nixq
