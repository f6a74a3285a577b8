#include "queued/daemon.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "queued/reload.h"
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
// Well below any watchdog's patience and a person's.
constexpr absl::Duration kReloadLimit = absl::Seconds(10);
// The loop has more to do than to wait for somebody's transaction, a stop
// among it; hooks hold the lock for a few milliseconds.
constexpr absl::Duration kBusyLimit = absl::Milliseconds(250);
constexpr absl::Duration kQueueRest = absl::Seconds(1);
// A clock that is set back by less does no harm worth an uproar.
constexpr absl::Duration kClockSlack = absl::Minutes(1);
constexpr absl::Duration kSayAgain = absl::Minutes(1);
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
  options.busy_timeout = kBusyLimit;
  NIXQ_ASSIGN_OR_RETURN(options.reader_gid, ReaderGroup(config));
  // Migrations take what they take.
  parts.notifier.StillStarting();
  absl::StatusOr<Queue> queue = Queue::Open(options);
  if (!queue.ok()) return Annotate(queue.status(), "queue");
  absl::StatusOr<GcRoots> roots =
      GcRoots::Open(config.roots_directory, store_dir, /*create=*/true);
  if (!roots.ok()) return Annotate(roots.status(), "roots");
  std::unique_ptr<Daemon> daemon(new Daemon(
      std::move(config), std::move(surroundings), parts, std::move(store_dir),
      *std::move(queue), *std::move(roots), std::move(keys)));
  absl::Status opened = daemon->Open();
  if (opened.ok()) return daemon;
  // Whoever tries again has to hear of it.
  if (daemon->signals_.reload) parts.signals.PutBackReload();
  return opened;
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
      files_stamp_(StampOfFiles(config_)),
      started_(parts.clock.Elapsed()) {}

Daemon::~Daemon() = default;

absl::Status Daemon::Open() {
  NIXQ_ASSIGN_OR_RETURN(int64_t released, queue_.ReleaseAll());
  if (released > 0) {
    log_.Info("claims-released", {{"jobs", released}});
  }
  NIXQ_RETURN_IF_ERROR(OpenTargets());
  SweepUnfinishedDatabases(config_.state_dir);
  NIXQ_RETURN_IF_ERROR(TakeInWhatCame());
  const absl::Duration elapsed = parts_.clock.Elapsed();
  clock_offset_ = parts_.clock.Now() - absl::UnixEpoch() - elapsed;
  next_tick_ = elapsed;
  next_housekeeping_ = elapsed + kTick;
  next_prune_ = elapsed + std::min(kFirstPrune, config_.prune_interval);
  next_watchdog_ = elapsed;
  AskForStore();
  return absl::OkStatus();
}

absl::Status Daemon::OpenTargets() {
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
    // A new start, perhaps with a new configuration or in another network, is
    // a new chance.
    rows[i].retry_at = absl::UnixEpoch();
    said_health_[rows[i].id] = rows[i].health;
    scheduler_.AddTarget(rows[i], limits);
    targets_[rows[i].id] = std::move(target);
  }
  pool_ = std::make_unique<WorkerPool>(workers);
  NIXQ_ASSIGN_OR_RETURN(auto left, queue_.LeftBehind());
  for (const auto& [name, jobs] : left) {
    log_.Warning("target-left", {{"target", name},
                                 {"open_jobs", jobs},
                                 {"hint",
                                  "it is not configured any more: configure it "
                                  "again, or queuectl forget --target " +
                                      name}});
  }
  return absl::OkStatus();
}

// Whether starting may go on: it says that it does, and a stop ends it.
bool Daemon::GoOnStarting() {
  parts_.notifier.StillStarting();
  const Signals::Pending came = parts_.signals.Take();
  signals_.stop |= came.stop;
  signals_.reload |= came.reload;
  return !signals_.stop;
}

absl::Status Daemon::TakeInWhatCame() {
  const auto go_on = [this] { return GoOnStarting(); };
  NIXQ_RETURN_IF_ERROR(intake_.RemakeHolds(go_on));
  // What hooks have said of a path comes before what its root shows of it.
  Say("spool", intake_.TakeSpool(go_on).status());
  Say("inbox", intake_.TakeInbox(go_on).status());
  if (!signals_.stop) {
    absl::Status adopted = intake_.AdoptRoots(go_on).status();
    // Only a start looks for these; so it is tried again as a whole.
    if (absl::IsUnavailable(adopted) || absl::IsResourceExhausted(adopted)) {
      return Annotate(adopted, "roots");
    }
    Say("roots", adopted);
  }
  if (signals_.stop) return absl::CancelledError("stopped while starting");
  if (const std::string why = RootsTrouble(config_); !why.empty()) {
    log_.Warning("roots-hold-nothing", {{"why", why}});
  }
  return absl::OkStatus();
}

void Daemon::AskForStore() {
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
}

// One and the same thing is said once a minute.
void Daemon::Say(std::string_view event, const absl::Status& status) {
  if (status.ok()) return;
  const absl::Duration elapsed = parts_.clock.Elapsed();
  auto& [text, said_at] = said_[std::string(event)];
  if (text == status.message() && elapsed < said_at + kSayAgain) return;
  text = std::string(status.message());
  said_at = elapsed;
  log_.Error(event, {{"code", CodeName(status.code())}, {"why", text}});
}

// Says what went wrong with the queue, if anything did. When it is locked, or
// the disk is full, the rest is not tried either: each try may take a while.
bool Daemon::Wrote(std::string_view event, const absl::Status& status) {
  Say(event, status);
  if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) {
    queue_again_at_ = parts_.clock.Elapsed() + kQueueRest;
  }
  return status.ok();
}

bool Daemon::QueueRests(absl::Duration elapsed) {
  if (queue_again_at_.has_value() && elapsed >= *queue_again_at_) {
    queue_again_at_.reset();
  }
  return queue_again_at_.has_value();
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
    const absl::Duration elapsed = parts_.clock.Elapsed();
    FeedWatchdog(elapsed);
    if (!QueueRests(elapsed)) Work(now, elapsed);
    if (next_config_.has_value()) return Stop(End::kReload);
    parts_.notifier.Status(StatusLine());
    Wait(TimeToWait(now, elapsed));
  }
}

void Daemon::Work(absl::Time now, absl::Duration elapsed) {
  NoticeClock(now, elapsed);
  if (elapsed >= next_tick_) {
    Tick(now, elapsed);
  } else if (look_) {
    TakeInEverything();
  }
  if (next_config_.has_value()) return;
  if (config_.prune_enabled && elapsed >= next_prune_) {
    next_prune_ = elapsed + config_.prune_interval;
    Prune(now);
  }
  if (next_due_.has_value() && now >= *next_due_) {
    scheduler_.Poke();
    ResolveDerivations();
  }
  // What cannot be written now must not be followed by more of it.
  Flush(now);
  if (queue_again_at_.has_value()) return;
  StartActions(now);
  if (!queue_again_at_.has_value()) Flush(parts_.clock.Now());
}

// A clock that was ahead has left times in rows that are far from over.
void Daemon::NoticeClock(absl::Time now, absl::Duration elapsed) {
  const absl::Duration offset = now - absl::UnixEpoch() - elapsed;
  if (offset < clock_offset_ - kClockSlack) {
    if (!Wrote("clock", queue_.EndWaits())) return;
    log_.Warning("clock-set-back",
                 {{"by_ms", clock_offset_ - offset},
                  {"hint", "what waits for a time is tried at once"}});
    scheduler_.EndWaits();
    scheduler_.Poke();
  }
  clock_offset_ = offset;
}

void Daemon::FeedWatchdog(absl::Duration elapsed) {
  const std::optional<absl::Duration> interval =
      parts_.notifier.watchdog_interval();
  if (!interval.has_value() || elapsed < next_watchdog_) return;
  parts_.notifier.Watchdog();
  next_watchdog_ = elapsed + *interval;
}

std::optional<Daemon::End> Daemon::HandleSignals() {
  Signals::Pending pending = parts_.signals.Take();
  pending.stop |= signals_.stop;
  pending.reload |= signals_.reload;
  signals_ = {};
  if (pending.stop) return End::kStopped;
  if (!pending.reload) return std::nullopt;
  parts_.notifier.Reloading();
  absl::StatusOr<Config> config = parts_.load_config();
  absl::Status status =
      config.ok() ? CheckReload(config_, *config) : config.status();
  if (!status.ok()) {
    log_.Error("reload-refused",
               {{"why", std::string(status.message())},
                {"hint", "the configuration in force stays"}});
  } else if (*config == config_ && StampOfFiles(*config) == files_stamp_) {
    // Nothing to abort anything for; but whoever asks wants to see it tried.
    log_.Info("reload-unchanged", {{"file", config_.file}});
    scheduler_.EndWaits();
    scheduler_.Poke();
  } else {
    log_.Info("reload", {{"file", config_.file}});
    next_config_ = *std::move(config);
    return End::kReload;
  }
  parts_.notifier.Ready(StatusLine());
  return std::nullopt;
}

Daemon::End Daemon::Stop(End end) {
  stopping_ = true;
  if (end == End::kStopped) parts_.notifier.Stopping();
  cancel_.Cancel();
  store_->Stop();
  scheduler_.Abandon();
  absl::Duration elapsed = parts_.clock.Elapsed();
  absl::Duration deadline =
      elapsed + (end == End::kReload ? kReloadLimit : kStopLimit);
  bool reload_again = false;
  while (!scheduler_.Idle() && elapsed < deadline) {
    pollfd wait = {mailbox_.fd(), POLLIN, 0};
    poll(&wait, 1, 50);
    for (std::function<void()>& message : mailbox_.TakeAll()) message();
    // What will not be started again has nothing to wait for.
    scheduler_.Abandon();
    elapsed = parts_.clock.Elapsed();
    FeedWatchdog(elapsed);
    const Signals::Pending came = parts_.signals.Take();
    reload_again |= came.reload;
    if (end == End::kReload && came.stop) {
      end = End::kStopped;
      parts_.notifier.Stopping();
      deadline = std::min(deadline, elapsed + kStopLimit);
    }
  }
  // The file may have changed since it was read.
  if (reload_again) parts_.signals.PutBackReload();
  queue_again_at_.reset();
  Flush(parts_.clock.Now());
  Say("stop", queue_.ReleaseAll().status());
  Say("stop", queue_.Checkpoint());
  const bool idle = scheduler_.Idle();
  log_.Info(end == End::kReload ? "stopped-for-reload" : "stopped",
            {{"idle", idle ? "yes" : "no"}});
  if (idle) return end;
  if (end != End::kReload) return End::kStuck;
  log_.Error("reload-stuck",
             {{"why", "something that was under way does not end"},
              {"hint", "the process ends, to be started anew"}});
  return End::kStuckAtReload;
}

absl::Duration Daemon::TimeToWait(absl::Time now, absl::Duration elapsed) {
  absl::Duration left = kTick;
  if (parts_.notifier.watchdog_interval().has_value()) {
    left = std::min(left, next_watchdog_ - elapsed);
  }
  if (queue_again_at_.has_value()) {
    return std::min(left, *queue_again_at_ - elapsed);
  }
  if (look_) return absl::ZeroDuration();
  left = std::min(left, next_tick_ - elapsed);
  if (config_.prune_enabled) left = std::min(left, next_prune_ - elapsed);
  // After `now`, by which Work() has gone: what has become due since then is
  // not to be missed.
  absl::StatusOr<std::optional<absl::Time>> due = queue_.NextDue(now);
  next_due_ = due.ok() ? *due : std::nullopt;
  for (const std::optional<absl::Time>& time :
       {next_due_, scheduler_.NextProbe()}) {
    if (time.has_value()) left = std::min(left, *time - now);
  }
  return left;
}

void Daemon::Wait(absl::Duration at_most) {
  at_most = std::max(at_most, absl::ZeroDuration());
  pollfd fds[] = {{mailbox_.fd(), POLLIN, 0},
                  {parts_.signals.fd(), POLLIN, 0},
                  {parts_.wake_fd, POLLIN, 0},
                  {parts_.status_fd, POLLIN, 0}};
  poll(fds, 4,
       static_cast<int>(absl::ToInt64Milliseconds(
           absl::Ceil(at_most, absl::Milliseconds(1)))));
  if ((fds[2].revents & POLLIN) != 0) {
    DrainWakeSocket(parts_.wake_fd);
    look_ = true;
  }
  if ((fds[3].revents & POLLIN) != 0) {
    AnswerStatus(parts_.status_fd, LiveStatusToJson(Live()));
  }
}

void Daemon::TakeInEverything() {
  if (absl::Status same = queue_.CheckFile(); !same.ok()) {
    log_.Error("queue-replaced",
               {{"why", std::string(same.message())},
                {"hint",
                 "going on with what is there now; the roots tell "
                 "what else there was"}});
    next_config_ = config_;
    return;
  }
  // In pieces, so that signals are heeded in between.
  bool more = false;
  const auto one_piece = [&more] {
    more = true;
    return false;
  };
  look_ = true;
  Wrote("spool", intake_.TakeSpool(one_piece).status());
  Wrote("inbox", intake_.TakeInbox(one_piece).status());
  if (queue_again_at_.has_value()) return;
  absl::StatusOr<std::vector<TargetRow>> rows = queue_.Targets();
  Say("targets", rows.status());
  if (rows.ok()) {
    for (TargetRow& row : *rows) {
      // Its row does not know of the newest trouble yet.
      if (auto it = unsaved_health_.find(row.id); it != unsaved_health_.end()) {
        row.health = it->second.health;
      }
      scheduler_.RefreshTarget(row);
    }
  }
  scheduler_.Poke();
  ResolveDerivations();
  // Jobs that people have forgotten, and paths that no target wants.
  if (!EndHolds() && queue_again_at_.has_value()) return;
  look_ = more || holds_after_ != 0;
}

void Daemon::Tick(absl::Time now, absl::Duration elapsed) {
  if (!Wrote("leases",
             queue_.RenewLeases(scheduler_.JobIds(), now + kLeaseLength)) &&
      queue_again_at_.has_value()) {
    return;
  }
  next_tick_ = elapsed + kTick;
  TakeInEverything();
  if (queue_again_at_.has_value()) return;
  if (elapsed >= next_housekeeping_) {
    next_housekeeping_ = elapsed + kHousekeeping;
    const size_t limit = 1000;
    for (int i = 0; i < 100; ++i) {
      absl::StatusOr<int64_t> removed =
          queue_.RemoveFinished(now - config_.history_keep, limit);
      Wrote("history", removed.status());
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
  // The same moment, whatever the wall clock has been set to since.
  live.started = parts_.clock.Now() - (parts_.clock.Elapsed() - started_);
  live.nix = nix_description_;
  live.sent_bytes = sent_bytes_;
  live.sent_paths = sent_paths_;
  live.transfers = transfers_.List();
  return live;
}

}  // namespace nixq
