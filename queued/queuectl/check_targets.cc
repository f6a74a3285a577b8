// `queuectl check`: whether each target answers and can be written.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "queued/local_nix.h"
#include "queued/queuectl/check_findings.h"
#include "queued/target.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr absl::Duration kTargetLimit = absl::Seconds(10);
// A little less, so that what hangs is named by who waits for it.
constexpr absl::Duration kSilenceLimit = absl::Seconds(8);
constexpr absl::Duration kCancelLimit = absl::Seconds(2);

absl::Status Ask(Target& target, const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(target.Prepare(cancel));
  switch (target.config().kind) {
    case TargetKind::kSsh:
      return target.ssh().Check(cancel);
    case TargetKind::kDirectory:
    case TargetKind::kHttp:
      return target.cache().CheckWritable(cancel);
    case TargetKind::kLocal:
      break;  // Prepare has asked it
  }
  return absl::OkStatus();
}

Finding FindingOf(const Target& target, const absl::Status& status) {
  const TargetConfig& config = target.config();
  const std::string what = "target " + config.name;
  if (absl::IsCancelled(status)) {
    return Bad(what,
               absl::DeadlineExceededError(
                   absl::StrFormat("%s: no answer within %d s", config.url,
                                   absl::ToInt64Seconds(kTargetLimit))),
               "is it up, and may this machine reach it?");
  }
  if (absl::IsPermissionDenied(status) &&
      config.kind == TargetKind::kDirectory) {
    return Bad(what, status,
               "the daemon's user must be able to write there; may you? sudo "
               "queuectl check");
  }
  if (!status.ok()) {
    return Bad(what, status, "see queued.toml(5) for how to reach it");
  }
  if (target.only_signs())
    return Good(what, "signs what is in the local store");
  if (config.kind == TargetKind::kLocal)
    return Good(what, config.url + " answers");
  return Good(what, config.url + " answers and can be written");
}

// Asks all targets at once, each in a thread of its own.
class Asking {
 public:
  explicit Asking(const Context& context) : config_(context.config()) {
    const std::vector<std::string> environment =
        ChildEnvironment(config_, context.surroundings());
    for (TargetConfig target : config_.targets) {
      target.connect_limit = std::min(target.connect_limit, kSilenceLimit);
      target.stall_limit = std::min(target.stall_limit, kSilenceLimit);
      targets_.push_back(std::make_unique<Target>(
          0, std::move(target), config_, environment, http_, SystemRandom()));
    }
  }

  // Returns whether every thread has come back; if not, this object has to
  // stay for good.
  bool Run(Findings& findings) {
    std::vector<std::thread> threads;
    threads.reserve(targets_.size());
    for (const std::unique_ptr<Target>& target : targets_) {
      threads.emplace_back([this, &target = *target] {
        absl::Status status = Ask(target, cancel_);
        std::lock_guard lock(mutex_);
        answers_.emplace_back(&target, std::move(status));
        answered_.notify_one();
      });
    }
    std::vector<const Target*> silent;
    for (const auto& target : targets_) silent.push_back(target.get());
    Take(kTargetLimit, silent, findings);
    if (!silent.empty()) {
      cancel_.Cancel();
      Take(kCancelLimit, silent, findings);
    }
    for (const Target* target : silent) {
      findings.Add(FindingOf(*target, absl::CancelledError()));
    }
    for (std::thread& thread : threads) {
      silent.empty() ? thread.join() : thread.detach();
    }
    return silent.empty();
  }

 private:
  // Reports what answers within `limit`, and takes it out of `silent`.
  void Take(absl::Duration limit, std::vector<const Target*>& silent,
            Findings& findings) {
    const auto deadline =
        std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(limit);
    std::unique_lock lock(mutex_);
    while (!silent.empty()) {
      if (answers_.empty() &&
          answered_.wait_until(lock, deadline) == std::cv_status::timeout) {
        return;
      }
      while (!answers_.empty()) {
        const auto [target, status] = std::move(answers_.front());
        answers_.pop_front();
        std::erase(silent, target);
        findings.Add(FindingOf(*target, status));
      }
    }
  }

  const Config config_;
  HttpClient http_;
  Cancellation cancel_;
  std::vector<std::unique_ptr<Target>> targets_;
  std::mutex mutex_;
  std::condition_variable answered_;
  std::deque<std::pair<const Target*, absl::Status>> answers_;
};

}  // namespace

void CheckTargets(const Context& context, Findings& findings) {
  if (context.config().targets.empty()) {
    findings.Add(Warn("targets", "none is configured",
                      "paths are queued and pinned, nothing is sent"));
    return;
  }
  auto asking = std::make_unique<Asking>(context);
  // A thread that hangs in the kernel still uses it; this process ends soon.
  if (!asking->Run(findings)) static_cast<void>(asking.release());
}

}  // namespace nixq
