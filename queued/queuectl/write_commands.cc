#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "queued/local_nix.h"
#include "queued/prune.h"
#include "queued/queuectl/commands.h"
#include "queued/status_socket.h"
#include "storage/base/process.h"
#include "storage/base/status.h"
#include "storage/nix/closure.h"
#include "storage/nix/collector.h"
#include "storage/nix/gc_roots.h"
#include "storage/queue/inbox.h"

namespace nixq {
namespace {

constexpr absl::Duration kBusyTimeout = absl::Seconds(5);
constexpr size_t kPathsAtOnce = 1000;
constexpr size_t kLargestClosure = 1'000'000;
constexpr absl::Duration kCollectorLimit = absl::Seconds(10);

int Done(const Context& context, std::string_view verb, int64_t count,
         std::string_view what) {
  WakeDaemon(context.config().state_dir);
  if (context.json()) {
    PrintJson({{std::string(verb), count}}, -1);
  } else {
    printf("%s %d %s%s\n", std::string(verb).c_str(), static_cast<int>(count),
           std::string(what).c_str(), count == 1 ? "" : "s");
  }
  return kExitOk;
}

// "nix-queued", or the number of what has no name.
std::string UserText(uid_t user) {
  absl::StatusOr<std::string> name = UserName(user);
  return name.ok() ? *name : absl::StrFormat("user %d", user);
}

// Says who may, where the file is not ours to write.
absl::Status ExplainWriting(const absl::Status& status,
                            const Context& context) {
  const std::string file = QueueFile(context.config().state_dir);
  struct stat info;
  if (!absl::IsPermissionDenied(status)) return status;
  if (stat(file.c_str(), &info) != 0) {
    return Annotate(status, "ask root (sudo)");
  }
  return absl::PermissionDeniedError(absl::StrFormat(
      "%s; its owner (%s)%s and root may", std::string(status.message()),
      UserText(info.st_uid),
      (info.st_mode & S_IWGRP) != 0
          ? absl::StrFormat(", members of group %d", info.st_gid)
          : ""));
}

absl::StatusOr<Queue> OpenQueue(const Context& context) {
  absl::StatusOr<Queue> queue = context.OpenQueue();
  if (!queue.ok()) return ExplainWriting(queue.status(), context);
  return queue;
}

// Says what is wrong with one path, where others go on.
void SayOf(const StoreDir& store_dir, const StorePath& path,
           std::string_view what) {
  Complain(absl::NotFoundError(
      absl::StrFormat("%s: %s", store_dir.Print(path), std::string(what))));
}

// Roots the paths, makes sure that they are still valid, and puts them into
// the inbox: in that order, with the temporary roots of `store` in force, so
// that no collection can come between. What is not valid is named and left
// out; returns how many that are.
absl::StatusOr<int64_t> Enqueue(const Context& context, Store& store,
                                GcRoots& roots, InboxWriter& inbox,
                                const std::vector<StorePath>& paths) {
  NIXQ_RETURN_IF_ERROR(store.AddTempRoots(paths));
  for (const StorePath& path : paths) {
    NIXQ_RETURN_IF_ERROR(roots.Hold(path));
  }
  NIXQ_RETURN_IF_ERROR(TellCollector(context.config().nix_state_dir,
                                     context.store_dir(), paths,
                                     kCollectorLimit));
  NIXQ_ASSIGN_OR_RETURN(std::vector<std::optional<PathInfo>> infos,
                        store.QueryPathInfos(paths));
  int64_t left_out = 0;
  std::vector<InboxEntry> entries;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!infos[i].has_value()) {
      absl::Status removed = roots.Remove(paths[i]);
      if (!absl::IsNotFound(removed)) NIXQ_RETURN_IF_ERROR(removed);
      SayOf(context.store_dir(), paths[i], "not valid in the store");
      ++left_out;
      continue;
    }
    InboxEntry entry;
    entry.path = context.store_dir().Print(paths[i]);
    if (infos[i]->deriver.has_value()) {
      entry.deriver = context.store_dir().Print(*infos[i]->deriver);
    }
    entry.source = "queuectl";
    entry.created_unix_ms = absl::ToUnixMillis(context.now());
    entries.push_back(std::move(entry));
  }
  NIXQ_RETURN_IF_ERROR(inbox.Put(entries));
  return left_out;
}

// What `add` is about, and how many of its arguments are nothing to add.
struct Addition {
  std::vector<StorePath> paths;
  int64_t left_out = 0;
};

absl::Status AddClosure(const Context& context, Store& store,
                        Addition& addition) {
  NIXQ_ASSIGN_OR_RETURN(Closure closure,
                        ComputeClosure(store, addition.paths, kLargestClosure,
                                       [](const PathInfo&) { return true; }));
  for (const StorePath& path : closure.missing_roots) {
    SayOf(context.store_dir(), path, "not valid in the store");
    ++addition.left_out;
  }
  addition.paths.clear();
  for (PathInfo& info : closure.paths) {
    if (!info.path.IsDerivation()) {
      addition.paths.push_back(std::move(info.path));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Addition> PathsToAdd(const Context& context,
                                    const AddArguments& arguments,
                                    Store& store) {
  Addition addition;
  for (const std::string& argument : arguments.paths) {
    absl::StatusOr<std::string> full = context.Resolve(argument);
    absl::StatusOr<StorePath> path =
        full.ok() ? context.store_dir().ParsePath(*full)
                  : absl::StatusOr<StorePath>(full.status());
    if (path.ok()) {
      addition.paths.push_back(*std::move(path));
    } else {
      Complain(path.status());
      ++addition.left_out;
    }
  }
  if (arguments.all_local) {
    NIXQ_ASSIGN_OR_RETURN(std::vector<StorePath> all,
                          store.QueryAllValidPaths());
    NIXQ_ASSIGN_OR_RETURN(std::vector<std::optional<PathInfo>> infos,
                          store.QueryPathInfos(all));
    for (const std::optional<PathInfo>& info : infos) {
      if (info.has_value() && info->ultimate && !info->path.IsDerivation()) {
        addition.paths.push_back(info->path);
      }
    }
  }
  if (arguments.closure) {
    NIXQ_RETURN_IF_ERROR(AddClosure(context, store, addition));
  }
  return addition;
}

}  // namespace

int RunAdd(const Context& context, const AddArguments& arguments) {
  std::unique_ptr<DaemonClient> store = MakeDaemonClient(
      context.config(), context.surroundings(), context.store_dir());
  absl::StatusOr<Addition> addition = PathsToAdd(context, arguments, *store);
  if (!addition.ok()) return Complain(addition.status());
  const std::vector<StorePath>& paths = addition->paths;
  if (paths.empty() && addition->left_out > 0) return kExitFailed;
  absl::StatusOr<GcRoots> roots = GcRoots::Open(
      context.config().roots_directory, context.store_dir(), true);
  if (!roots.ok()) return Complain(roots.status());
  absl::StatusOr<InboxWriter> inbox =
      InboxWriter::Open(context.config().state_dir, kBusyTimeout);
  if (!inbox.ok()) return Complain(ExplainWriting(inbox.status(), context));
  int64_t left_out = addition->left_out;
  auto added = static_cast<int64_t>(paths.size());
  for (size_t from = 0; from < paths.size(); from += kPathsAtOnce) {
    const std::vector<StorePath> some(
        paths.begin() + static_cast<std::ptrdiff_t>(from),
        paths.begin() + static_cast<std::ptrdiff_t>(
                            std::min(from + kPathsAtOnce, paths.size())));
    absl::StatusOr<int64_t> gone =
        Enqueue(context, *store, *roots, *inbox, some);
    if (!gone.ok()) return Complain(gone.status());
    added -= *gone;
    left_out += *gone;
  }
  const int code = Done(context, "added", added, "path");
  return left_out > 0 ? kExitFailed : code;
}

namespace {

absl::StatusOr<JobSelection> Selection(const Context& context,
                                       const SelectArguments& arguments) {
  JobSelection selection;
  NIXQ_ASSIGN_OR_RETURN(selection.paths, context.ResolveAll(arguments.paths));
  selection.parked_only = arguments.parked;
  selection.open_only = selection.paths.empty() && !arguments.parked;
  if (!arguments.target.empty()) selection.target = arguments.target;
  return selection;
}

constexpr std::string_view kUnknown = "the queue does not know it";
constexpr std::string_view kNotTakenIn =
    "the daemon has not yet taken it in: there is no job yet";

void SayOf(const std::string& path, std::string_view what) {
  Complain(
      absl::NotFoundError(absl::StrFormat("%s: %s", path, std::string(what))));
}

// Takes the paths that have no row out of the selection, and says why. False:
// there were such paths.
absl::StatusOr<bool> KeepKnown(Queue& queue, JobSelection& selection) {
  NIXQ_ASSIGN_OR_RETURN(std::vector<bool> known, queue.Known(selection.paths));
  std::vector<std::string> rest;
  for (size_t i = 0; i < known.size(); ++i) {
    const std::string& path = selection.paths[i];
    if (known[i]) {
      rest.push_back(path);
      continue;
    }
    absl::StatusOr<std::vector<RootNeed>> needs = queue.RootNeeds({path});
    SayOf(path,
          needs.ok() && needs->front().not_taken_in ? kNotTakenIn : kUnknown);
  }
  const bool all = rest.size() == selection.paths.size();
  selection.paths = std::move(rest);
  return all;
}

// A command that was told what to do, opened and with nothing unknown left.
struct Choice {
  Queue queue;
  JobSelection selection;
  bool all_known = true;
  // Every path that was named is unknown: without them the selection would
  // mean all jobs.
  bool nothing_left = false;
};

absl::StatusOr<Choice> Choose(const Context& context,
                              const SelectArguments& arguments) {
  NIXQ_ASSIGN_OR_RETURN(JobSelection selection, Selection(context, arguments));
  NIXQ_ASSIGN_OR_RETURN(Queue queue, OpenQueue(context));
  NIXQ_ASSIGN_OR_RETURN(bool all_known, KeepKnown(queue, selection));
  const bool nothing_left = !all_known && selection.paths.empty();
  return Choice{std::move(queue), std::move(selection), all_known,
                nothing_left};
}

// The jobs that `forget` would remove; one without a target is a derivation of
// which Nix is asked. Paths without jobs are named, and `complete` tells of
// them.
absl::StatusOr<std::vector<JobRow>> Selected(Report& report,
                                             const JobSelection& selection,
                                             bool& complete) {
  std::vector<JobRow> jobs;
  if (selection.paths.empty()) {
    JobFilter filter;
    filter.target = selection.target;
    filter.open_only = selection.open_only;
    if (selection.parked_only) filter.state = JobState::kParked;
    filter.limit = kLargestClosure;
    return report.Jobs(filter);
  }
  for (const std::string& path : selection.paths) {
    absl::StatusOr<PathReport> found = report.Path(path);
    if (!found.ok() && !absl::IsNotFound(found.status())) {
      return found.status();
    }
    const bool asked =
        found.ok() &&
        std::any_of(found->arrivals.begin(), found->arrivals.end(),
                    [](const auto& one) {
                      return one.place == Arrival::Place::kDerivations;
                    });
    if (asked && !selection.target.has_value() && !selection.parked_only) {
      jobs.emplace_back().path = path;
      continue;
    }
    if (!found.ok() || (found->jobs.empty() && !found->accepted)) {
      SayOf(path, found.ok() ? kNotTakenIn : kUnknown);
      complete = false;
      continue;
    }
    for (JobRow& job : found->jobs) {
      if (selection.target.has_value() && job.target != *selection.target) {
        continue;
      }
      if (selection.parked_only && job.state != JobState::kParked) continue;
      jobs.push_back(std::move(job));
    }
  }
  return jobs;
}

int RehearseForget(const Context& context, const SelectArguments& arguments) {
  absl::StatusOr<JobSelection> selection = Selection(context, arguments);
  if (!selection.ok()) return Complain(selection.status());
  absl::StatusOr<Report> report = context.OpenReport();
  if (!report.ok()) return Complain(report.status());
  bool complete = true;
  absl::StatusOr<std::vector<JobRow>> jobs =
      Selected(*report, *selection, complete);
  if (!jobs.ok()) return Complain(jobs.status());
  nlohmann::json list = nlohmann::json::array();
  for (const JobRow& job : *jobs) {
    const std::string state(job.target.empty()
                                ? Name(Arrival::Place::kDerivations)
                                : Name(job.state));
    if (context.json()) {
      list.push_back(
          {{"path", job.path}, {"target", job.target}, {"state", state}});
    } else {
      const std::string where = job.target.empty() ? "" : " for " + job.target;
      printf("would forget %s%s (%s)\n", job.path.c_str(), where.c_str(),
             state.c_str());
    }
  }
  if (context.json()) {
    PrintJson({{"dry_run", true}, {"would_forget", std::move(list)}});
  }
  return complete ? kExitOk : kExitFailed;
}

void PrintRetried(const Queue::Retried& retried) {
  printf("retrying %d job%s\n", static_cast<int>(retried.jobs),
         retried.jobs == 1 ? "" : "s");
  for (const std::string& target : retried.probed) {
    printf("%s was in trouble: it is tried again at once\n", target.c_str());
  }
  for (const std::string& target : retried.paused) {
    printf("%s is paused: `queuectl resume %s` lets it go on\n", target.c_str(),
           target.c_str());
  }
}

}  // namespace

int RunRetry(const Context& context, const SelectArguments& arguments) {
  absl::StatusOr<Choice> choice = Choose(context, arguments);
  if (!choice.ok()) return Complain(choice.status());
  if (choice->nothing_left) return kExitFailed;
  absl::StatusOr<Queue::Retried> retried =
      choice->queue.Retry(choice->selection);
  if (!retried.ok()) return Complain(retried.status());
  WakeDaemon(context.config().state_dir);
  if (context.json()) {
    PrintJson({{"retrying", retried->jobs},
               {"probed", retried->probed},
               {"paused", retried->paused}},
              -1);
  } else {
    PrintRetried(*retried);
  }
  return choice->all_known ? kExitOk : kExitFailed;
}

int RunForget(const Context& context, const SelectArguments& arguments) {
  if (arguments.dry_run) return RehearseForget(context, arguments);
  absl::StatusOr<Choice> choice = Choose(context, arguments);
  if (!choice.ok()) return Complain(choice.status());
  if (choice->nothing_left) return kExitFailed;
  absl::StatusOr<Queue::Forgotten> forgotten =
      choice->queue.Forget(choice->selection);
  if (!forgotten.ok()) return Complain(forgotten.status());
  WakeDaemon(context.config().state_dir);
  if (context.json()) {
    PrintJson({{"forgot", forgotten->jobs}, {"revived", forgotten->revived}},
              -1);
  } else {
    printf("forgot %d job%s\n", static_cast<int>(forgotten->jobs),
           forgotten->jobs == 1 ? "" : "s");
    if (forgotten->revived > 0) {
      printf("%d that waited for them: looked at anew\n",
             static_cast<int>(forgotten->revived));
    }
  }
  return choice->all_known ? kExitOk : kExitFailed;
}

int RunPause(const Context& context, const std::string& target, bool paused) {
  absl::StatusOr<Queue> queue = OpenQueue(context);
  if (!queue.ok()) return Complain(queue.status());
  absl::Status status = queue->SetPaused(target, paused);
  if (!status.ok()) return Complain(status);
  WakeDaemon(context.config().state_dir);
  if (context.json()) {
    PrintJson({{"target", target}, {"paused", paused}}, -1);
  } else {
    printf("%s %s\n", paused ? "paused" : "resumed", target.c_str());
  }
  return kExitOk;
}

namespace {

// What keeps the paths that still wait. Without it every root would look as if
// nobody needed it.
absl::StatusOr<Queue> OpenQueueToPrune(const Context& context, bool dry_run) {
  absl::StatusOr<Queue> queue =
      Queue::OpenForRoots(context.queue_options(), dry_run);
  if (queue.ok()) return queue;
  if (!absl::IsNotFound(queue.status())) {
    if (!dry_run) return ExplainWriting(queue.status(), context);
    // Says who may read, where that is what fails.
    absl::Status readable = context.OpenReport().status();
    return absl::IsPermissionDenied(readable) ? readable : queue.status();
  }
  return absl::NotFoundError(absl::StrFormat(
      "prune: %s is not there, and what still waits is not known without it: "
      "nothing is removed; give the daemon's --config or its --state-dir",
      QueueFile(context.config().state_dir)));
}

nlohmann::json RootsJson(const std::vector<PruneReport::Root>& roots) {
  nlohmann::json items = nlohmann::json::array();
  for (const PruneReport::Root& root : roots) {
    items.push_back({{"path", root.path},
                     {"age_s", absl::ToInt64Seconds(root.age)},
                     {"dangling", root.dangling},
                     {"why", root.why}});
  }
  return items;
}

void PrintPruneJson(const PruneReport& report, bool dry_run) {
  nlohmann::json strange = nlohmann::json::array();
  for (const StrangeEntry& entry : report.strange) {
    strange.push_back({{"name", entry.name}, {"why", entry.why}});
  }
  PrintJson({{"dry_run", dry_run},
             {"removed", RootsJson(report.removed)},
             {"kept", RootsJson(report.kept)},
             {"unlinked", report.unlinked},
             {"strange", std::move(strange)}});
}

void PrintPrune(const PruneReport& report, bool dry_run,
                const std::string& directory) {
  for (const PruneReport::Root& root : report.removed) {
    printf("%s %s (%s old%s)\n", dry_run ? "would remove" : "removed",
           root.path.c_str(), HumanDuration(root.age).c_str(),
           root.dangling ? ", dangling" : "");
  }
  for (const std::string& path : report.unlinked) {
    printf("%s the pin of %s (its link is gone)\n",
           dry_run ? "would forget" : "forgot", path.c_str());
  }
  for (const PruneReport::Root& root : report.kept) {
    printf("kept %s (%s)\n", root.path.c_str(), root.why.c_str());
  }
  for (const StrangeEntry& strange : report.strange) {
    printf("left alone %s/%s (%s)\n", directory.c_str(), strange.name.c_str(),
           strange.why.c_str());
  }
  printf("%d %s, %d kept\n", static_cast<int>(report.removed.size()),
         dry_run ? "would go" : "removed",
         static_cast<int>(report.kept.size()));
}

}  // namespace

int RunPrune(const Context& context, const PruneArguments& arguments) {
  absl::StatusOr<Queue> queue = OpenQueueToPrune(context, arguments.dry_run);
  if (!queue.ok()) return Complain(queue.status());
  absl::StatusOr<GcRoots> roots = GcRoots::Open(
      context.config().roots_directory, context.store_dir(), false);
  if (absl::IsNotFound(roots.status())) {
    fprintf(stderr, "queuectl: %s is not there: nothing to prune\n",
            context.config().roots_directory.c_str());
    return kExitOk;
  }
  if (!roots.ok()) return Complain(roots.status());
  absl::StatusOr<PruneReport> report =
      PruneRoots(*queue, *roots, context.store_dir(),
                 arguments.older_than.value_or(context.config().roots_max_age),
                 context.now(), arguments.dry_run);
  if (!report.ok()) {
    return Complain(Annotate(report.status(), "prune, nothing more removed"));
  }
  if (context.json()) {
    PrintPruneJson(*report, arguments.dry_run);
  } else {
    PrintPrune(*report, arguments.dry_run, roots->directory());
  }
  return kExitOk;
}

}  // namespace nixq
