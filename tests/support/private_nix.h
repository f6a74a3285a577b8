// A whole Nix of a test's own: a store, a state directory and, on request, a
// daemon, in a temporary directory. Never touches /nix.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/subprocess.h"
#include "storage/nix/daemon_client.h"
#include "storage/nix/store_path.h"

namespace nixq {

// For one thread. The destructor ends the daemon and removes everything.
//
//   auto nix = PrivateNix::Create();
//   ASSERT_TRUE(nix.ok()) << nix.status();
//   auto outputs = (*nix)->Build(SimpleExpression("hello"));
class PrivateNix {
 public:
  // `settings` are more lines for nix.conf ("trusted-users = nobody\n").
  // NOT_FOUND if Nix is not installed.
  static absl::StatusOr<std::unique_ptr<PrivateNix>> Create(
      const std::string& settings = "");
  ~PrivateNix();

  // Starts the daemon; it accepts connections when this returns.
  absl::Status StartDaemon();
  // Kills the daemon and the workers that it has for its clients.
  void StopDaemon();

  // Runs a command with this Nix's environment and gives its standard output;
  // standard error is in the message of an error.
  absl::StatusOr<std::string> Run(const std::vector<std::string>& argv) const;

  // The outputs that `nix-build` prints for an expression, unrooted.
  absl::StatusOr<std::vector<StorePath>> Build(
      const std::string& expression) const;
  // The derivation of an expression, not built.
  absl::StatusOr<StorePath> Instantiate(const std::string& expression) const;
  // Registers a file of that name and content.
  absl::StatusOr<StorePath> AddFile(const std::string& name,
                                    const std::string& contents) const;
  absl::Status CollectGarbage() const;
  bool IsValid(const StorePath& path) const;

  const std::string& base() const { return base_; }
  const StoreDir& store_dir() const { return *store_dir_; }
  std::string Print(const StorePath& path) const {
    return store_dir_->Print(path);
  }
  std::string state_dir() const { return base_ + "/var"; }
  std::string roots_dir() const { return state_dir() + "/gcroots/arm-cache"; }
  std::string socket_path() const { return state_dir() + "/socket"; }
  std::vector<std::string> environment() const;

  // Of a client that speaks to the daemon's socket, or to a child of its own.
  DaemonClientOptions SocketOptions() const;
  DaemonClientOptions StdioOptions() const;

 private:
  PrivateNix() = default;

  std::string base_;
  std::optional<StoreDir> store_dir_;
  std::optional<PipedChild> daemon_;
};

// Expressions that build with /bin/sh alone. `name` is part of the names of
// what comes out.
std::string SimpleExpression(const std::string& name);
// `name`-0 refers to nothing, `name`-1 to `name`-0, and so on; the last one is
// built.
std::string ChainExpression(const std::string& name, int length);
// `name`-top refers to `name`-left and `name`-right, both to `name`-bottom.
std::string DiamondExpression(const std::string& name);
// Outputs out, dev and doc; out refers to dev.
std::string MultiOutputExpression(const std::string& name);
// Refers to itself.
std::string SelfReferenceExpression(const std::string& name);

}  // namespace nixq
