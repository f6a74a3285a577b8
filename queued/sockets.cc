#include "queued/sockets.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/unix_socket.h"

namespace nixq {
namespace {

constexpr int kStatusBacklog = 16;
constexpr int kMostStatusAnswers = 16;

}  // namespace

std::string WakeSocketFile(const std::string& state_dir) {
  return state_dir + "/wake.sock";
}

std::string StatusSocketFile(const std::string& state_dir) {
  return state_dir + "/status.sock";
}

absl::StatusOr<UniqueFd> BindWakeSocket(const std::string& state_dir) {
  return BindUnixSocket(WakeSocketFile(state_dir), SOCK_DGRAM);
}

absl::StatusOr<UniqueFd> BindStatusSocket(const std::string& state_dir) {
  NIXQ_ASSIGN_OR_RETURN(
      UniqueFd fd, BindUnixSocket(StatusSocketFile(state_dir), SOCK_STREAM));
  if (listen(fd.get(), kStatusBacklog) != 0) {
    return ErrnoError(errno, "listen on " + StatusSocketFile(state_dir));
  }
  return fd;
}

absl::Status ShareStatusSocket(const std::string& state_dir, gid_t gid) {
  const std::string file = StatusSocketFile(state_dir);
  if (lchown(file.c_str(), -1, gid) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  return ErrnoError(errno, absl::StrFormat("give %s to group %d, of which "
                                           "this user must be a member",
                                           file, gid));
}

void DrainWakeSocket(int fd) {
  char byte;
  for (int i = 0; i < 1000; ++i) {
    if (recv(fd, &byte, 1, MSG_DONTWAIT) < 0) return;
  }
}

void AnswerStatus(int fd, const std::string& text) {
  for (int i = 0; i < kMostStatusAnswers; ++i) {
    absl::StatusOr<UniqueFd> client = AcceptUnixSocket(fd);
    if (!client.ok()) return;
    const int size = static_cast<int>(text.size());
    setsockopt(client->get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    int flags = 0;
#ifdef MSG_NOSIGNAL
    flags |= MSG_NOSIGNAL;
#endif
    size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t n =
          send(client->get(), text.data() + sent, text.size() - sent, flags);
      if (n <= 0) break;
      sent += static_cast<size_t>(n);
    }
  }
}

}  // namespace nixq
