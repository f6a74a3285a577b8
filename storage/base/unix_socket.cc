#include "storage/base/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr int kBacklogPollMs = 20;

// What Linux can ask for when a descriptor is made, and others cannot.
void Prepare(int fd) {
#ifndef __linux__
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  fcntl(fd, F_SETFL, O_NONBLOCK);
#endif
#ifdef SO_NOSIGPIPE
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  (void)fd;
}

absl::StatusOr<UniqueFd> MakeSocket(int type) {
#ifdef __linux__
  type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
#endif
  UniqueFd fd(socket(AF_UNIX, type, 0));
  if (!fd.valid()) return ErrnoError(errno, "make a socket");
  Prepare(fd.get());
  return fd;
}

// The address of `path`. If the path is too long, it goes through an open
// descriptor of its directory, which must stay open as long as the address.
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

// Makes room for a socket at `path`.
absl::Status RemoveSocket(const std::string& path) {
  struct stat there;
  if (lstat(path.c_str(), &there) != 0) return absl::OkStatus();
  if (!S_ISSOCK(there.st_mode)) {
    return absl::FailedPreconditionError(path + ": is there and is no socket");
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, "remove " + path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UniqueFd> ConnectUnixSocket(const std::string& path,
                                           absl::Duration limit,
                                           const Cancellation& cancel) {
  UniqueFd directory;
  NIXQ_ASSIGN_OR_RETURN(const sockaddr_un address,
                        SocketAddress(path, directory));
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(SOCK_STREAM));
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

absl::StatusOr<UniqueFd> TryConnectUnixSocket(const std::string& path,
                                              int type) {
  UniqueFd directory;
  NIXQ_ASSIGN_OR_RETURN(const sockaddr_un address,
                        SocketAddress(path, directory));
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(type));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof address) != 0) {
    if (errno == EAGAIN) {
      return absl::DeadlineExceededError(
          "connect to " + path + ": nobody takes the connections that wait");
    }
    return ErrnoError(errno, "connect to " + path);
  }
  return fd;
}

absl::StatusOr<UniqueFd> BindUnixSocket(const std::string& path, int type) {
  UniqueFd directory;
  NIXQ_ASSIGN_OR_RETURN(const sockaddr_un address,
                        SocketAddress(path, directory));
  NIXQ_RETURN_IF_ERROR(RemoveSocket(path));
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(type));
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
           sizeof address) != 0) {
    return ErrnoError(errno, "bind " + path);
  }
  chmod(path.c_str(), 0660);
  return fd;
}

absl::StatusOr<UniqueFd> AcceptUnixSocket(int listening) {
#ifdef __linux__
  UniqueFd fd(
      accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
#else
  UniqueFd fd(accept(listening, nullptr, nullptr));
#endif
  if (!fd.valid()) return ErrnoError(errno, "accept a connection");
  Prepare(fd.get());
  return fd;
}

}  // namespace nixq
