// The service manager's side of the daemon: readiness, status, watchdog and
// inherited sockets, as sd_notify(3) and sd_listen_fds(3) have them. Without
// a service manager all of it does nothing.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace nixq {

class Notifier {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID and removes them from
  // the environment, so that no child inherits them.
  static Notifier FromEnvironment();

  void Ready(std::string_view status) const;
  // Sent only when the text has changed.
  void Status(std::string_view status);
  void Reloading() const;
  void Stopping() const;
  void Watchdog() const;
  // Starting takes its time: more of it, and a sign of life.
  void StillStarting() const;
  // How often Watchdog() is wanted; nullopt: not at all.
  std::optional<absl::Duration> watchdog_interval() const {
    return watchdog_interval_;
  }

 private:
  void Send(const std::string& text) const;

  std::string socket_;
  std::string last_status_;
  std::optional<absl::Duration> watchdog_interval_;
};

// The datagram socket that the service manager bound for us, or -1. Removes
// LISTEN_FDS and LISTEN_PID from the environment.
int InheritedWakeSocket();

}  // namespace nixq
