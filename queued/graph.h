// The paths on their way to one binary cache, and which must be shown before
// which. Pure.
//
// NARs may go in any order, the largest first; a narinfo waits for its own
// NAR and for the narinfos of those of its references that are in the graph.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "storage/nix/narinfo.h"
#include "storage/queue/queue.h"

namespace nixq {

class UploadGraph {
 public:
  enum class State { kWaiting, kSending, kSent, kShowing };

  struct Node {
    Node(ClaimedJob claimed, PathInfo path_info)
        : job(std::move(claimed)), info(std::move(path_info)) {}

    ClaimedJob job;
    PathInfo info;
    State state = State::kWaiting;
    std::optional<NarInfo> narinfo;  // from kSent on
    absl::Time started;
    std::set<StorePath> waits_for;  // references in the graph, not yet shown
    std::set<StorePath> referrers;  // in the graph, waiting for this one
    // Something that it waits for has left without being shown, while this
    // was under way: it must not be shown, and leaves when it comes back.
    bool orphaned = false;
  };

  // Adds a path; edges are made to all references and referrers that are in
  // the graph. A path that is there already is left as it is (false).
  bool Add(const ClaimedJob& job, const PathInfo& info);

  // The largest waiting NAR (of at most `at_most_bytes`, if given), which
  // becomes kSending.
  std::optional<StorePath> NextNar(std::optional<uint64_t> at_most_bytes,
                                   absl::Time now);
  // A sent path without unshown references, which becomes kShowing.
  std::optional<StorePath> NextShow();

  // Its NAR is at the target.
  void Sent(const StorePath& path, NarInfo narinfo);
  // It is done: it leaves the graph, its referrers wait for one less.
  Node Shown(const StorePath& path);
  // It leaves the graph with everything that waits for it, directly or not;
  // those in kSending become orphans until they come back by themselves.
  // The first of the result is the path itself.
  std::vector<Node> Fail(const StorePath& path);
  // Everything that is not under way leaves.
  std::vector<Node> Drop();

  const Node* Find(const StorePath& path) const;
  size_t size() const { return nodes_.size(); }
  std::vector<int64_t> JobIds() const;

 private:
  Node Take(std::map<StorePath, Node>::iterator it, bool shown);
  void MaybeShowable(const Node& node);

  std::map<StorePath, Node> nodes_;
  // Reference to the nodes that mention it, in the graph itself or not.
  std::map<StorePath, std::set<StorePath>> mentioned_by_;
  std::set<std::pair<uint64_t, StorePath>> waiting_;  // by NAR size
  std::set<StorePath> showable_;
};

}  // namespace nixq
