// The daemon's two sockets in its state directory: wake.sock (datagrams whose
// content does not matter) and status.sock (one JSON document a connection).
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/io.h"

namespace nixq {

// "<state dir>/wake.sock", "<state dir>/status.sock".
std::string WakeSocketFile(const std::string& state_dir);
std::string StatusSocketFile(const std::string& state_dir);

// Made as by BindUnixSocket: what a dead daemon left there is replaced.
absl::StatusOr<UniqueFd> BindWakeSocket(const std::string& state_dir);
absl::StatusOr<UniqueFd> BindStatusSocket(const std::string& state_dir);

// Gives status.sock to a group, whose members may ask then. OK too if there is
// none.
absl::Status ShareStatusSocket(const std::string& state_dir, gid_t gid);

// Throws away the datagrams that have come.
void DrainWakeSocket(int fd);

// Takes waiting connections of the status socket, writes `text` to each
// without waiting for a slow reader, and closes it.
void AnswerStatus(int fd, const std::string& text);

}  // namespace nixq
