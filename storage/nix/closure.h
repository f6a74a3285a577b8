// Closures: a path and all that it references, transitively.
#pragma once

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "storage/nix/store.h"

namespace nixq {

struct Closure {
  // References before referrers; each path once.
  std::vector<PathInfo> paths;
  // Asked for but not valid in the store.
  std::vector<StorePath> missing_roots;
};

// The closure of `roots`: one pipelined wave of queries for each level.
// `descend` says of each path whether its references belong in too (false for
// what the target has already, whose closure is there); such a path is itself
// left out. OUT_OF_RANGE beyond `max_paths` looked at; NOT_FOUND, blamed on
// the path, if a reference has gone from the store underway.
absl::StatusOr<Closure> ComputeClosure(
    Store& store, const std::vector<StorePath>& roots, size_t max_paths,
    absl::FunctionRef<bool(const PathInfo&)> descend);

// Sorts so that references come before referrers (self-references ignored;
// references outside `paths` too). Stable for what is unordered.
std::vector<PathInfo> TopologicallySorted(std::vector<PathInfo> paths);

}  // namespace nixq
