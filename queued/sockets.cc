#include "queued/sockets.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr int kStatusBacklog = 16;
constexpr int kMostStatusAnswers = 16;

// A socket address for `file`, by way of an open descriptor of its directory
// (`via`, which must stay open) when its path is too long.
absl::StatusOr<sockaddr_un> AddressOf(const std::string& file, UniqueFd& via) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::string path = file;
  if (path.size() >= sizeof address.sun_path) {
    const size_t slash = file.rfind('/');
    via.Reset(open(file.substr(0, slash).c_str(),
                   O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!via.valid()) return ErrnoError(errno, "open directory of " + file);
    path = absl::StrFormat("/proc/self/fd/%d/%s", via.get(),
                           file.substr(slash + 1));
    if (path.size() >= sizeof address.sun_path) {
      return absl::InvalidArgumentError(file + ": too long for a socket");
    }
  }
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket(int type) {
  UniqueFd fd(socket(AF_UNIX, type, 0));
  if (!fd.valid()) return ErrnoError(errno, "create a socket");
  fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
  fcntl(fd.get(), F_SETFL, O_NONBLOCK);
#ifdef SO_NOSIGPIPE
  int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  return fd;
}

absl::StatusOr<UniqueFd> Bind(const std::string& file, int type) {
  struct stat there;
  if (lstat(file.c_str(), &there) == 0) {
    if (!S_ISSOCK(there.st_mode)) {
      return absl::FailedPreconditionError(file +
                                           ": is there and is no socket");
    }
    unlink(file.c_str());
  }
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket(type));
  UniqueFd via;
  NIXQ_ASSIGN_OR_RETURN(sockaddr_un address, AddressOf(file, via));
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) !=
      0) {
    return ErrnoError(errno, "bind " + file);
  }
  chmod(file.c_str(), 0660);
  return fd;
}

}  // namespace

std::string WakeSocketFile(const std::string& state_dir) {
  return state_dir + "/wake.sock";
}

std::string StatusSocketFile(const std::string& state_dir) {
  return state_dir + "/status.sock";
}

absl::StatusOr<UniqueFd> BindWakeSocket(const std::string& state_dir) {
  return Bind(WakeSocketFile(state_dir), SOCK_DGRAM);
}

absl::StatusOr<UniqueFd> BindStatusSocket(const std::string& state_dir) {
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd,
                        Bind(StatusSocketFile(state_dir), SOCK_STREAM));
  if (listen(fd.get(), kStatusBacklog) != 0) {
    return ErrnoError(errno, "listen on " + StatusSocketFile(state_dir));
  }
  return fd;
}

void DrainWakeSocket(int fd) {
  char byte;
  for (int i = 0; i < 1000; ++i) {
    if (recv(fd, &byte, 1, MSG_DONTWAIT) < 0) return;
  }
}

void AnswerStatus(int fd, const std::string& text) {
  for (int i = 0; i < kMostStatusAnswers; ++i) {
    UniqueFd client(accept(fd, nullptr, nullptr));
    if (!client.valid()) return;
    const int size = static_cast<int>(text.size());
    setsockopt(client.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    fcntl(client.get(), F_SETFL, O_NONBLOCK);
    int flags = 0;
#ifdef MSG_NOSIGNAL
    flags |= MSG_NOSIGNAL;
#endif
    size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t n =
          send(client.get(), text.data() + sent, text.size() - sent, flags);
      if (n <= 0) break;
      sent += static_cast<size_t>(n);
    }
  }
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& file, int type) {
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket(type));
  UniqueFd via;
  NIXQ_ASSIGN_OR_RETURN(sockaddr_un address, AddressOf(file, via));
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
              sizeof address) != 0) {
    return ErrnoError(errno, "connect to " + file);
  }
  return fd;
}

}  // namespace nixq
