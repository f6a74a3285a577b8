// `queuectl wait`: watches the queue until nothing is left to do.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "queued/queuectl/commands.h"
#include "queued/queuectl/outlook.h"
#include "queued/status_socket.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

using nlohmann::json;

constexpr absl::Duration kFirstLook = absl::Milliseconds(50);
constexpr absl::Duration kSlowestLook = absl::Seconds(1);
// A daemon that is being started gets this long to answer.
constexpr absl::Duration kDaemonGrace = absl::Seconds(3);
// When there is no time at all to wait: what a daemon that runs needs to say
// so.
constexpr absl::Duration kShortestLook = absl::Milliseconds(200);
// Of the paths that did not arrive, so many are named.
constexpr size_t kMostNamed = 20;

json LeftJson(const Report::Outstanding& left) {
  json failed = json::array();
  for (const Report::Outstanding::Failure& failure : left.failed) {
    failed.push_back({{"path", failure.path}, {"why", failure.why}});
  }
  return {{"open", left.open},
          {"parked", left.parked},
          {"failed", std::move(failed)}};
}

// What did not arrive, a line for each path, on standard error.
void TellFailures(const Report::Outstanding& left) {
  for (size_t i = 0; i < left.failed.size() && i < kMostNamed; ++i) {
    fprintf(stderr, "queuectl: %s: %s\n", left.failed[i].path.c_str(),
            left.failed[i].why.c_str());
  }
  if (left.failed.size() > kMostNamed) {
    fprintf(stderr, "queuectl: and %zu more\n",
            left.failed.size() - kMostNamed);
  }
  if (left.parked > 0) {
    fprintf(stderr,
            "queuectl: %d parked; `queuectl list --state parked` says why\n",
            static_cast<int>(left.parked));
  }
}

// The line on a terminal that counts down; it leaves no trace.
class Countdown {
 public:
  Countdown() : terminal_(isatty(STDERR_FILENO) == 1) {}
  ~Countdown() { Clear(); }
  Countdown(const Countdown&) = delete;
  Countdown& operator=(const Countdown&) = delete;

  void Show(int64_t left) {
    if (!terminal_) return;
    Clear();
    fprintf(stderr, "%d to go", static_cast<int>(left));
  }
  void Clear() {
    if (terminal_) fprintf(stderr, "\r\033[K");
  }

 private:
  bool terminal_;
};

// How the waiting ended.
struct Watched {
  enum class End { kNothingLeft, kTimeOver, kNoDaemon };
  End end = End::kNothingLeft;
  Report::Outstanding left;
  DaemonView::State daemon = DaemonView::State::kRunning;
};

bool IsAway(DaemonView::State daemon) {
  return daemon == DaemonView::State::kStopped ||
         daemon == DaemonView::State::kNeverRan;
}

absl::StatusOr<Watched> Watch(const Context& context, Report& report,
                              const std::vector<std::string>& paths,
                              absl::Duration timeout) {
  const absl::Time start = SystemClock().Now();
  absl::Time daemon_seen = start;
  absl::Duration look = kFirstLook;
  bool told_hidden = false;
  auto ask = [&](absl::Duration limit) {
    return LookAtDaemon(context.config().state_dir, report.hooks_only(), limit)
        .state;
  };
  Watched watched;
  if (timeout < kShortestLook) watched.daemon = ask(kShortestLook);
  Countdown countdown;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(watched.left, report.Count(paths));
    countdown.Show(watched.left.open);
    if (watched.left.open == 0) return watched;
    absl::Time now = SystemClock().Now();
    if (now - start >= timeout) {
      watched.end = IsAway(watched.daemon) ? Watched::End::kNoDaemon
                                           : Watched::End::kTimeOver;
      return watched;
    }
    watched.daemon =
        ask(std::clamp(start + timeout - now, kShortestLook, kDaemonLimit));
    now = SystemClock().Now();
    if (watched.daemon == DaemonView::State::kRunning) {
      daemon_seen = now;
    } else if (watched.daemon == DaemonView::State::kHidden) {
      // It may well run: then what is open will go.
      if (!told_hidden) {
        countdown.Clear();
        fprintf(stderr, "queuectl: %s; waiting all the same\n",
                std::string(Describe(watched.daemon)).c_str());
        told_hidden = true;
      }
    } else if (now - daemon_seen > kDaemonGrace) {
      watched.end = Watched::End::kNoDaemon;
      return watched;
    }
    absl::SleepFor(
        std::clamp(start + timeout - now, absl::ZeroDuration(), look));
    look = std::min(look * 1.5, kSlowestLook);
  }
}

// ": nas: paused; ..., s3: unreachable: ..." of what is in the way; "" if
// nothing is.
std::string InTheWay(Report& report, const std::vector<std::string>& paths,
                     DaemonView::State daemon, absl::Time now) {
  absl::StatusOr<std::vector<TargetRow>> targets = report.WaitedFor(paths);
  std::string text;
  if (daemon == DaemonView::State::kSilent) {
    text = ": " + std::string(Describe(daemon));
  }
  if (!targets.ok()) return text;
  for (const TargetRow& target : *targets) {
    const std::string trouble = Trouble(target, daemon, now);
    if (trouble.empty()) continue;
    text += (text.empty() ? ": " : ", ") + target.name + ": " + trouble;
  }
  return text;
}

}  // namespace

int RunWait(const Context& context, const WaitArguments& arguments) {
  absl::StatusOr<std::vector<std::string>> paths =
      context.ResolveAll(arguments.paths);
  if (!paths.ok()) return Complain(paths.status());
  absl::StatusOr<Report> report = context.OpenReport();
  if (!report.ok()) return Complain(report.status());
  WakeDaemon(context.config().state_dir);
  absl::StatusOr<Watched> watched =
      Watch(context, *report, *paths, arguments.timeout);
  if (!watched.ok()) return Complain(watched.status());
  const Report::Outstanding& left = watched->left;
  if (context.json()) PrintJson(LeftJson(left));
  TellFailures(left);
  const int open = static_cast<int>(left.open);
  switch (watched->end) {
    case Watched::End::kNothingLeft:
      return left.parked == 0 && left.failed.empty() ? kExitOk : kExitFailed;
    case Watched::End::kTimeOver:
      fprintf(stderr, "queuectl: %d still open after %s%s\n", open,
              HumanDuration(arguments.timeout).c_str(),
              InTheWay(*report, *paths, watched->daemon, SystemClock().Now())
                  .c_str());
      return kExitFailed;
    case Watched::End::kNoDaemon:
      fprintf(stderr, "queuectl: %s, and %d wait%s for it\n",
              std::string(Describe(watched->daemon)).c_str(), open,
              open == 1 ? "s" : "");
      return kExitNoDaemon;
  }
  return kExitFailed;
}

}  // namespace nixq
