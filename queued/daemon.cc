#include "queued/daemon.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "queued/prune.h"
#include "queued/sockets.h"
#include "queued/surroundings_check.h"
#include "storage/base/process.h"
#include "storage/base/status.h"
#include "storage/queue/inbox.h"

namespace nixq {
namespace {

constexpr absl::Duration kTick = absl::Minutes(1);
constexpr absl::Duration kHousekeeping = absl::Hours(1);
constexpr absl::Duration kFirstPrune = absl::Minutes(10);
constexpr absl::Duration kStopLimit = absl::Milliseconds(1700);
constexpr absl::Duration kReloadLimit = absl::Minutes(1);
constexpr size_t kExtraWorkers = 4;  // plans, derivations, remote prunes

}  // namespace

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(Config config,
                                                      Surroundings surroundings,
                                                      DaemonParts parts) {
  NIXQ_ASSIGN_OR_RETURN(StoreDir store_dir, StoreDir::Parse(config.store_dir));
  NIXQ_ASSIGN_OR_RETURN(std::vector<SecretKey> keys,
                        Signer::LoadKeys(config.signing_key_files));
  QueueOptions options;
  options.state_dir = config.state_dir;
  options.clock = &parts.clock;
  if (!config.reader_group.empty()) {
    absl::StatusOr<gid_t> group = GroupNumber(config.reader_group);
    if (!group.ok()) return Annotate(group.status(), "reader-group");
    options.reader_gid = *group;
  }
  absl::StatusOr<Queue> queue = Queue::Open(options);
  if (!queue.ok()) return Annotate(queue.status(), "queue");
  absl::StatusOr<GcRoots> roots =
      GcRoots::Open(config.roots_directory, store_dir, /*create=*/true);
  if (!roots.ok()) return Annotate(roots.status(), "roots");
  std::unique_ptr<Daemon> daemon(new Daemon(
      std::move(config), std::move(surroundings), parts, std::move(store_dir),
      *std::move(queue), *std::move(roots), std::move(keys)));
  NIXQ_RETURN_IF_ERROR(daemon->Open());
  return daemon;
}

Daemon::Daemon(Config config, Surroundings surroundings, DaemonParts parts,
               StoreDir store_dir, Queue queue, GcRoots roots,
               std::vector<SecretKey> keys)
    : config_(std::move(config)),
      surroundings_(std::move(surroundings)),
      parts_(parts),
      log_(parts.log),
      store_dir_(std::move(store_dir)),
      queue_(std::move(queue)),
      roots_(std::move(roots)),
      intake_(config_, store_dir_, queue_, roots_, log_, parts.clock),
      store_(MakeDaemonClient(config_, surroundings_, store_dir_)),
      signer_(std::move(keys), store_dir_, *store_, log_),
      planner_(store_dir_, *store_, signer_, parts.clock),
      scheduler_(RetryPolicy{config_.retry_min_delay, config_.retry_max_delay,
                             config_.retry_max_attempts},
                 parts.random),
      started_(parts.clock.Now()) {}

Daemon::~Daemon() = default;

absl::Status Daemon::Open() {
  NIXQ_ASSIGN_OR_RETURN(int64_t released, queue_.ReleaseAll());
  if (released > 0) {
    log_.Info("claims-released", {{"jobs", released}});
  }
  std::vector<Queue::TargetSpec> specs;
  for (const TargetConfig& target : config_.targets) {
    specs.push_back({target.name, target.url});
  }
  NIXQ_ASSIGN_OR_RETURN(std::vector<TargetRow> rows, queue_.SyncTargets(specs));
  size_t workers = kExtraWorkers;
  const std::vector<std::string> environment =
      ChildEnvironment(config_, surroundings_);
  for (size_t i = 0; i < rows.size(); ++i) {
    auto target =
        std::make_unique<Target>(rows[i].id, config_.targets[i], config_,
                                 environment, http_, parts_.random);
    const TargetLimits limits = target->Limits();
    workers += static_cast<size_t>(limits.in_flight) + 2;
    // A new start, perhaps with a new configuration, is a new chance.
    if (rows[i].health == TargetHealth::kRefused) {
      rows[i].retry_at = absl::UnixEpoch();
    }
    said_health_[rows[i].id] = rows[i].health;
    scheduler_.AddTarget(rows[i], limits);
    targets_[rows[i].id] = std::move(target);
  }
  pool_ = std::make_unique<WorkerPool>(workers);
  SweepUnfinishedDatabases(config_.state_dir);
  NIXQ_RETURN_IF_ERROR(intake_.RemakeHolds());
  // What hooks have said of a path comes before what its root shows of it.
  Say("spool", intake_.TakeSpool().status());
  Say("inbox", intake_.TakeInbox().status());
  NIXQ_RETURN_IF_ERROR(intake_.AdoptRoots().status());
  if (const std::string why = RootsTrouble(config_); !why.empty()) {
    log_.Warning("roots-hold-nothing", {{"why", why}});
  }
  const absl::Time now = parts_.clock.Now();
  next_tick_ = now;
  next_housekeeping_ = now + kTick;
  next_prune_ = now + std::min(kFirstPrune, config_.prune_interval);
  next_watchdog_ = now;
  flush_again_at_ = now;
  pool_->Run([this] {
    absl::StatusOr<DaemonInfo> info = store_->Info();
    mailbox_.Post([this, info] {
      if (info.ok()) {
        nix_description_ =
            "Nix " + info->nix_version + " at " + info->transport;
        log_.Info("store", {{"nix", nix_description_},
                            {"protocol_minor", info->protocol_minor}});
      } else {
        nix_description_ = "not reachable";
        Say("store", info.status());
      }
    });
  });
  return absl::OkStatus();
}

void Daemon::Say(std::string_view event, const absl::Status& status) {
  if (status.ok()) return;
  log_.Error(event, {{"code", CodeName(status.code())},
                     {"why", std::string(status.message())}});
}

Daemon::End Daemon::Run() {
  parts_.notifier.Ready(StatusLine());
  log_.Info(
      "ready",
      {{"version", NIXQ_VERSION},
       {"state_dir", config_.state_dir},
       {"targets", static_cast<uint64_t>(targets_.size())},
       {"keys", static_cast<uint64_t>(config_.signing_key_files.size())}});
  while (true) {
    for (std::function<void()>& message : mailbox_.TakeAll()) message();
    if (std::optional<End> end = HandleSignals(); end.has_value()) {
      return Stop(*end);
    }
    const absl::Time now = parts_.clock.Now();
    if (now >= next_tick_) Tick(now);
    if (config_.prune_enabled && now >= next_prune_) {
      next_prune_ = now + config_.prune_interval;
      Prune(now);
    }
    if (next_due_.has_value() && now >= *next_due_) {
      scheduler_.Poke();
      ResolveDerivations();
    }
    // What cannot be written now must not be followed by more of it.
    if (Flush(now)) {
      StartActions(now);
      if (!Flush(parts_.clock.Now())) continue;
    }
    parts_.notifier.Status(StatusLine());
    Wait(parts_.clock.Now());
  }
}

std::optional<Daemon::End> Daemon::HandleSignals() {
  const Signals::Pending pending = parts_.signals.Take();
  if (pending.stop) return End::kStopped;
  if (!pending.reload) return std::nullopt;
  parts_.notifier.Reloading();
  absl::StatusOr<Config> config = parts_.load_config();
  absl::Status status =
      config.ok() ? CheckReload(config_, *config) : config.status();
  if (status.ok()) {
    log_.Info("reload", {{"file", config_.file}});
    next_config_ = *std::move(config);
    return End::kReload;
  }
  log_.Error("reload-refused", {{"why", std::string(status.message())},
                                {"hint", "the configuration in force stays"}});
  parts_.notifier.Ready(StatusLine());
  return std::nullopt;
}

absl::Status Daemon::CheckReload(const Config& old_config,
                                 const Config& new_config) {
  if (new_config.state_dir != old_config.state_dir) {
    return absl::FailedPreconditionError(
        "state-dir cannot change while running; restart instead");
  }
  NIXQ_ASSIGN_OR_RETURN(StoreDir store_dir,
                        StoreDir::Parse(new_config.store_dir));
  NIXQ_RETURN_IF_ERROR(Signer::LoadKeys(new_config.signing_key_files).status());
  return GcRoots::Open(new_config.roots_directory, store_dir, true).status();
}

Daemon::End Daemon::Stop(End end) {
  stopping_ = true;
  if (end == End::kStopped) parts_.notifier.Stopping();
  cancel_.Cancel();
  store_->Stop();
  const absl::Time deadline =
      parts_.clock.Now() + (end == End::kReload ? kReloadLimit : kStopLimit);
  while (!scheduler_.Idle() && parts_.clock.Now() < deadline) {
    pollfd wait = {mailbox_.fd(), POLLIN, 0};
    poll(&wait, 1, 50);
    for (std::function<void()>& message : mailbox_.TakeAll()) message();
    // What will not be started again has nothing to wait for.
    scheduler_.Abandon();
  }
  Flush(parts_.clock.Now());
  Say("stop", queue_.ReleaseAll().status());
  Say("stop", queue_.Checkpoint());
  const bool idle = scheduler_.Idle();
  log_.Info(end == End::kReload ? "stopped-for-reload" : "stopped",
            {{"idle", idle ? "yes" : "no"}});
  return idle ? end : End::kStuck;
}

void Daemon::Wait(absl::Time now) {
  absl::Time until = next_tick_;
  if (config_.prune_enabled) until = std::min(until, next_prune_);
  absl::StatusOr<std::optional<absl::Time>> due = queue_.NextDue(now);
  if (due.ok()) next_due_ = *due;
  for (const std::optional<absl::Time>& other :
       {next_due_, scheduler_.NextProbe()}) {
    if (other.has_value()) until = std::min(until, *other);
  }
  if (parts_.notifier.watchdog_interval().has_value()) {
    until = std::min(until, next_watchdog_);
  }
  if (!unsettled_.empty()) until = std::min(until, flush_again_at_);
  const absl::Duration left =
      std::clamp(until - now, absl::ZeroDuration(), kTick);
  pollfd fds[] = {{mailbox_.fd(), POLLIN, 0},
                  {parts_.signals.fd(), POLLIN, 0},
                  {parts_.wake_fd, POLLIN, 0},
                  {parts_.status_fd, POLLIN, 0}};
  poll(fds, 4,
       static_cast<int>(
           absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)))));
  if ((fds[2].revents & POLLIN) != 0) {
    DrainWakeSocket(parts_.wake_fd);
    TakeInEverything();
  }
  if ((fds[3].revents & POLLIN) != 0) {
    AnswerStatus(parts_.status_fd, LiveStatusToJson(Live()));
  }
  if (parts_.notifier.watchdog_interval().has_value() &&
      parts_.clock.Now() >= next_watchdog_) {
    parts_.notifier.Watchdog();
    next_watchdog_ = parts_.clock.Now() + *parts_.notifier.watchdog_interval();
  }
}

void Daemon::TakeInEverything() {
  Say("spool", intake_.TakeSpool().status());
  Say("inbox", intake_.TakeInbox().status());
  absl::StatusOr<std::vector<TargetRow>> rows = queue_.Targets();
  Say("targets", rows.status());
  if (rows.ok()) {
    for (const TargetRow& row : *rows) scheduler_.RefreshTarget(row);
  }
  // Jobs that people have forgotten, and paths that no target wants.
  EndHolds();
  scheduler_.Poke();
  ResolveDerivations();
}

void Daemon::Tick(absl::Time now) {
  next_tick_ = now + kTick;
  TakeInEverything();
  Say("leases", queue_.RenewLeases(scheduler_.JobIds(), now + kLeaseLength));
  if (now >= next_housekeeping_) {
    next_housekeeping_ = now + kHousekeeping;
    const size_t limit = 1000;
    for (int i = 0; i < 100; ++i) {
      absl::StatusOr<int64_t> removed =
          queue_.RemoveFinished(now - config_.history_keep, limit);
      Say("history", removed.status());
      if (!removed.ok() || *removed < static_cast<int64_t>(limit)) break;
    }
  }
  Say("checkpoint", queue_.Checkpoint());
  if (scheduler_.Idle()) ReturnFreedMemory();
}

std::string Daemon::StatusLine() const {
  size_t in_trouble = 0;
  std::string names;
  for (const auto& [id, health] : said_health_) {
    if (health != TargetHealth::kUnreachable &&
        health != TargetHealth::kRefused) {
      continue;
    }
    ++in_trouble;
    if (!names.empty()) names += ", ";
    names += targets_.at(id)->config().name + " " + std::string(Name(health));
  }
  std::string line =
      scheduler_.Idle()
          ? "Idle"
          : absl::StrFormat("Working on %d jobs", scheduler_.JobIds().size());
  line += absl::StrFormat("; %d paths sent", sent_paths_);
  if (in_trouble > 0) line += "; " + names;
  return line;
}

LiveStatus Daemon::Live() {
  LiveStatus live;
  live.version = NIXQ_VERSION;
  live.pid = getpid();
  live.started = started_;
  live.nix = nix_description_;
  live.sent_bytes = sent_bytes_;
  live.sent_paths = sent_paths_;
  live.transfers = transfers_.List();
  return live;
}

}  // namespace nixq
