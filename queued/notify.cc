#include "queued/notify.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "storage/base/io.h"
#include "storage/base/process.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr int kFirstInheritedFd = 3;

bool IsForUs(const std::string& pid) {
  return pid.empty() || ParseUint(pid) == static_cast<uint64_t>(getpid());
}

}  // namespace

Notifier Notifier::FromEnvironment() {
  Notifier notifier;
  notifier.socket_ = TakeEnvironmentVariable("NOTIFY_SOCKET");
  const std::string usec = TakeEnvironmentVariable("WATCHDOG_USEC");
  const std::string pid = TakeEnvironmentVariable("WATCHDOG_PID");
  if (std::optional<uint64_t> limit = ParseUint(usec);
      limit.has_value() && *limit > 0 && IsForUs(pid)) {
    notifier.watchdog_interval_ =
        absl::Microseconds(static_cast<int64_t>(*limit / 2));
  }
  return notifier;
}

void Notifier::Send(const std::string& text) const {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return;
  memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') address.sun_path[0] = '\0';
  UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM, 0));
  if (!fd.valid()) return;
  fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
  const socklen_t length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  // A manager that does not listen is not our concern.
  [[maybe_unused]] ssize_t sent =
      sendto(fd.get(), text.data(), text.size(), MSG_DONTWAIT,
             reinterpret_cast<const sockaddr*>(&address), length);
}

void Notifier::Ready(std::string_view status) const {
  Send("READY=1\nSTATUS=" + std::string(status));
}

void Notifier::Status(std::string_view status) {
  if (status == last_status_) return;
  last_status_ = std::string(status);
  Send("STATUS=" + last_status_);
}

void Notifier::Reloading() const { Send("RELOADING=1"); }
void Notifier::Stopping() const { Send("STOPPING=1\nSTATUS=Stopping"); }
void Notifier::Watchdog() const { Send("WATCHDOG=1"); }
void Notifier::StillStarting() const {
  Send("EXTEND_TIMEOUT_USEC=300000000\nWATCHDOG=1");
}

int InheritedWakeSocket() {
  const std::string count = TakeEnvironmentVariable("LISTEN_FDS");
  const std::string pid = TakeEnvironmentVariable("LISTEN_PID");
  TakeEnvironmentVariable("LISTEN_FDNAMES");
  const std::optional<uint64_t> number = ParseUint(count);
  if (!number.has_value() || *number < 1 || pid.empty() || !IsForUs(pid)) {
    return -1;
  }
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(kFirstInheritedFd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      type != SOCK_DGRAM) {
    return -1;
  }
  fcntl(kFirstInheritedFd, F_SETFD, FD_CLOEXEC);
  fcntl(kFirstInheritedFd, F_SETFL, O_NONBLOCK);
  return kFirstInheritedFd;
}

}  // namespace nixq
