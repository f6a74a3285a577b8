// Another machine's Nix store over SSH, by `nix copy` as a child process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/cancel.h"
#include "storage/nix/store_path.h"

namespace nixq {

struct SshOptions {
  StoreDir store_dir;
  std::string url;  // ssh://[user@]host[:port] or ssh-ng://...
  std::string key_file;          // "" the user's own
  std::string known_hosts_file;  // "" the user's own
  std::vector<std::string> ssh_options;  // "Name=value", each as ssh's -o
  std::string remote_program;    // "" Nix's default
  std::string remote_store;      // "" the default; e.g. a chroot store
  bool substitute_on_destination = false;
  bool closure = true;
  // Make a GC root on the receiving machine for each path sent, there.
  bool pin_remote = false;
  std::string remote_roots_directory = "/nix/var/nix/gcroots/arm-cache";
  absl::Duration stall_limit = absl::Minutes(5);
  absl::Duration connect_limit = absl::Seconds(20);
  std::string nix_program = "nix";
  std::string ssh_program = "ssh";
  // What the children get, whole: PATH, HOME, NIX_REMOTE and alike.
  std::vector<std::string> environment;
};

// What became of one path of a batch.
struct CopyOutcome {
  StorePath path;
  absl::Status status;
};

// Thread-safe; one Copy at a time is the caller's business. Children run in
// their own group and die with a cancellation. Host keys are always checked,
// nothing is ever asked of a terminal.
// Status of each path:
//   UNAVAILABLE         host not reachable, connection lost, Nix daemon away
//   DEADLINE_EXCEEDED   no progress within the stall limit
//   UNAUTHENTICATED     host refuses us, or its key is not the known one
//   PERMISSION_DENIED   "lacks a signature by a trusted key": not trusted
//   NOT_FOUND           the path is not valid here (blamed on the path)
//   INVALID_ARGUMENT    anything else about this path (blamed on the path)
//   CANCELLED
class SshCache {
 public:
  // INVALID_ARGUMENT: a URL or option that cannot be passed on safely.
  static absl::StatusOr<SshCache> Make(SshOptions options);

  // Sends `paths` and (unless closure is off) all that they reference, in one
  // process; when it fails because of a path, halves until that path is alone
  // and the others are there. With pin_remote the roots are made first, so
  // that the receiver's collector finds them whenever it looks.
  // `on_progress` gets the NAR bytes sent so far.
  std::vector<CopyOutcome> Copy(
      const std::vector<StorePath>& paths,
      const std::function<void(uint64_t bytes)>& on_progress,
      const Cancellation& cancel) const;

  // Removes roots older than `max_age` from the receiving machine's roots
  // directory. Returns how many.
  absl::StatusOr<int> PruneRemote(absl::Duration max_age,
                                  const Cancellation& cancel) const;

  // Reaches the other store and asks it something harmless.
  absl::Status Check(const Cancellation& cancel) const;

  std::string Describe() const { return options_.url; }

 private:
  explicit SshCache(SshOptions options) : options_(std::move(options)) {}
  SshOptions options_;
};

}  // namespace nixq
