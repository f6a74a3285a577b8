#include "storage/nix/closure.h"

#include <functional>
#include <optional>
#include <queue>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

// One level of a breadth-first walk: the paths, and who asked for each
// (nullopt: a root).
struct Wave {
  std::vector<StorePath> paths;
  std::vector<std::optional<StorePath>> referrers;
};

absl::Status TooMany(size_t max_paths) {
  return absl::OutOfRangeError(
      absl::StrFormat("a closure of more than %d paths", max_paths));
}

}  // namespace

absl::StatusOr<Closure> ComputeClosure(
    Store& store, const std::vector<StorePath>& roots, size_t max_paths,
    absl::FunctionRef<bool(const PathInfo&)> descend) {
  Closure closure;
  std::unordered_set<StorePath> seen;
  Wave wave;
  const auto visit = [&seen](Wave& into, const StorePath& path,
                             std::optional<StorePath> referrer) {
    if (!seen.insert(path).second) return;
    into.paths.push_back(path);
    into.referrers.push_back(std::move(referrer));
  };
  for (const StorePath& root : roots) visit(wave, root, std::nullopt);

  while (!wave.paths.empty()) {
    if (seen.size() > max_paths) return TooMany(max_paths);
    NIXQ_ASSIGN_OR_RETURN(auto infos, store.QueryPathInfos(wave.paths));
    Wave next;
    for (size_t i = 0; i < wave.paths.size(); ++i) {
      if (!infos[i].has_value()) {
        if (wave.referrers[i].has_value()) {
          // A store never lacks a reference of a valid path, so the referrer
          // has been collected since it was asked about.
          return BlamePath(absl::NotFoundError(absl::StrFormat(
              "%s, which %s refers to, is not in the store any more",
              wave.paths[i].base_name(), wave.referrers[i]->base_name())));
        }
        closure.missing_roots.push_back(wave.paths[i]);
        continue;
      }
      PathInfo& info = *infos[i];
      if (!descend(info)) continue;
      for (const StorePath& reference : info.references) {
        visit(next, reference, info.path);
      }
      closure.paths.push_back(std::move(info));
    }
    wave = std::move(next);
  }
  closure.paths = TopologicallySorted(std::move(closure.paths));
  return closure;
}

// Kahn's algorithm, taking of all the paths that are ready the one that came
// first.
std::vector<PathInfo> TopologicallySorted(std::vector<PathInfo> paths) {
  std::unordered_map<StorePath, size_t> index;
  for (size_t i = 0; i < paths.size(); ++i) index.emplace(paths[i].path, i);
  std::vector<std::vector<size_t>> referrers(paths.size());
  std::vector<size_t> unsent_references(paths.size(), 0);
  for (size_t i = 0; i < paths.size(); ++i) {
    for (const StorePath& reference : paths[i].references) {
      auto found = index.find(reference);
      if (found == index.end() || found->second == i) continue;
      referrers[found->second].push_back(i);
      ++unsent_references[i];
    }
  }
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (unsent_references[i] == 0) ready.push(i);
  }
  std::vector<PathInfo> sorted;
  sorted.reserve(paths.size());
  std::vector<bool> taken(paths.size(), false);
  const auto take = [&](size_t i) {
    taken[i] = true;
    sorted.push_back(std::move(paths[i]));
  };
  while (!ready.empty()) {
    const size_t i = ready.top();
    ready.pop();
    take(i);
    for (size_t referrer : referrers[i]) {
      if (--unsent_references[referrer] == 0) ready.push(referrer);
    }
  }
  // Only a store that lies has cycles of several paths. They come last, as
  // they came in, so that nothing is dropped.
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!taken[i]) take(i);
  }
  return sorted;
}

}  // namespace nixq
