// Another machine's Nix store, on this machine.
//
// Paths can only be copied between stores of the same store directory, and
// one directory cannot be two stores. So the second store is a chroot store
// (`local?root=<base>`): its paths are called <store dir>/... as in the first
// one, but lie in <base>/nix/store. This works in Nix 2.8 and without
// privileges. A Nix daemon with settings of its own stands before it; it
// trusts no user, so that signatures are required even of root, and SSH
// sessions reach it by session_environment() alone.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/subprocess.h"
#include "storage/nix/store_path.h"

namespace nixq {

// For one thread. The destructor ends the daemon; `base` is the caller's to
// remove (keep it short: a socket lives there).
class RemoteStore {
 public:
  struct Options {
    std::vector<std::string> trusted_public_keys;
    std::vector<std::string> substituters;
  };
  static absl::StatusOr<std::unique_ptr<RemoteStore>> Start(
      const std::string& base, const StoreDir& store_dir,
      const Options& options);
  ~RemoteStore();

  // For sshd's sessions: they speak to the daemon.
  std::vector<std::string> session_environment() const;
  // For commands that look at the store itself.
  absl::StatusOr<std::string> Run(const std::vector<std::string>& argv) const;

  bool IsValid(const StorePath& path) const;
  // The real collector: removes what has no root.
  absl::Status CollectGarbage() const;
  // Reads every byte of the closure again, and checks the signatures.
  absl::Status Verify(const StorePath& path) const;

  void StopDaemon();
  absl::Status StartDaemon();

  std::string roots_dir() const {
    return base_ + "/nix/var/nix/gcroots/arm-cache";
  }

 private:
  RemoteStore(std::string base, StoreDir store_dir)
      : base_(std::move(base)), store_dir_(std::move(store_dir)) {}
  std::vector<std::string> CommonEnvironment() const;
  std::vector<std::string> StoreEnvironment() const;
  std::string socket_path() const { return base_ + "/socket"; }

  std::string base_;
  StoreDir store_dir_;
  std::optional<PipedChild> daemon_;
};

}  // namespace nixq
