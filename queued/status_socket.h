// What the daemon is doing right now, told over <state dir>/status.sock: each
// connection gets one JSON document, the LiveStatus, and is closed.
//
// The rows of the queue say what has happened; this says what is happening:
// queuectl shows both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nixq {

// One thing that is being done.
struct LiveTransfer {
  std::string path;  // full store path; "" for a batch
  std::string target;
  std::string phase;         // "planning", "sending", "showing", "copying"
  uint64_t done_bytes = 0;   // NAR bytes
  uint64_t total_bytes = 0;  // 0: not known
  absl::Time since;
};

struct LiveStatus {
  std::string version;
  int64_t pid = 0;
  absl::Time started;
  std::string nix;  // "Nix 2.8.0 at unix:/nix/var/nix/daemon-socket/socket"
  uint64_t sent_bytes = 0;  // since the start, as sent
  int64_t sent_paths = 0;
  std::vector<LiveTransfer> transfers;
};

std::string LiveStatusToJson(const LiveStatus& status);
absl::StatusOr<LiveStatus> LiveStatusFromJson(std::string_view text);

// Asks the daemon of `state_dir`, waiting at most `limit`.
// Errors: UNAVAILABLE        none is running there
//         DEADLINE_EXCEEDED  one is, and does not answer in time
//         PERMISSION_DENIED  this user may not ask
//         others             it answers what is not understood
absl::StatusOr<LiveStatus> ReadLiveStatus(const std::string& state_dir,
                                          absl::Duration limit);

// Wakes the daemon of `state_dir` (one datagram to wake.sock, never waited
// for); if none listens, nothing happens: it looks by itself soon enough.
void WakeDaemon(const std::string& state_dir);

}  // namespace nixq
