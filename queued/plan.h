// What a look at the store and at one target says about claimed jobs: the
// value that passes from the planner to the scheduler.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "storage/nix/path_info.h"
#include "storage/queue/queue.h"

namespace nixq {

struct Plan {
  // Jobs that need no sending.
  struct Finished {
    ClaimedJob job;
    JobOutcome outcome = JobOutcome::kPresent;
    std::string reason;  // for people: "larger than max-nar-size"
    uint64_t nar_size_bytes = 0;
  };
  // Jobs that cannot be sent as they are.
  struct Failed {
    ClaimedJob job;
    absl::Status status;
  };

  // Not OK: nothing below is known; `store_failed` tells whether it was the
  // local store that could not be asked, or the target.
  absl::Status status;
  bool store_failed = false;

  std::vector<Finished> finished;
  std::vector<Failed> failed;
  // To send: the claimed jobs' own paths...
  struct Missing {
    ClaimedJob job;
    PathInfo info;
  };
  std::vector<Missing> missing;
  // ... and references that the target lacks, references first.
  std::vector<PathInfo> missing_references;
};

}  // namespace nixq
