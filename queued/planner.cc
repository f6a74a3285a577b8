#include "queued/planner.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/nix/closure.h"

namespace nixq {
namespace {

constexpr size_t kLargestClosure = 1'000'000;

// Why the filters of a target leave a path out; "" if they do not. What is
// sent since something else needs it is nobody's to leave out.
std::string WhySkipped(const TargetConfig& config, const ClaimedJob& job,
                       const PathInfo& info) {
  if (job.source == kReferenceSource) return "";
  const std::string name(info.path.name());
  auto matches = [&](const std::string& glob) { return GlobMatch(glob, name); };
  if (std::none_of(config.include.begin(), config.include.end(), matches)) {
    return "matches no pattern of include";
  }
  for (const std::string& glob : config.exclude) {
    if (matches(glob)) return "matches exclude = \"" + glob + "\"";
  }
  if (config.max_nar_size_bytes.has_value() &&
      info.nar_size_bytes > *config.max_nar_size_bytes) {
    return absl::StrFormat("%d bytes of NAR, more than max-nar-size",
                           info.nar_size_bytes);
  }
  if (!config.systems.empty() && !job.system.empty() &&
      std::find(config.systems.begin(), config.systems.end(), job.system) ==
          config.systems.end()) {
    return "system " + job.system + " is not in systems";
  }
  if (info.path.IsDerivation()) return "derivations are not uploaded";
  return "";
}

bool SignedByOne(const PathInfo& info, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    for (const std::string& signature : info.signatures) {
      if (signature.starts_with(name + ":")) return true;
    }
  }
  return false;
}

// What a target shows. What it has no answer for goes into `untold` and counts
// as missing: a reference becomes a job of its own, for others to wait for.
absl::StatusOr<std::vector<bool>> Shown(
    const std::vector<StorePath>& paths, absl::StatusOr<KeyAnswers> answers,
    std::map<StorePath, absl::Status>& untold) {
  NIXQ_RETURN_IF_ERROR(answers.status());
  std::vector<bool> shown(paths.size());
  for (size_t i = 0; i < paths.size(); ++i) {
    shown[i] = (*answers)[i].value_or(false);
    if (!(*answers)[i].ok()) untold[paths[i]] = (*answers)[i].status();
  }
  return shown;
}

// A claimed path that the target has no answer for does not go now, nor does
// what needs it: that would be shown without it.
void FailUntold(const std::map<StorePath, absl::Status>& untold,
                std::map<StorePath, Plan::Missing>& claimed,
                std::vector<PathInfo>& missing, Plan& plan) {
  std::map<StorePath, absl::Status> stuck;
  for (const auto& [path, status] : untold) {
    if (claimed.contains(path)) stuck.emplace(path, status);
  }
  for (size_t before = 0; before != stuck.size();) {
    before = stuck.size();
    for (const PathInfo& info : missing) {
      for (const StorePath& reference : info.references) {
        if (!stuck.contains(reference)) continue;
        stuck.emplace(info.path,
                      BlamePath(absl::UnavailableError(
                          "waits for its reference " + reference.base_name())));
      }
    }
  }
  for (const auto& [path, status] : stuck) {
    const auto it = claimed.find(path);
    if (it == claimed.end()) continue;
    plan.failed.push_back({it->second.job, status});
    claimed.erase(it);
  }
  std::erase_if(
      missing, [&](const PathInfo& info) { return stuck.contains(info.path); });
}

}  // namespace

absl::StatusOr<std::vector<PathInfo>> FindMissing(
    const std::vector<PathInfo>& closure, const std::vector<StorePath>& roots,
    absl::FunctionRef<
        absl::StatusOr<std::vector<bool>>(const std::vector<StorePath>&)>
        present) {
  std::map<StorePath, const PathInfo*> unknown;
  for (const PathInfo& info : closure) unknown.emplace(info.path, &info);
  const std::map<StorePath, const PathInfo*> all = unknown;
  std::set<StorePath> missing;

  // A path that is shown vouches for its closure, but not for what is known
  // to be missing, nor for what only that leads to.
  auto settle_closure = [&](const StorePath& path) {
    std::vector<StorePath> stack = {path};
    while (!stack.empty()) {
      const StorePath next = stack.back();
      stack.pop_back();
      if (missing.contains(next) || unknown.erase(next) == 0) continue;
      for (const StorePath& r : all.at(next)->references) stack.push_back(r);
    }
  };

  std::vector<StorePath> frontier;  // unknown, to be asked about now
  for (const StorePath& root : roots) {
    if (unknown.contains(root)) frontier.push_back(root);
  }
  for (int depth = 2; !frontier.empty(); depth = std::min(depth * 2, 1 << 20)) {
    NIXQ_ASSIGN_OR_RETURN(std::vector<bool> shown, present(frontier));
    std::vector<StorePath> level;
    for (size_t i = 0; i < frontier.size(); ++i) {
      if (shown[i]) continue;
      unknown.erase(frontier[i]);
      missing.insert(frontier[i]);
      level.push_back(frontier[i]);
    }
    for (size_t i = 0; i < frontier.size(); ++i) {
      if (shown[i]) settle_closure(frontier[i]);
    }
    std::set<StorePath> next;
    for (int d = 0; d < depth && !level.empty(); ++d) {
      std::vector<StorePath> below;
      for (const StorePath& path : level) {
        for (const StorePath& reference : all.at(path)->references) {
          if (!unknown.contains(reference)) continue;
          if (next.insert(reference).second) below.push_back(reference);
        }
      }
      level = std::move(below);
    }
    frontier.assign(next.begin(), next.end());
  }
  std::vector<PathInfo> result;
  for (const PathInfo& info : closure) {
    if (missing.contains(info.path)) result.push_back(info);
  }
  return result;
}

namespace {

template <typename T>
void Append(std::vector<T>& all, std::vector<T>& more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()),
             std::make_move_iterator(more.end()));
}

// Puts `more` into `plan`, which was made without knowing of it: what one of
// them has claimed is no mere reference of the other.
void Merge(Plan& plan, Plan more) {
  Append(plan.finished, more.finished);
  Append(plan.failed, more.failed);
  Append(plan.missing, more.missing);
  Append(plan.missing_references, more.missing_references);
  std::set<StorePath> seen;
  for (const Plan::Missing& missing : plan.missing) {
    seen.insert(missing.info.path);
  }
  std::erase_if(plan.missing_references, [&](const PathInfo& info) {
    return !seen.insert(info.path).second;
  });
}

}  // namespace

Plan PlanApart(const std::vector<ClaimedJob>& jobs,
               absl::FunctionRef<Plan(const std::vector<ClaimedJob>&)> make) {
  Plan plan = make(jobs);
  if (plan.status.ok() || !IsPathsFault(plan.status) || jobs.empty()) {
    return plan;
  }
  if (jobs.size() == 1) {
    Plan alone;
    alone.failed.push_back({jobs.front(), plan.status});
    return alone;
  }
  const auto middle =
      jobs.begin() + static_cast<std::ptrdiff_t>(jobs.size() / 2);
  plan = PlanApart({jobs.begin(), middle}, make);
  if (!plan.status.ok()) return plan;
  Plan rest = PlanApart({middle, jobs.end()}, make);
  if (!rest.status.ok()) return rest;
  Merge(plan, std::move(rest));
  return plan;
}

Planner::Planner(StoreDir store_dir, Store& store, Signer& signer, Clock& clock)
    : store_dir_(std::move(store_dir)),
      store_(store),
      signer_(signer),
      clock_(clock) {}

void Planner::Sort(const Target& target, const std::vector<ClaimedJob>& jobs,
                   Plan& plan) {
  std::vector<StorePath> paths;
  std::vector<const ClaimedJob*> askable;
  for (const ClaimedJob& job : jobs) {
    absl::StatusOr<StorePath> path = store_dir_.ParsePath(job.path);
    if (!path.ok()) {
      plan.failed.push_back({job, BlamePath(path.status())});
      continue;
    }
    paths.push_back(*std::move(path));
    askable.push_back(&job);
  }
  absl::StatusOr<std::vector<std::optional<PathInfo>>> infos =
      store_.QueryPathInfos(paths);
  if (!infos.ok()) {
    plan.status = Annotate(infos.status(), "local store");
    plan.store_failed = true;
    return;
  }
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!(*infos)[i].has_value()) {
      plan.finished.push_back({*askable[i], JobOutcome::kGone,
                               "not in the local store any more", 0});
      continue;
    }
    PathInfo& info = *(*infos)[i];
    const std::string why = WhySkipped(target.config(), *askable[i], info);
    if (!why.empty()) {
      plan.finished.push_back(
          {*askable[i], JobOutcome::kSkipped, why, info.nar_size_bytes});
      continue;
    }
    plan.missing.push_back({*askable[i], std::move(info)});
  }
}

Plan Planner::Make(Target& target, const std::vector<ClaimedJob>& jobs,
                   const Cancellation& cancel) {
  if (absl::Status prepared = target.Prepare(cancel); !prepared.ok()) {
    Plan plan;
    // Nothing was asked of any path yet.
    plan.status = BlameTarget(prepared);
    return plan;
  }
  return PlanApart(jobs, [&](const std::vector<ClaimedJob>& some) {
    return MakeWhole(target, some, cancel);
  });
}

Plan Planner::MakeWhole(Target& target, const std::vector<ClaimedJob>& jobs,
                        const Cancellation& cancel) {
  Plan plan;
  Sort(target, jobs, plan);
  if (!plan.status.ok()) return plan;
  plan.status = cancel.Check();
  if (plan.status.ok()) plan.status = SignAll(target, plan);
  if (plan.status.ok()) plan.status = Closure(target, plan, cancel);
  return plan;
}

// Signs what was enqueued. What goes to a Nix store over SSH takes its
// signatures from the local store, so there its closure is signed as well.
absl::Status Planner::SignAll(Target& target, Plan& plan) {
  if (!signer_.has_keys()) return absl::OkStatus();
  std::vector<PathInfo*> infos;
  for (Plan::Missing& missing : plan.missing) infos.push_back(&missing.info);
  nixq::Closure closure;
  if (target.config().kind == TargetKind::kSsh && target.config().closure) {
    std::vector<StorePath> roots;
    for (const Plan::Missing& missing : plan.missing) {
      roots.push_back(missing.info.path);
    }
    const absl::Time now = clock_.Now();
    absl::StatusOr<nixq::Closure> found =
        ComputeClosure(store_, roots, kLargestClosure, [&](const PathInfo& p) {
          return !target.known().Contains(p.path, now);
        });
    if (!found.ok()) {
      plan.store_failed = true;
      return found.status();
    }
    closure = *std::move(found);
    std::set<StorePath> own(roots.begin(), roots.end());
    for (PathInfo& info : closure.paths) {
      if (!own.contains(info.path)) infos.push_back(&info);
    }
  }
  absl::Status status = signer_.Sign(infos);
  if (!status.ok()) {
    plan.store_failed = true;
    return Annotate(status, "adding signatures to the local store");
  }
  for (const PathInfo& info : closure.paths) {
    target.known().Add(info.path, clock_.Now());
  }
  return absl::OkStatus();
}

// The closure of what is to be sent, as far as it has to be looked at, with
// the claimed paths in it whatever is known of them.
absl::StatusOr<std::vector<PathInfo>> Planner::ClosureOf(
    Target& target, const std::vector<StorePath>& roots, absl::Time now) {
  const std::set<StorePath> claimed(roots.begin(), roots.end());
  absl::StatusOr<nixq::Closure> found =
      ComputeClosure(store_, roots, kLargestClosure, [&](const PathInfo& info) {
        if (claimed.contains(info.path)) return true;
        return !target.known().Contains(info.path, now) &&
               !SignedByOne(info, target.config().skip_signed_by);
      });
  if (!found.ok()) return Annotate(found.status(), "closure");
  return std::move(found->paths);
}

// Takes out of `missing` the references that an upstream shows. An upstream
// that cannot be asked is no reason to wait: more is sent then.
void Planner::DropWhatUpstreamsHave(Target& target,
                                    const std::vector<StorePath>& roots,
                                    std::vector<PathInfo>& missing,
                                    const Cancellation& cancel) {
  const std::set<StorePath> claimed(roots.begin(), roots.end());
  for (std::unique_ptr<BinaryCache>& upstream : target.upstreams()) {
    std::vector<StorePath> references;
    for (const PathInfo& info : missing) {
      if (!claimed.contains(info.path)) references.push_back(info.path);
    }
    if (references.empty()) return;
    absl::StatusOr<KeyAnswers> there = upstream->Present(references, cancel);
    if (!there.ok()) continue;
    std::set<StorePath> skip;
    for (size_t i = 0; i < references.size(); ++i) {
      if ((*there)[i].value_or(false)) skip.insert(references[i]);
    }
    std::erase_if(missing, [&](const PathInfo& info) {
      return skip.contains(info.path);
    });
  }
}

absl::Status Planner::Closure(Target& target, Plan& plan,
                              const Cancellation& cancel) {
  if (target.config().kind == TargetKind::kSsh || plan.missing.empty()) {
    return absl::OkStatus();
  }
  const absl::Time now = clock_.Now();
  std::map<StorePath, Plan::Missing> claimed;
  std::vector<StorePath> roots;
  std::vector<PathInfo> closure;
  for (Plan::Missing& missing : plan.missing) {
    roots.push_back(missing.info.path);
    closure.push_back(missing.info);
    claimed.emplace(roots.back(), std::move(missing));
  }
  plan.missing.clear();
  if (target.only_signs()) {
    if (signer_.store_refuses()) {
      return absl::PermissionDeniedError(
          "the Nix daemon takes no signatures from this user: add it to "
          "trusted-users");
    }
    Divide(target, {}, std::move(claimed), plan);
    return absl::OkStatus();
  }
  if (target.config().closure && target.config().kind != TargetKind::kLocal) {
    absl::StatusOr<std::vector<PathInfo>> found = ClosureOf(target, roots, now);
    plan.store_failed = !found.ok();
    NIXQ_RETURN_IF_ERROR(found.status());
    closure = *std::move(found);
  }
  std::map<StorePath, absl::Status> untold;
  NIXQ_ASSIGN_OR_RETURN(
      std::vector<PathInfo> missing,
      FindMissing(closure, roots, [&](const std::vector<StorePath>& paths) {
        return Shown(paths, target.cache().Present(paths, cancel), untold);
      }));
  DropWhatUpstreamsHave(target, roots, missing, cancel);

  std::set<StorePath> to_send;
  std::vector<PathInfo*> references;
  for (PathInfo& info : missing) {
    to_send.insert(info.path);
    if (!claimed.contains(info.path)) references.push_back(&info);
  }
  if (absl::Status status = signer_.Sign(references); !status.ok()) {
    plan.store_failed = true;
    return Annotate(status, "adding signatures to the local store");
  }
  for (const PathInfo& info : closure) {
    if (!to_send.contains(info.path)) target.known().Add(info.path, now);
  }
  FailUntold(untold, claimed, missing, plan);
  Divide(target, std::move(missing), std::move(claimed), plan);
  return absl::OkStatus();
}

// Fills the plan: what is missing, claimed or not, and what is there.
void Planner::Divide(const Target& target, std::vector<PathInfo> missing,
                     std::map<StorePath, Plan::Missing> claimed, Plan& plan) {
  for (PathInfo& info : missing) {
    auto it = claimed.find(info.path);
    if (it == claimed.end()) {
      plan.missing_references.push_back(std::move(info));
      continue;
    }
    if (target.config().kind == TargetKind::kLocal) {
      plan.failed.push_back({it->second.job, BlamePath(absl::UnavailableError(
                                                 target.config().url +
                                                 " does not show it yet"))});
    } else {
      plan.missing.push_back(std::move(it->second));
    }
    claimed.erase(it);
  }
  for (const auto& [path, present] : claimed) {
    plan.finished.push_back(
        {present.job, JobOutcome::kPresent, "", present.info.nar_size_bytes});
  }
}

}  // namespace nixq
