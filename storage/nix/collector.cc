#include "storage/nix/collector.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string_view>

#include "storage/base/cancel.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/unix_socket.h"

namespace nixq {
namespace {

using std::chrono::steady_clock;

// Between its lock and its socket a collector needs a moment, and so it does
// at its end.
constexpr int kRetryMs = 1;

// How long a connection stays after its last answer. The collector enters the
// thread of a connection into its list after having started it; Nix 2.8 aborts
// the whole collection ("terminate called without an active exception") if
// the connection has ended by then and the next one gets its number.
constexpr std::chrono::milliseconds kLinger(25);

#ifdef MSG_NOSIGNAL
constexpr int kSendFlags = MSG_NOSIGNAL;
#else
constexpr int kSendFlags = 0;
#endif

enum class Collector { kAbsent, kRuns, kUnknown };

absl::StatusOr<Collector> Look(const std::string& lock_file) {
  UniqueFd lock(open(lock_file.c_str(), O_RDWR | O_CLOEXEC));
  if (!lock.valid()) {
    // Who collects creates it first.
    if (errno == ENOENT) return Collector::kAbsent;
    if (errno == EACCES || errno == EPERM || errno == EROFS) {
      return Collector::kUnknown;
    }
    return ErrnoError(errno, "open " + lock_file);
  }
  while (flock(lock.get(), LOCK_SH | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Collector::kRuns;
    if (errno != EINTR) return ErrnoError(errno, "lock " + lock_file);
  }
  return Collector::kAbsent;
}

// Waits for `events`; false once it is `deadline`.
bool WaitFor(int fd, short events, steady_clock::time_point deadline) {
  while (true) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(
        deadline - steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd waiting{fd, events, 0};
    int ready = poll(&waiting, 1, static_cast<int>(left.count()));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

// False if the collector hung up, as it does at its end.
bool SendLine(int fd, std::string_view line,
              steady_clock::time_point deadline) {
  while (!line.empty()) {
    ssize_t sent = send(fd, line.data(), line.size(), kSendFlags);
    if (sent > 0) {
      line.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      if (!WaitFor(fd, POLLOUT, deadline)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

bool ReadAnswer(int fd, steady_clock::time_point deadline) {
  while (true) {
    char answer = 0;
    ssize_t got = recv(fd, &answer, 1, 0);
    if (got == 1) return answer == '1';
    if (got == 0) return false;
    if (errno == EAGAIN) {
      if (!WaitFor(fd, POLLIN, deadline)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
}

bool TellAll(int fd, const StoreDir& store_dir,
             const std::vector<StorePath>& paths,
             steady_clock::time_point deadline) {
  return std::all_of(paths.begin(), paths.end(), [&](const StorePath& path) {
    return SendLine(fd, store_dir.Print(path) + "\n", deadline) &&
           ReadAnswer(fd, deadline);
  });
}

}  // namespace

absl::Status TellCollector(const std::string& nix_state_dir,
                           const StoreDir& store_dir,
                           const std::vector<StorePath>& paths,
                           absl::Duration limit) {
  if (paths.empty()) return absl::OkStatus();
  const auto deadline = steady_clock::now() + absl::ToChronoNanoseconds(limit);
  const std::string socket = nix_state_dir + "/gc-socket/socket";
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(Collector collector,
                          Look(nix_state_dir + "/gc.lock"));
    if (collector == Collector::kAbsent) return absl::OkStatus();
    const absl::Duration left =
        absl::FromChrono(deadline - steady_clock::now());
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          "a garbage collection is running and does not answer at " + socket);
    }
    absl::StatusOr<UniqueFd> fd =
        ConnectUnixSocket(socket, left, Cancellation());
    if (fd.ok()) {
      if (TellAll(fd->get(), store_dir, paths, deadline)) {
        WaitFor(fd->get(), POLLIN, steady_clock::now() + kLinger);
        return absl::OkStatus();
      }
    } else if (collector == Collector::kUnknown) {
      return absl::OkStatus();  // nobody listens: none runs
    } else if (absl::IsInvalidArgument(fd.status())) {
      return fd.status();
    }
    poll(nullptr, 0, kRetryMs);
  }
}

}  // namespace nixq
