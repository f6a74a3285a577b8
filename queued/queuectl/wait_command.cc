// `queuectl wait`: watches the queue until nothing is left to do.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "queued/queuectl/commands.h"
#include "queued/status_socket.h"
#include "storage/base/clock.h"

namespace nixq {
namespace {

using nlohmann::json;

constexpr absl::Duration kDaemonLimit = absl::Seconds(2);
constexpr absl::Duration kFirstLook = absl::Milliseconds(50);
constexpr absl::Duration kSlowestLook = absl::Seconds(1);
// A daemon that is being started gets this long to answer.
constexpr absl::Duration kDaemonGrace = absl::Seconds(3);
// Of the paths that did not arrive, so many are named.
constexpr size_t kMostNamed = 20;

void PrintJson(const Report::Outstanding& left) {
  json failed = json::array();
  for (const Report::Outstanding::Failure& failure : left.failed) {
    failed.push_back({{"path", failure.path}, {"why", failure.why}});
  }
  const json document = {{"open", left.open},
                         {"parked", left.parked},
                         {"failed", std::move(failed)}};
  printf("%s\n",
         document.dump(2, ' ', false, json::error_handler_t::replace).c_str());
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

}  // namespace

int RunWait(const Context& context, const WaitArguments& arguments) {
  absl::StatusOr<std::vector<std::string>> paths =
      context.ResolveAll(arguments.paths);
  if (!paths.ok()) return Complain(paths.status());
  absl::StatusOr<Report> report = context.OpenReport();
  if (!report.ok()) return Complain(report.status());
  WakeDaemon(context.config().state_dir);
  const absl::Time start = SystemClock().Now();
  absl::Time daemon_seen = start;
  absl::Duration look = kFirstLook;
  const bool terminal = isatty(STDERR_FILENO) == 1;
  while (true) {
    absl::StatusOr<Report::Outstanding> left = report->Count(*paths);
    if (!left.ok()) return Complain(left.status());
    const absl::Time now = SystemClock().Now();
    if (terminal) {
      fprintf(stderr, "\r\033[K%d to go", static_cast<int>(left->open));
      if (left->open == 0) fprintf(stderr, "\r\033[K");
    }
    if (left->open == 0) {
      if (context.json()) PrintJson(*left);
      TellFailures(*left);
      return left->parked == 0 && left->failed.empty() ? kExitOk : kExitFailed;
    }
    if (now - start >= arguments.timeout) {
      if (context.json()) PrintJson(*left);
      TellFailures(*left);
      fprintf(stderr, "queuectl: %d still open after %s\n",
              static_cast<int>(left->open),
              HumanDuration(arguments.timeout).c_str());
      return kExitFailed;
    }
    if (ReadLiveStatus(context.config().state_dir, kDaemonLimit).ok()) {
      daemon_seen = now;
    } else if (now - daemon_seen > kDaemonGrace) {
      fprintf(stderr,
              "queuectl: queued is not running, and %d jobs wait for it\n",
              static_cast<int>(left->open));
      return kExitNoDaemon;
    }
    absl::SleepFor(std::min(look, start + arguments.timeout - now));
    look = std::min(look * 1.5, kSlowestLook);
  }
}

}  // namespace nixq
