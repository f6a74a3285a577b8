#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "queued/queuectl/commands.h"
#include "queued/queuectl/outlook.h"
#include "queued/status_socket.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/nix/gc_roots.h"

namespace nixq {
namespace {

using nlohmann::json;

json Time(absl::Time time) {
  if (time <= absl::UnixEpoch()) return nullptr;
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

json Time(const std::optional<absl::Time>& time) {
  return time.has_value() ? Time(*time) : json(nullptr);
}

json TargetJson(const TargetSummary& summary) {
  const TargetRow& target = summary.target;
  return {{"name", target.name},
          {"url", target.url},
          {"configured", target.configured},
          {"paused", target.paused},
          {"health", std::string(Name(target.health))},
          {"failures", target.failures},
          {"retry_at", Time(target.retry_at)},
          {"error_code", target.error_code},
          {"error_text", target.error_text},
          {"error_at", Time(target.error_at)},
          {"success_at", Time(target.success_at)},
          {"queued", summary.queued},
          {"sending", summary.sending},
          {"parked", summary.parked},
          {"done", summary.done},
          {"sent_last_hour", summary.sent_last_hour},
          {"sent_last_hour_bytes", summary.sent_last_hour_bytes},
          {"open_nar_bytes", summary.open_nar_bytes},
          {"open_nar_bytes_capped", summary.open_nar_bytes_capped},
          {"oldest_open", Time(summary.oldest_open)},
          {"next_attempt", Time(summary.next_attempt)}};
}

json JobJson(const JobRow& job) {
  return {{"path", job.path},
          {"target", job.target},
          {"state", std::string(Name(job.state))},
          {"outcome", std::string(Name(job.outcome))},
          {"attempts", job.attempts},
          {"queued_at", Time(job.queued_at)},
          {"changed_at", Time(job.changed_at)},
          {"next_attempt", Time(job.next_attempt)},
          {"error_code", job.error_code},
          {"error_text", job.error_text},
          {"blocked_by", job.blocked_by},
          {"nar_size_bytes", job.nar_size_bytes},
          {"sent_size_bytes", job.sent_size_bytes},
          {"duration_ms", absl::ToInt64Milliseconds(job.duration)}};
}

// With the keys of a job, as far as it has them.
json ArrivalJson(const Arrival& arrival) {
  return {{"path", arrival.path},
          {"target", ""},
          {"state", std::string(Name(arrival.place))},
          {"source", arrival.source},
          {"attempts", arrival.attempts},
          {"queued_at", Time(arrival.queued_at)},
          {"next_attempt", Time(arrival.next_attempt)},
          {"error_text", arrival.error_text}};
}

std::string Health(const TargetRow& target) {
  if (!target.configured) return "not configured";
  if (target.paused) return "paused";
  return std::string(Name(target.health));
}

void PrintTransfers(const LiveStatus& live, absl::Time now) {
  for (const LiveTransfer& transfer : live.transfers) {
    std::string what = transfer.path.empty()
                           ? "several paths"
                           : transfer.path.substr(transfer.path.rfind('/') + 1);
    std::string progress;
    if (transfer.total_bytes > 0) {
      progress =
          absl::StrFormat(" %3d%% of %s",
                          std::min<uint64_t>(100, transfer.done_bytes * 100 /
                                                      transfer.total_bytes),
                          HumanBytes(transfer.total_bytes));
    }
    printf("  %s: %s %s%s, %s\n", transfer.target.c_str(),
           transfer.phase.c_str(), what.c_str(), progress.c_str(),
           HumanDuration(now - transfer.since).c_str());
  }
}

void PrintSummary(const QueueSummary& summary, DaemonView::State daemon,
                  absl::Time now) {
  std::vector<std::vector<std::string>> rows;
  for (const TargetSummary& target : summary.targets) {
    rows.push_back({target.target.name, Health(target.target),
                    absl::StrFormat("%d", target.queued),
                    absl::StrFormat("%d", target.sending),
                    absl::StrFormat("%d", target.parked),
                    absl::StrFormat("%d", target.done),
                    target.oldest_open.has_value()
                        ? HumanDuration(now - *target.oldest_open)
                        : "-",
                    (target.open_nar_bytes_capped ? ">" : "") +
                        HumanBytes(target.open_nar_bytes),
                    absl::StrFormat("%d paths, %s", target.sent_last_hour,
                                    HumanBytes(target.sent_last_hour_bytes))});
  }
  PrintTable({"TARGET", "HEALTH", ">QUEUED", ">SENDING", ">PARKED", ">DONE",
              ">OLDEST", ">OPEN", "LAST HOUR"},
             rows);
  for (const TargetSummary& target : summary.targets) {
    // One that has left for good is no trouble.
    if (!target.target.configured &&
        target.queued + target.sending + target.parked == 0) {
      continue;
    }
    const std::string trouble = Trouble(target.target, daemon, now);
    if (!trouble.empty()) {
      printf("  %s: %s\n", target.target.name.c_str(), trouble.c_str());
    }
  }
}

json StatusJson(const Context& context, const QueueSummary& summary,
                const DaemonView& daemon) {
  json targets = json::array();
  for (const TargetSummary& target : summary.targets) {
    targets.push_back(TargetJson(target));
  }
  json live = nullptr;
  if (daemon.state == DaemonView::State::kRunning) {
    live = json::parse(LiveStatusToJson(daemon.live));
  }
  return {{"daemon", std::move(live)},
          {"daemon_state", std::string(Name(daemon.state))},
          {"targets", std::move(targets)},
          {"inbox", summary.inbox},
          {"derivations", summary.derivations},
          {"spool_files", summary.spool_files},
          {"holds", summary.holds},
          {"pins", summary.pins},
          {"file_bytes", summary.file_bytes},
          {"schema_version", summary.schema_version},
          {"state_dir", context.config().state_dir}};
}

void PrintDaemon(const DaemonView& daemon, absl::Time now) {
  const LiveStatus& live = daemon.live;
  switch (daemon.state) {
    case DaemonView::State::kRunning:
      printf("queued %s, up %s, %s; %d paths, %s sent since then\n",
             live.version.c_str(), HumanDuration(now - live.started).c_str(),
             live.nix.c_str(), static_cast<int>(live.sent_paths),
             HumanBytes(live.sent_bytes).c_str());
      return;
    case DaemonView::State::kNeverRan:
    case DaemonView::State::kStopped:
      printf("%s: builds are queued, nothing is sent\n",
             std::string(Describe(daemon.state)).c_str());
      return;
    case DaemonView::State::kSilent:
    case DaemonView::State::kHidden:
      printf("%s: this is what the queue says\n",
             std::string(Describe(daemon.state)).c_str());
      return;
  }
}

}  // namespace

int RunStatus(const Context& context) {
  absl::StatusOr<Report> report = context.OpenReport();
  if (!report.ok()) return Complain(report.status());
  absl::StatusOr<QueueSummary> summary = report->Summary();
  if (!summary.ok()) return Complain(summary.status());
  const DaemonView daemon = LookAtDaemon(context.config().state_dir,
                                         report->hooks_only(), kDaemonLimit);
  if (context.json()) {
    PrintJson(StatusJson(context, *summary, daemon));
    return kExitOk;
  }
  PrintDaemon(daemon, context.now());
  PrintSummary(*summary, daemon.state, context.now());
  PrintTransfers(daemon.live, context.now());
  printf("roots: %d held, %d pinned; not yet taken in: %d",
         static_cast<int>(summary->holds), static_cast<int>(summary->pins),
         static_cast<int>(summary->inbox + summary->derivations));
  if (summary->spool_files > 0) {
    printf(" and %d spool files", static_cast<int>(summary->spool_files));
  }
  printf("; queue.db: %s\n", HumanBytes(summary->file_bytes).c_str());
  return kExitOk;
}

namespace {

// What `list` prints.
struct Listing {
  std::vector<JobRow> jobs;
  std::vector<Arrival> arrivals;
  std::vector<TargetRow> targets;
  DaemonView::State daemon = DaemonView::State::kStopped;
  bool cut = false;  // there is more
};

// Jobs in the states asked for: one, or all that are not done, and then what
// is not yet jobs, which has neither state nor target.
absl::StatusOr<Listing> List(const Context& context,
                             const ListArguments& arguments) {
  NIXQ_ASSIGN_OR_RETURN(Report report, context.OpenReport());
  JobFilter filter;
  filter.older_than = arguments.older_than;
  if (!arguments.target.empty()) filter.target = arguments.target;
  filter.limit = arguments.limit + 1;  // tells whether there is more
  filter.open_only = arguments.state.empty();
  for (JobState state : {JobState::kSending, JobState::kQueued,
                         JobState::kParked, JobState::kDone}) {
    if (arguments.state == Name(state)) filter.state = state;
  }
  Listing listing;
  if (arguments.state.empty() && arguments.target.empty()) {
    // Before the jobs that they may become: rather twice than not at all.
    const absl::Time before = arguments.older_than
                                  ? context.now() - *arguments.older_than
                                  : absl::InfiniteFuture();
    NIXQ_ASSIGN_OR_RETURN(listing.arrivals,
                          report.Arrivals(before, arguments.limit + 1));
  }
  NIXQ_ASSIGN_OR_RETURN(listing.jobs, report.Jobs(filter));
  listing.cut = listing.jobs.size() + listing.arrivals.size() > arguments.limit;
  listing.jobs.resize(std::min(listing.jobs.size(), arguments.limit));
  listing.arrivals.resize(
      std::min(listing.arrivals.size(), arguments.limit - listing.jobs.size()));
  NIXQ_ASSIGN_OR_RETURN(listing.targets, report.Targets());
  listing.daemon = LookAtDaemon(context.config().state_dir, report.hooks_only(),
                                kDaemonLimit)
                       .state;
  return listing;
}

void PrintListJson(const Listing& listing, absl::Time now) {
  json list = json::array();
  for (const JobRow& job : listing.jobs) {
    list.push_back(JobJson(job));
    list.back()["next"] = NextStep(job, listing.targets, listing.daemon, now);
  }
  for (const Arrival& arrival : listing.arrivals) {
    list.push_back(ArrivalJson(arrival));
    list.back()["next"] = NextStep(arrival, listing.daemon, now);
  }
  PrintJson(list);
}

}  // namespace

int RunList(const Context& context, const ListArguments& arguments) {
  absl::StatusOr<Listing> listing = List(context, arguments);
  if (!listing.ok()) return Complain(listing.status());
  if (listing->cut) {
    absl::FPrintF(stderr,
                  "queuectl: there are more than these %d; see --limit\n",
                  arguments.limit);
  }
  const absl::Time now = context.now();
  if (context.json()) {
    PrintListJson(*listing, now);
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const JobRow& job : listing->jobs) {
    std::string what = job.error_text;
    if (job.state == JobState::kDone) {
      what.insert(0, what.empty() ? "" : ": ");
      what.insert(0, Name(job.outcome));
    }
    rows.push_back({std::string(Name(job.state)), job.target,
                    absl::StrFormat("%d", job.attempts),
                    HumanDuration(now - job.queued_at),
                    NextTime(job, listing->targets, listing->daemon, now),
                    job.path, what});
  }
  for (const Arrival& arrival : listing->arrivals) {
    rows.push_back({std::string(Name(arrival.place)), "-",
                    absl::StrFormat("%d", arrival.attempts),
                    HumanDuration(now - arrival.queued_at),
                    NextTime(arrival, listing->daemon, now), arrival.path,
                    arrival.error_text});
  }
  PrintTable({"STATE", "TARGET", ">TRIES", ">AGE", "NEXT", "PATH", "NOTE"},
             rows);
  return kExitOk;
}

namespace {

std::string DescribeRoot(const Context& context, const PathReport& path) {
  absl::StatusOr<GcRoots> roots = GcRoots::Open(
      context.config().roots_directory, context.store_dir(), false);
  absl::StatusOr<StorePath> name = context.store_dir().ParsePath(path.path);
  std::string text(Name(path.root));
  if (!roots.ok() || !name.ok()) return text;
  absl::StatusOr<GcRoot> root = roots->Find(*name);
  if (!root.ok()) return text + ", no link in " + roots->directory();
  text += ", since " + HumanTime(root->made) + " in " + roots->directory();
  if (root->dangling) text += " (dangling: the path is gone)";
  return text;
}

json PathJson(const PathReport& path, const std::vector<TargetRow>& targets,
              DaemonView::State daemon, absl::Time now) {
  json jobs = json::array();
  for (const JobRow& job : path.jobs) {
    jobs.push_back(JobJson(job));
    jobs.back()["next"] = NextStep(job, targets, daemon, now);
  }
  json arrivals = json::array();
  for (const Arrival& arrival : path.arrivals) {
    arrivals.push_back(ArrivalJson(arrival));
    arrivals.back()["next"] = NextStep(arrival, daemon, now);
  }
  return {{"path", path.path},
          {"deriver", path.deriver},
          {"system", path.system},
          {"source", path.source},
          {"root", std::string(Name(path.root))},
          {"queued_at", Time(path.queued_at)},
          {"accepted", path.accepted},
          {"daemon_state", std::string(Name(daemon))},
          {"arrivals", std::move(arrivals)},
          {"jobs", std::move(jobs)}};
}

void PrintJob(const JobRow& job) {
  std::string state(Name(job.state));
  if (job.state == JobState::kDone) {
    state += ", " + std::string(Name(job.outcome));
  }
  printf("  %s: %s, %d attempt%s, since %s\n", job.target.c_str(),
         state.c_str(), job.attempts, job.attempts == 1 ? "" : "s",
         HumanTime(job.changed_at).c_str());
  if (!job.error_text.empty()) {
    printf("    %s%s%s\n", job.error_code.c_str(),
           job.error_code.empty() ? "" : ": ", job.error_text.c_str());
  }
  if (job.sent_size_bytes > 0) {
    printf("    %s as sent, %s of NAR, in %s\n",
           HumanBytes(job.sent_size_bytes).c_str(),
           HumanBytes(job.nar_size_bytes).c_str(),
           HumanDuration(job.duration).c_str());
  }
}

}  // namespace

int RunShow(const Context& context, const std::string& argument) {
  absl::StatusOr<Report> report = context.OpenReport();
  if (!report.ok()) return Complain(report.status());
  absl::StatusOr<std::string> resolved = context.Resolve(argument);
  absl::StatusOr<PathReport> path =
      report->Path(resolved.ok() ? *resolved : argument);
  if (!path.ok()) return Complain(path.status());
  absl::StatusOr<std::vector<TargetRow>> targets = report->Targets();
  if (!targets.ok()) return Complain(targets.status());
  const DaemonView::State daemon =
      LookAtDaemon(context.config().state_dir, report->hooks_only(),
                   kDaemonLimit)
          .state;
  const absl::Time now = context.now();
  if (context.json()) {
    PrintJson(PathJson(*path, *targets, daemon, now));
    return kExitOk;
  }
  printf("%s\n", path->path.c_str());
  printf("  queued   %s, by %s\n", HumanTime(path->queued_at).c_str(),
         path->source.c_str());
  if (!path->deriver.empty()) {
    printf("  deriver  %s%s\n", path->deriver.c_str(),
           path->system.empty() ? "" : (" (" + path->system + ")").c_str());
  }
  if (!path->path.ends_with(".drv")) {
    printf("  root     %s\n", DescribeRoot(context, *path).c_str());
  }
  for (const Arrival& arrival : path->arrivals) {
    printf("  in %s since %s\n    next: %s\n",
           arrival.place == Arrival::Place::kDerivations
               ? "derivations"
               : std::string(Name(arrival.place)).c_str(),
           HumanTime(arrival.queued_at).c_str(),
           NextStep(arrival, daemon, now).c_str());
  }
  for (const JobRow& job : path->jobs) {
    PrintJob(job);
    printf("    next: %s\n", NextStep(job, *targets, daemon, now).c_str());
  }
  if (path->arrivals.empty() && path->jobs.empty()) {
    printf(
        "  no jobs: forgotten, older than history-keep, or without a target\n"
        "    next: nothing until `queuectl add`\n");
  }
  return kExitOk;
}

int RunVersion(const Context& context) {
  const DaemonView daemon = LookAtDaemon(context.config().state_dir,
                                         /*never_ran=*/false, kDaemonLimit);
  const bool runs = daemon.state == DaemonView::State::kRunning;
  if (context.json()) {
    PrintJson({{"queuectl", NIXQ_VERSION},
               {"queued", runs ? json(daemon.live.version) : json(nullptr)},
               {"daemon_state", std::string(Name(daemon.state))}});
    return kExitOk;
  }
  printf("queuectl %s\n", NIXQ_VERSION);
  if (runs) {
    printf("queued %s (running)\n", daemon.live.version.c_str());
  } else {
    printf("%s\n", std::string(Describe(daemon.state)).c_str());
  }
  return kExitOk;
}

}  // namespace nixq
