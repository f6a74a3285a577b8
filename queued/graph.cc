#include "queued/graph.h"

#include <algorithm>

namespace nixq {

bool UploadGraph::Add(const ClaimedJob& job, const PathInfo& info) {
  const StorePath path = info.path;
  auto [it, added] = nodes_.try_emplace(path, job, info);
  if (!added) return false;
  Node& node = it->second;
  for (const StorePath& reference : node.info.references) {
    if (reference == path) continue;
    mentioned_by_[reference].insert(path);
    auto other = nodes_.find(reference);
    if (other == nodes_.end()) continue;
    node.waits_for.insert(reference);
    other->second.referrers.insert(path);
  }
  if (auto mentions = mentioned_by_.find(path);
      mentions != mentioned_by_.end()) {
    for (const StorePath& referrer : mentions->second) {
      Node& other = nodes_.at(referrer);
      if (other.state == State::kShowing) continue;
      other.waits_for.insert(path);
      node.referrers.insert(referrer);
      showable_.erase(referrer);
    }
  }
  waiting_.emplace(node.info.nar_size_bytes, path);
  return true;
}

std::optional<StorePath> UploadGraph::NextNar(
    std::optional<uint64_t> at_most_bytes, absl::Time now) {
  if (waiting_.empty()) return std::nullopt;
  auto it = std::prev(waiting_.end());
  if (at_most_bytes.has_value()) {
    while (it->first > *at_most_bytes) {
      if (it == waiting_.begin()) return std::nullopt;
      --it;
    }
  }
  StorePath path = it->second;
  waiting_.erase(it);
  Node& node = nodes_.at(path);
  node.state = State::kSending;
  node.started = now;
  return path;
}

std::optional<StorePath> UploadGraph::NextShow() {
  if (showable_.empty()) return std::nullopt;
  StorePath path = *showable_.begin();
  showable_.erase(showable_.begin());
  nodes_.at(path).state = State::kShowing;
  return path;
}

void UploadGraph::MaybeShowable(const Node& node) {
  if (node.state == State::kSent && node.waits_for.empty() && !node.orphaned) {
    showable_.insert(node.info.path);
  }
}

void UploadGraph::Sent(const StorePath& path, NarInfo narinfo) {
  Node& node = nodes_.at(path);
  node.state = State::kSent;
  node.narinfo = std::move(narinfo);
  MaybeShowable(node);
}

UploadGraph::Node UploadGraph::Take(std::map<StorePath, Node>::iterator it,
                                    bool shown) {
  Node node = std::move(it->second);
  const StorePath& path = node.info.path;
  nodes_.erase(it);
  waiting_.erase({node.info.nar_size_bytes, path});
  showable_.erase(path);
  for (const StorePath& reference : node.info.references) {
    auto mentions = mentioned_by_.find(reference);
    if (mentions == mentioned_by_.end()) continue;
    mentions->second.erase(path);
    if (mentions->second.empty()) mentioned_by_.erase(mentions);
    if (auto other = nodes_.find(reference); other != nodes_.end()) {
      other->second.referrers.erase(path);
    }
  }
  for (const StorePath& referrer : node.referrers) {
    Node& waiting = nodes_.at(referrer);
    waiting.waits_for.erase(path);
    if (shown) {
      MaybeShowable(waiting);
    } else {
      waiting.orphaned = true;
      showable_.erase(referrer);
    }
  }
  return node;
}

UploadGraph::Node UploadGraph::Shown(const StorePath& path) {
  return Take(nodes_.find(path), /*shown=*/true);
}

std::vector<UploadGraph::Node> UploadGraph::Fail(const StorePath& path) {
  std::vector<Node> failed;
  failed.push_back(Take(nodes_.find(path), /*shown=*/false));
  for (size_t i = 0; i < failed.size(); ++i) {
    const std::set<StorePath> referrers = failed[i].referrers;
    for (const StorePath& referrer : referrers) {
      auto it = nodes_.find(referrer);
      if (it == nodes_.end() || it->second.state == State::kSending) continue;
      failed.push_back(Take(it, /*shown=*/false));
    }
  }
  return failed;
}

std::vector<UploadGraph::Node> UploadGraph::Drop() {
  std::vector<Node> dropped;
  for (auto it = nodes_.begin(); it != nodes_.end();) {
    auto next = std::next(it);
    if (it->second.state == State::kWaiting ||
        it->second.state == State::kSent) {
      dropped.push_back(Take(it, /*shown=*/false));
    }
    it = next;
  }
  return dropped;
}

const UploadGraph::Node* UploadGraph::Find(const StorePath& path) const {
  auto it = nodes_.find(path);
  return it == nodes_.end() ? nullptr : &it->second;
}

std::vector<int64_t> UploadGraph::JobIds() const {
  std::vector<int64_t> ids;
  ids.reserve(nodes_.size());
  for (const auto& [path, node] : nodes_) ids.push_back(node.job.job_id);
  return ids;
}

}  // namespace nixq
