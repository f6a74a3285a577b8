#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "queued/queuectl/commands.h"
#include "queued/status_socket.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/nix/gc_roots.h"

namespace nixq {
namespace {

using nlohmann::json;

constexpr absl::Duration kDaemonLimit = absl::Seconds(2);

void Print(const json& document) {
  printf("%s\n",
         document.dump(2, ' ', false, json::error_handler_t::replace).c_str());
}

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

std::string Health(const TargetRow& target) {
  if (!target.configured) return "not configured";
  if (target.paused) return "paused";
  return std::string(Name(target.health));
}

// What is wrong with a target, in a line; "" if nothing is.
std::string Trouble(const TargetRow& target, absl::Time now) {
  if (target.paused) {
    return "paused; `queuectl resume " + target.name + "` lets it go on";
  }
  if (target.health == TargetHealth::kUnreachable ||
      target.health == TargetHealth::kRefused) {
    return absl::StrFormat("%s: %s (%d in a row; next try %s)",
                           Name(target.health), target.error_text,
                           target.failures, HumanWhen(target.retry_at, now));
  }
  return "";
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

void PrintSummary(const QueueSummary& summary, absl::Time now) {
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
    const std::string trouble = Trouble(target.target, now);
    if (!trouble.empty()) {
      printf("  %s: %s\n", target.target.name.c_str(), trouble.c_str());
    }
  }
}

}  // namespace

int RunStatus(const Context& context) {
  absl::StatusOr<Report> report = context.OpenReport();
  if (!report.ok()) return Complain(report.status());
  absl::StatusOr<QueueSummary> summary = report->Summary();
  if (!summary.ok()) return Complain(summary.status());
  absl::StatusOr<LiveStatus> live =
      ReadLiveStatus(context.config().state_dir, kDaemonLimit);
  if (context.json()) {
    json targets = json::array();
    for (const TargetSummary& target : summary->targets) {
      targets.push_back(TargetJson(target));
    }
    Print({{"daemon",
            live.ok() ? json::parse(LiveStatusToJson(*live)) : json(nullptr)},
           {"targets", std::move(targets)},
           {"inbox", summary->inbox},
           {"derivations", summary->derivations},
           {"spool_files", summary->spool_files},
           {"holds", summary->holds},
           {"pins", summary->pins},
           {"file_bytes", summary->file_bytes},
           {"schema_version", summary->schema_version},
           {"state_dir", context.config().state_dir}});
    return kExitOk;
  }
  if (live.ok()) {
    printf("queued %s, up %s, %s; %d paths, %s sent since then\n",
           live->version.c_str(),
           HumanDuration(context.now() - live->started).c_str(),
           live->nix.c_str(), static_cast<int>(live->sent_paths),
           HumanBytes(live->sent_bytes).c_str());
  } else {
    printf("queued is not running: builds are queued, nothing is sent\n");
  }
  PrintSummary(*summary, context.now());
  if (live.ok()) PrintTransfers(*live, context.now());
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

// Jobs in the states asked for: one, or all that are not done.
absl::StatusOr<std::vector<JobRow>> ListJobs(const Context& context,
                                             const ListArguments& arguments) {
  NIXQ_ASSIGN_OR_RETURN(Report report, context.OpenReport());
  JobFilter filter;
  filter.older_than = arguments.older_than;
  if (!arguments.target.empty()) filter.target = arguments.target;
  filter.limit = arguments.limit;
  filter.open_only = arguments.state.empty();
  for (JobState state : {JobState::kSending, JobState::kQueued,
                         JobState::kParked, JobState::kDone}) {
    if (arguments.state == Name(state)) filter.state = state;
  }
  return report.Jobs(filter);
}

}  // namespace

int RunList(const Context& context, const ListArguments& arguments) {
  absl::StatusOr<std::vector<JobRow>> jobs = ListJobs(context, arguments);
  if (!jobs.ok()) return Complain(jobs.status());
  if (context.json()) {
    json list = json::array();
    for (const JobRow& job : *jobs) list.push_back(JobJson(job));
    Print(list);
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const JobRow& job : *jobs) {
    std::string what = job.error_text;
    if (job.state == JobState::kDone) {
      what.insert(0, what.empty() ? "" : ": ");
      what.insert(0, Name(job.outcome));
    }
    rows.push_back({std::string(Name(job.state)), job.target,
                    absl::StrFormat("%d", job.attempts),
                    HumanDuration(context.now() - job.queued_at),
                    job.next_attempt.has_value()
                        ? HumanWhen(*job.next_attempt, context.now())
                        : "-",
                    job.path, what});
  }
  PrintTable({"STATE", "TARGET", ">TRIES", ">AGE", "NEXT", "PATH", "NOTE"},
             rows);
  return kExitOk;
}

namespace {

// What happens next with a job, for a person.
std::string NextStep(const JobRow& job, const std::vector<TargetRow>& targets,
                     absl::Time now) {
  const auto target = std::find_if(
      targets.begin(), targets.end(),
      [&](const TargetRow& row) { return row.name == job.target; });
  switch (job.state) {
    case JobState::kSending:
      return "is being sent";
    case JobState::kDone:
      return "nothing: done";
    case JobState::kParked:
      if (!job.blocked_by.empty()) {
        return "waits until " + job.blocked_by + " is done";
      }
      return "nothing until `queuectl retry` or `queuectl forget`";
    case JobState::kQueued:
      break;
  }
  if (target != targets.end()) {
    if (!target->configured) return "waits: its target is not configured";
    const std::string trouble = Trouble(*target, now);
    if (!trouble.empty()) return "waits for its target: " + trouble;
  }
  return "is tried " + HumanWhen(job.next_attempt.value_or(now), now);
}

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
  if (context.json()) {
    json jobs = json::array();
    for (const JobRow& job : path->jobs) {
      jobs.push_back(JobJson(job));
      jobs.back()["next"] = NextStep(job, *targets, context.now());
    }
    Print({{"path", path->path},
           {"deriver", path->deriver},
           {"system", path->system},
           {"source", path->source},
           {"root", std::string(Name(path->root))},
           {"queued_at", Time(path->queued_at)},
           {"in_inbox", path->in_inbox},
           {"jobs", std::move(jobs)}});
    return kExitOk;
  }
  printf("%s\n", path->path.c_str());
  printf("  queued   %s, by %s\n", HumanTime(path->queued_at).c_str(),
         path->source.c_str());
  if (!path->deriver.empty()) {
    printf("  deriver  %s%s\n", path->deriver.c_str(),
           path->system.empty() ? "" : (" (" + path->system + ")").c_str());
  }
  printf("  root     %s\n", DescribeRoot(context, *path).c_str());
  if (path->in_inbox) printf("  inbox    not yet taken in by the daemon\n");
  for (const JobRow& job : path->jobs) {
    std::string state(Name(job.state));
    if (job.state == JobState::kDone)
      state += ", " + std::string(Name(job.outcome));
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
    printf("    next: %s\n", NextStep(job, *targets, context.now()).c_str());
  }
  return kExitOk;
}

int RunVersion(const Context& context) {
  absl::StatusOr<LiveStatus> live =
      ReadLiveStatus(context.config().state_dir, kDaemonLimit);
  if (context.json()) {
    Print({{"queuectl", NIXQ_VERSION},
           {"queued", live.ok() ? json(live->version) : json(nullptr)}});
    return kExitOk;
  }
  printf("queuectl %s\n", NIXQ_VERSION);
  if (live.ok()) printf("queued %s (running)\n", live->version.c_str());
  return kExitOk;
}

}  // namespace nixq
