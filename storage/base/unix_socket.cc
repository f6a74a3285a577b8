#include "storage/base/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr int kBacklogPollMs = 20;

absl::StatusOr<UniqueFd> MakeSocket() {
#ifdef __linux__
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
#else
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
  if (fd.valid()) {
    fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
    fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  }
#endif
  if (!fd.valid()) return ErrnoError(errno, "make a socket");
  return fd;
}

// The address of `path`. If the path is too long, it goes through an open
// descriptor of its directory, which must stay open until connect(2).
absl::StatusOr<sockaddr_un> SocketAddress(const std::string& path,
                                          UniqueFd& directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string text = path;
#ifdef __linux__
  if (text.size() >= sizeof address.sun_path) {
    const size_t slash = path.rfind('/');
    const std::string parent =
        slash == std::string::npos ? "." : path.substr(0, slash + 1);
    directory.Reset(open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid()) return ErrnoError(errno, "open " + parent);
    text = absl::StrFormat("/proc/self/fd/%d/%s", directory.get(),
                           path.substr(slash + 1));
  }
#else
  (void)directory;
#endif
  if (text.empty() || text.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError("no path for a socket: '" + path + "'");
  }
  std::memcpy(address.sun_path, text.c_str(), text.size() + 1);
  return address;
}

}  // namespace

absl::StatusOr<UniqueFd> ConnectUnixSocket(const std::string& path,
                                           absl::Duration limit,
                                           const Cancellation& cancel) {
  UniqueFd directory;
  NIXQ_ASSIGN_OR_RETURN(const sockaddr_un address,
                        SocketAddress(path, directory));
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket());
  const auto start = std::chrono::steady_clock::now();
  while (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof address) != 0) {
    const int err = errno;
    if (err == EISCONN) break;
    // EAGAIN is how Linux says that the backlog is full.
    if (err != EAGAIN && err != EINTR && err != EALREADY &&
        err != EINPROGRESS) {
      return ErrnoError(err, "connect to " + path);
    }
    if (absl::FromChrono(std::chrono::steady_clock::now() - start) >= limit) {
      return absl::DeadlineExceededError("connect to " + path +
                                         ": nobody accepts");
    }
    pollfd waiting{cancel.fd(), POLLIN, 0};
    poll(&waiting, 1, kBacklogPollMs);
    NIXQ_RETURN_IF_ERROR(cancel.Check());
  }
  return fd;
}

}  // namespace nixq
