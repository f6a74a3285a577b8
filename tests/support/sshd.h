// A real sshd on loopback with keys, configuration and known_hosts of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/subprocess.h"

namespace nixq {

// For one thread. Lets in whoever has key_file(), as the user that runs the
// test. The destructor kills it and its sessions; the directory is the
// caller's to remove.
class Sshd {
 public:
  // Keeps its files in `directory`, which must be empty or missing, and gives
  // sessions the variables "NAME=value" (without white space). Runs on any
  // free port. NOT_FOUND if there is no sshd or ssh-keygen.
  static absl::StatusOr<std::unique_ptr<Sshd>> Start(
      const std::string& directory,
      const std::vector<std::string>& session_environment = {});
  ~Sshd();

  // Kills it and its sessions; Restart comes back on the same port.
  void Stop();
  absl::Status Restart();
  // Kills the sessions alone: connections break in the middle.
  void KillSessions();
  // Of the sessions, and what they have started.
  std::vector<int> Processes() const;

  // More lines for sshd_config, from the next Restart on.
  void set_more_configuration(const std::string& lines) { more_ = lines; }

  // scheme://user@127.0.0.1:port
  std::string Url(const std::string& scheme) const;
  const std::string& user() const { return user_; }
  int port() const { return port_; }
  std::string key_file() const { return directory_ + "/client_key"; }
  std::string known_hosts_file() const { return directory_ + "/known_hosts"; }
  // A key that it does not let in, and a file with another host key.
  std::string strangers_key_file() const { return directory_ + "/stranger"; }
  std::string wrong_known_hosts_file() const {
    return directory_ + "/wrong_known_hosts";
  }
  std::string Log() const;

 private:
  Sshd() = default;
  absl::Status MakeKeys();
  absl::Status WriteConfiguration();
  absl::Status Launch();

  std::string directory_;
  std::string session_environment_;
  std::string more_;
  std::string user_;
  int port_ = 0;
  std::optional<PipedChild> sshd_;
};

// The processes that `pid` has started, and theirs.
std::vector<int> DescendantsOf(int pid);
// SIGKILL to each; returns when all are gone.
void KillAll(const std::vector<int>& pids);

}  // namespace nixq
