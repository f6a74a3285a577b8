// The Nix store over the daemon's worker protocol, version 1.35.
//
// Works with Nix 2.8 and later and with Lix: announces 1.35 and never more,
// so that the trust byte of the handshake is the only branch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "storage/base/cancel.h"
#include "storage/nix/store.h"

namespace nixq {

struct DaemonClientOptions {
  StoreDir store_dir;
  // The daemon's socket. If nobody listens there and `stdio_command` is set,
  // that child is spoken to instead (single-user installs).
  std::string socket_path;
  std::vector<std::string> stdio_command;      // {"nix-daemon", "--stdio"}
  std::vector<std::string> stdio_environment;  // "NAME=value"
  // How long one reply may take to begin or to go on.
  absl::Duration reply_limit = absl::Seconds(60);
};

struct DaemonInfo {
  std::string transport;        // "unix:<path>" or "stdio"
  std::string nix_version;      // as the daemon says, "" before 1.33
  int protocol_minor = 0;       // negotiated
  std::optional<bool> trusted;  // nullopt: not told (before 1.35)
};

// Connects on first use, reconnects when the connection is lost (once per
// call; then UNAVAILABLE), re-adds temporary roots after that. Requests are
// pipelined in a bounded window. Signatures go over a second connection, which
// may end at the other end (old daemons end it with a refusal) without taking
// the temporary roots along. What the daemon itself calls an error is
// UNAVAILABLE; its messages are stripped of terminal escapes. When it
// calls one an error that was asked about a path, that path is blamed.
class DaemonClient : public Store {
 public:
  explicit DaemonClient(DaemonClientOptions options);
  ~DaemonClient() override;

  // Connects if need be and tells what is at the other end.
  absl::StatusOr<DaemonInfo> Info();
  // Makes calls in other threads return CANCELLED soon, and all later ones.
  void Stop();

  absl::StatusOr<std::vector<std::optional<PathInfo>>> QueryPathInfos(
      const std::vector<StorePath>& paths) override;
  absl::StatusOr<std::map<std::string, std::optional<StorePath>>>
  QueryDerivationOutputs(const StorePath& derivation) override;
  absl::Status AddSignatures(
      const std::vector<std::pair<StorePath, std::vector<std::string>>>&
          signatures) override;
  absl::Status AddTempRoots(const std::vector<StorePath>& paths) override;
  // Lets go of all temporary roots, with the connection that keeps them.
  void DropTempRoots();
  absl::StatusOr<std::vector<StorePath>> QueryAllValidPaths() override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nixq
