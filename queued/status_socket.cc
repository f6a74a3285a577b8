#include "queued/status_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string_view>

#include "queued/sockets.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/unix_socket.h"

namespace nixq {
namespace {

constexpr size_t kLargestStatus = size_t{16} << 20;

int64_t Millis(absl::Time time) { return absl::ToUnixMillis(time); }

}  // namespace

std::string LiveStatusToJson(const LiveStatus& status) {
  nlohmann::json transfers = nlohmann::json::array();
  for (const LiveTransfer& transfer : status.transfers) {
    transfers.push_back({{"path", transfer.path},
                         {"target", transfer.target},
                         {"phase", transfer.phase},
                         {"done_bytes", transfer.done_bytes},
                         {"total_bytes", transfer.total_bytes},
                         {"since_unix_ms", Millis(transfer.since)}});
  }
  const nlohmann::json document = {{"version", status.version},
                                   {"pid", status.pid},
                                   {"started_unix_ms", Millis(status.started)},
                                   {"nix", status.nix},
                                   {"sent_bytes", status.sent_bytes},
                                   {"sent_paths", status.sent_paths},
                                   {"transfers", std::move(transfers)}};
  return document.dump(-1, ' ', false,
                       nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<LiveStatus> LiveStatusFromJson(std::string_view text) {
  const nlohmann::json document =
      nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  LiveStatus status;
  try {
    status.version = document.at("version").get<std::string>();
    status.pid = document.at("pid").get<int64_t>();
    status.started =
        absl::FromUnixMillis(document.at("started_unix_ms").get<int64_t>());
    status.nix = document.at("nix").get<std::string>();
    status.sent_bytes = document.at("sent_bytes").get<uint64_t>();
    status.sent_paths = document.at("sent_paths").get<int64_t>();
    for (const nlohmann::json& item : document.at("transfers")) {
      LiveTransfer transfer;
      transfer.path = item.at("path").get<std::string>();
      transfer.target = item.at("target").get<std::string>();
      transfer.phase = item.at("phase").get<std::string>();
      transfer.done_bytes = item.at("done_bytes").get<uint64_t>();
      transfer.total_bytes = item.at("total_bytes").get<uint64_t>();
      transfer.since =
          absl::FromUnixMillis(item.at("since_unix_ms").get<int64_t>());
      status.transfers.push_back(std::move(transfer));
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(std::string("status of the daemon: ") +
                               error.what());
  }
  return status;
}

absl::StatusOr<LiveStatus> ReadLiveStatus(const std::string& state_dir,
                                          absl::Duration limit) {
  absl::StatusOr<UniqueFd> fd =
      TryConnectUnixSocket(StatusSocketFile(state_dir), SOCK_STREAM);
  if (absl::IsDeadlineExceeded(fd.status()) ||
      absl::IsPermissionDenied(fd.status())) {
    return fd.status();
  }
  if (!fd.ok()) {
    return absl::UnavailableError("no daemon answers in " + state_dir + ": " +
                                  std::string(fd.status().message()));
  }
  const absl::Time deadline = SystemClock().Now() + limit;
  std::string text;
  while (text.size() < kLargestStatus) {
    pollfd wait = {fd->get(), POLLIN, 0};
    const int64_t left_ms =
        absl::ToInt64Milliseconds(deadline - SystemClock().Now());
    if (left_ms <= 0 || poll(&wait, 1, static_cast<int>(left_ms)) == 0) {
      return absl::DeadlineExceededError(
          "the daemon does not answer in time in " + state_dir);
    }
    char buffer[16 * 1024];
    const ssize_t n = recv(fd->get(), buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return ErrnoError(errno, "read the daemon's status");
    if (n == 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return LiveStatusFromJson(text);
}

void WakeDaemon(const std::string& state_dir) {
  absl::StatusOr<UniqueFd> fd =
      TryConnectUnixSocket(WakeSocketFile(state_dir), SOCK_DGRAM);
  if (!fd.ok()) return;
  [[maybe_unused]] ssize_t sent = send(fd->get(), "w", 1, MSG_DONTWAIT);
}

}  // namespace nixq
