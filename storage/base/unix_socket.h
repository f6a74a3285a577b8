// Unix sockets of any path: connecting, with or without waiting, and serving.
//
// Every socket made here is non-blocking, closed on exec, and raises no
// SIGPIPE where that is an option of the socket (macOS). Paths beyond the 108
// bytes of a socket address work on Linux; elsewhere they are
// INVALID_ARGUMENT. `type` is SOCK_STREAM or SOCK_DGRAM.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/cancel.h"
#include "storage/base/io.h"

namespace nixq {

// A connected stream socket. A full backlog is waited for, up to `limit`.
// Errors: NOT_FOUND or UNAVAILABLE  nobody listens there
//         DEADLINE_EXCEEDED         somebody does, and accepts nobody
absl::StatusOr<UniqueFd> ConnectUnixSocket(const std::string& path,
                                           absl::Duration limit,
                                           const Cancellation& cancel);

// A connected socket of `type`, or the error at once: never waits.
// DEADLINE_EXCEEDED: too many wait already for who does not take them.
absl::StatusOr<UniqueFd> TryConnectUnixSocket(const std::string& path,
                                              int type);

// A socket of `type` bound to `path`, mode 0660 where the file system has
// modes; a stream socket does not listen yet. A socket that lies there is
// replaced, whoever listens to it. Errors: FAILED_PRECONDITION  something else
// than a socket lies there
absl::StatusOr<UniqueFd> BindUnixSocket(const std::string& path, int type);

// The next waiting connection of a listening socket.
// Errors: UNAVAILABLE  none waits
absl::StatusOr<UniqueFd> AcceptUnixSocket(int listening);

}  // namespace nixq
