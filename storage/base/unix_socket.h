// Connecting to a Unix socket, with a limit.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/cancel.h"
#include "storage/base/io.h"

namespace nixq {

// A connected stream socket, non-blocking and closed on exec. Works for paths
// beyond the 108 bytes of a socket address on Linux; elsewhere these are
// INVALID_ARGUMENT. A full backlog is waited for, up to `limit`.
// Errors: NOT_FOUND or UNAVAILABLE  nobody listens there
//         DEADLINE_EXCEEDED         somebody does, and accepts nobody
absl::StatusOr<UniqueFd> ConnectUnixSocket(const std::string& path,
                                           absl::Duration limit,
                                           const Cancellation& cancel);

}  // namespace nixq
