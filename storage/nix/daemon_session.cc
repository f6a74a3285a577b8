#include "storage/nix/daemon_session.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/unix_socket.h"

namespace nixq {
namespace {

constexpr uint64_t kClientMagic = 0x6e697863;
constexpr uint64_t kDaemonMagic = 0x6478696f;
constexpr uint64_t kMajor = 1;
// The highest that has no exchange of features in its handshake, and what
// Lix insists on.
constexpr int kMinor = 35;
// Nix 2.4's. All requests and replies that we use look the same since then.
constexpr int kOldestMinor = 32;
constexpr int kMinorWithVersionText = 33;
constexpr int kMinorWithTrust = 35;

constexpr size_t kMaxVersionBytes = 1024;

// True if nobody serves this socket, as opposed to serving it badly.
bool NobodyListens(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsUnavailable(status);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DaemonSession>> DaemonSession::Connect(
    const DaemonClientOptions& options, const Cancellation& cancel) {
  auto session = std::unique_ptr<DaemonSession>(new DaemonSession());
  absl::StatusOr<UniqueFd> socket =
      absl::NotFoundError("no socket is configured");
  if (!options.socket_path.empty()) {
    socket =
        ConnectUnixSocket(options.socket_path, options.reply_limit, cancel);
  }
  if (socket.ok()) {
    session->socket_ = *std::move(socket);
    session->info_.transport = "unix:" + options.socket_path;
    session->wire_.emplace(session->socket_.get(), session->socket_.get(),
                           options.reply_limit, cancel);
  } else if (options.stdio_command.empty() || !NobodyListens(socket.status())) {
    if (absl::IsNotFound(socket.status())) {
      return absl::UnavailableError(socket.status().message());
    }
    return socket.status();
  } else {
    auto child =
        PipedChild::Start(options.stdio_command, options.stdio_environment);
    if (!child.ok()) {
      return absl::UnavailableError(
          absl::StrFormat("%s, and %s", std::string(socket.status().message()),
                          std::string(child.status().message())));
    }
    session->child_ = *std::move(child);
    session->info_.transport = "stdio";
    session->wire_.emplace(session->child_->from_child(),
                           session->child_->to_child(), options.reply_limit,
                           cancel);
  }
  NIXQ_RETURN_IF_ERROR(Annotate(session->ShakeHands(),
                                "Nix daemon at " + session->info_.transport));
  return session;
}

absl::Status DaemonSession::ShakeHands() {
  // All at once: below 1.38 nothing that we say depends on the answer. The
  // zeros are a CPU affinity and a reserve of disk space, both obsolete.
  wire_->PutUint(kClientMagic);
  wire_->PutUint(kMajor << 8 | kMinor);
  wire_->PutUint(0);
  wire_->PutUint(0);

  NIXQ_ASSIGN_OR_RETURN(const uint64_t magic, wire_->ReadUint());
  if (magic != kDaemonMagic) {
    return absl::DataLossError("it does not speak the daemon's protocol");
  }
  NIXQ_ASSIGN_OR_RETURN(const uint64_t version, wire_->ReadUint());
  const int minor = static_cast<int>(version & 0xff);
  if (version >> 8 != kMajor || minor < kOldestMinor) {
    return absl::DataLossError(
        absl::StrFormat("protocol %d.%d, not 1.%d or later", version >> 8,
                        minor, kOldestMinor));
  }
  info_.protocol_minor = std::min(minor, kMinor);
  if (info_.protocol_minor >= kMinorWithVersionText) {
    NIXQ_ASSIGN_OR_RETURN(info_.nix_version,
                          wire_->ReadString(kMaxVersionBytes));
  }
  if (info_.protocol_minor >= kMinorWithTrust) {
    NIXQ_ASSIGN_OR_RETURN(const uint64_t trust, wire_->ReadUint());
    if (trust > 2) {
      return absl::DataLossError(absl::StrFormat("a trust flag of %d", trust));
    }
    if (trust != 0) info_.trusted = trust == 1;
  }
  NIXQ_ASSIGN_OR_RETURN(std::optional<std::string> refusal,
                        wire_->AwaitReply());
  if (refusal.has_value()) {
    return absl::UnavailableError("refused us: " + *refusal);
  }
  return absl::OkStatus();
}

}  // namespace nixq
