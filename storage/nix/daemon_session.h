// One connection to a Nix daemon, with its handshake done.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "storage/base/cancel.h"
#include "storage/base/io.h"
#include "storage/base/subprocess.h"
#include "storage/nix/daemon_client.h"
#include "storage/nix/wire.h"

namespace nixq {

// For one thread. The destructor hangs up; over stdio it ends the child.
class DaemonSession {
 public:
  // Connects as `options` say and shakes hands.
  // Errors: UNAVAILABLE        nobody there, or they refused us
  //         PERMISSION_DENIED  the socket may not be used by this user
  //         DATA_LOSS          not a Nix daemon, or one older than Nix 2.4
  //         DEADLINE_EXCEEDED, CANCELLED
  static absl::StatusOr<std::unique_ptr<DaemonSession>> Connect(
      const DaemonClientOptions& options, const Cancellation& cancel);

  Wire& wire() { return *wire_; }
  const DaemonInfo& info() const { return info_; }

 private:
  DaemonSession() = default;
  absl::Status ShakeHands();

  DaemonInfo info_;
  UniqueFd socket_;
  std::optional<PipedChild> child_;
  std::optional<Wire> wire_;  // after what it speaks over
};

}  // namespace nixq
