#include "storage/cache/copy_batch.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "storage/base/status.h"

namespace nixq {
namespace {

using Code = absl::StatusCode;
using Scope = SshFailure::Scope;
using Group = std::vector<size_t>;  // indexes of paths

constexpr size_t kMaxArgvBytes = size_t{64} * 1024;
// Failures without a single success until the target is suspected.
constexpr int kDoubtfulFailures = 8;

// What can only be said of a path, whatever happens to the others.
bool IsPathsOwn(Code code) {
  return code == Code::kNotFound || code == Code::kDataLoss ||
         code == Code::kInvalidArgument || code == Code::kFailedPrecondition;
}

class Batch {
 public:
  Batch(const std::vector<StorePath>& paths, const SendPaths& send,
        const HasSignature& has_signature, const Cancellation& cancel)
      : paths_(paths),
        send_(send),
        has_signature_(has_signature),
        cancel_(cancel),
        settled_(paths.size()),
        failures_(paths.size()) {}

  std::vector<CopyOutcome> Run(size_t prefix_bytes);

 private:
  void PushGroups(size_t prefix_bytes);
  void Handle(Group group, SshFailure failure);
  void Probe();
  bool AllProbesFailedAlike() const;
  void SettleRest(const absl::Status& status);
  absl::Status Blamed(const SshFailure& failure) const;
  absl::Status Verdict(const SshFailure& failure) const;

  const std::vector<StorePath>& paths_;
  const SendPaths& send_;
  const HasSignature& has_signature_;
  const Cancellation& cancel_;

  std::vector<Group> pending_;  // the next one is at the end
  std::vector<std::optional<absl::Status>> settled_;
  std::vector<std::optional<SshFailure>> failures_;  // of paths found bad
  Group probes_;
  int processes_ = 0;
  int doubtful_failures_ = 0;  // that could be the target's
  size_t passed_ = 0;
};

void Batch::PushGroups(size_t prefix_bytes) {
  std::vector<Group> groups;
  size_t bytes = kMaxArgvBytes;
  for (size_t i = 0; i < paths_.size(); ++i) {
    const size_t more = prefix_bytes + paths_[i].base_name().size() + 2;
    if (bytes + more > kMaxArgvBytes) {
      groups.emplace_back();
      bytes = 0;
    }
    groups.back().push_back(i);
    bytes += more;
  }
  pending_.assign(groups.rbegin(), groups.rend());
}

std::vector<CopyOutcome> Batch::Run(size_t prefix_bytes) {
  if (paths_.empty()) return {};
  PushGroups(prefix_bytes);
  while (!pending_.empty()) {
    if (cancel_.cancelled()) {
      SettleRest(cancel_.Check());
      break;
    }
    if (processes_ == kMaxProcessesPerBatch) {
      SettleRest(BlamePath(absl::AbortedError(
          "too many bad paths in one batch; this one was not tried")));
      break;
    }
    Group group = std::move(pending_.back());
    pending_.pop_back();
    std::vector<StorePath> sent;
    sent.reserve(group.size());
    for (size_t i : group) sent.push_back(paths_[i]);
    ++processes_;
    if (std::optional<SshFailure> failure = send_(sent)) {
      Handle(std::move(group), *std::move(failure));
    } else {
      for (size_t i : group) settled_[i] = absl::OkStatus();
      passed_ += group.size();
    }
    if (probes_.empty() && passed_ == 0 &&
        doubtful_failures_ >= kDoubtfulFailures) {
      Probe();
    } else if (AllProbesFailedAlike()) {
      break;
    }
  }
  std::vector<CopyOutcome> outcomes;
  outcomes.reserve(paths_.size());
  // Paths that were left when the target was found guilty share its words.
  const std::optional<SshFailure>& common =
      probes_.empty() ? failures_.front() : failures_[probes_.front()];
  for (size_t i = 0; i < paths_.size(); ++i) {
    const std::optional<SshFailure>& own = failures_[i] ? failures_[i] : common;
    outcomes.push_back({paths_[i], settled_[i] ? *settled_[i] : Verdict(*own)});
  }
  return outcomes;
}

void Batch::Handle(Group group, SshFailure failure) {
  if (!IsPathsOwn(failure.code)) ++doubtful_failures_;
  if (cancel_.cancelled()) {
    for (size_t i : group) settled_[i] = cancel_.Check();
    return;
  }
  if (failure.scope == Scope::kTarget) {
    const absl::Status status(failure.code, failure.text);
    for (size_t i : group) settled_[i] = status;
    SettleRest(status);
    return;
  }
  if (group.size() == 1) {
    // What is missing is another path, over there: a reference. So is what is
    // corrupt, here.
    const bool other = failure.path != paths_[group.front()].base_name();
    if (failure.code == Code::kNotFound && other) failure.code = Code::kUnknown;
    if (failure.code == Code::kDataLoss && other && !failure.path.empty()) {
      failure.code = Code::kFailedPrecondition;
      failure.text =
          "its reference " + failure.path + " is corrupt: " + failure.text;
    }
    failures_[group.front()] = std::move(failure);
    return;
  }
  const auto named = std::find_if(group.begin(), group.end(), [&](size_t i) {
    return paths_[i].base_name() == failure.path;
  });
  if (failure.scope == Scope::kPath && named != group.end()) {
    failures_[*named] = std::move(failure);
    group.erase(named);
    pending_.push_back(std::move(group));
    return;
  }
  const auto middle =
      group.begin() + static_cast<std::ptrdiff_t>((group.size() + 1) / 2);
  pending_.emplace_back(middle, group.end());
  pending_.emplace_back(group.begin(), middle);
}

// Takes the first, the middle and the last path that are still open out of
// their groups, to be tried next and alone.
void Batch::Probe() {
  Group open;
  for (const Group& group : pending_) {
    open.insert(open.end(), group.begin(), group.end());
  }
  if (open.size() < 3) return;
  std::sort(open.begin(), open.end());
  probes_ = {open.front(), open[open.size() / 2], open.back()};
  for (Group& group : pending_) {
    std::erase_if(group, [&](size_t i) {
      return std::find(probes_.begin(), probes_.end(), i) != probes_.end();
    });
  }
  std::erase_if(pending_, [](const Group& group) { return group.empty(); });
  for (size_t i : probes_) pending_.push_back({i});
}

bool Batch::AllProbesFailedAlike() const {
  if (probes_.empty() || passed_ > 0) return false;
  return std::all_of(probes_.begin(), probes_.end(), [&](size_t i) {
    return failures_[i].has_value() && !IsPathsOwn(failures_[i]->code) &&
           failures_[i]->code == failures_[probes_.front()]->code;
  });
}

void Batch::SettleRest(const absl::Status& status) {
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (!settled_[i] && !failures_[i]) settled_[i] = status;
  }
  pending_.clear();
}

// The path's own fault: others went the same way and arrived.
absl::Status Batch::Blamed(const SshFailure& failure) const {
  const Code code =
      failure.code == Code::kUnknown ? Code::kInvalidArgument : failure.code;
  return BlamePath(absl::Status(code, failure.text));
}

absl::Status Batch::Verdict(const SshFailure& failure) const {
  if (passed_ > 0) return Blamed(failure);
  if (IsPathsOwn(failure.code)) return Blamed(failure);
  switch (failure.code) {
    case Code::kPermissionDenied:
      if (paths_.size() == 1 && failure.scope == Scope::kPath &&
          !has_signature_(failure.path)) {
        return Blamed(failure);
      }
      break;
    case Code::kUnknown:
      // A lone path with words that we do not know: its trouble, for now.
      if (paths_.size() == 1) {
        return BlamePath(absl::UnknownError(failure.text));
      }
      break;
    default:
      break;
  }
  return absl::Status(failure.code, failure.text);
}

}  // namespace

std::vector<CopyOutcome> SendBatch(const std::vector<StorePath>& paths,
                                   size_t bytes_per_path_prefix,
                                   const SendPaths& send,
                                   const HasSignature& has_signature,
                                   const Cancellation& cancel) {
  return Batch(paths, send, has_signature, cancel).Run(bytes_per_path_prefix);
}

}  // namespace nixq
