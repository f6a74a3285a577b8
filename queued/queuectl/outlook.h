// What happens next, and when, for a person: told from a row of the queue, the
// row of its target, and whether the daemon is there to do it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "queued/status_socket.h"
#include "storage/queue/report.h"

namespace nixq {

// The daemon as this user sees it.
struct DaemonView {
  enum class State {
    kRunning,
    kNeverRan,  // only hooks have written the queue
    kStopped,
    kSilent,  // it is there and does not answer: stopped by a signal, or hangs
    kHidden,  // this user may not ask
  };
  State state = State::kStopped;
  LiveStatus live;  // of a running one
};

// Asks the daemon of `state_dir`, waiting at most `limit`. `never_ran` is what
// the queue says.
DaemonView LookAtDaemon(const std::string& state_dir, bool never_ran,
                        absl::Duration limit);

// "running", "never-ran", "stopped", "silent", "hidden".
std::string_view Name(DaemonView::State state);
// "queued is not running"; "" for one that runs.
std::string_view Describe(DaemonView::State state);

// What is wrong with a target, in a line; "" if nothing is.
std::string Trouble(const TargetRow& target, DaemonView::State daemon,
                    absl::Time now);

// What happens next with a job, or with what is not yet a job: a sentence.
std::string NextStep(const JobRow& job, const std::vector<TargetRow>& targets,
                     DaemonView::State daemon, absl::Time now);
std::string NextStep(const Arrival& arrival, DaemonView::State daemon,
                     absl::Time now);

// The same in a word or three: "in 5 min", "paused", "when queued runs".
std::string NextTime(const JobRow& job, const std::vector<TargetRow>& targets,
                     DaemonView::State daemon, absl::Time now);
std::string NextTime(const Arrival& arrival, DaemonView::State daemon,
                     absl::Time now);

}  // namespace nixq
