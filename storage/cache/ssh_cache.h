// Another machine's Nix store over SSH, by `nix copy` as a child process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/cancel.h"
#include "storage/cache/remote_roots.h"
#include "storage/cache/ssh_command.h"
#include "storage/nix/store_path.h"

namespace nixq {

struct SshOptions {
  StoreDir store_dir;
  // ssh://[user@]host[:port][?compress=true] or ssh-ng://...
  std::string url;
  std::string key_file;                  // "" the user's own
  std::string known_hosts_file;          // "" the user's own
  std::vector<std::string> ssh_options;  // "Name=value", each as ssh's -o
  std::string remote_program;            // "" Nix's default
  std::string remote_store;              // "" the default; e.g. a chroot store
  // Over ssh:// the receiver substitutes in silence, so that the stall limit
  // must allow for its longest download; over ssh-ng:// it reports.
  bool substitute_on_destination = false;
  bool closure = true;
  // Make a GC root on the receiving machine for each path sent, there.
  bool pin_remote = false;
  std::string remote_roots_directory = "/nix/var/nix/gcroots/arm-cache";
  // Our own directory in that one: only what is in it is ever pruned.
  std::string sender;
  // Without output; sending at 64 KiB a second or more is output enough.
  absl::Duration stall_limit = absl::Minutes(5);
  absl::Duration connect_limit = absl::Seconds(20);
  std::string nix_program = "nix";
  std::string ssh_program = "ssh";
  // What the children get, whole: PATH, HOME, NIX_REMOTE and alike.
  // NIX_CONFIG, NIX_SSHOPTS and askpass are dropped from it.
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
// Status of each path (blamed on the path where it says so):
//   UNAVAILABLE         host not reachable, connection lost, Nix daemon away,
//                       no Nix there or here; blamed if the connection breaks
//                       for this path alone
//   DEADLINE_EXCEEDED   no progress within the stall limit
//   RESOURCE_EXHAUSTED  no space left there
//   UNAUTHENTICATED     host refuses us, or its key is not the known one
//   PERMISSION_DENIED   "lacks a signature by a trusted key": blamed if others
//                       pass, or if the path has no signature at all;
//                       otherwise the target trusts none of our keys. Also:
//                       the account may not write to the store or make roots
//   NOT_FOUND           blamed: the path is not valid here
//   DATA_LOSS           blamed: its bytes are not what Nix registered
//   INVALID_ARGUMENT    blamed: anything else about this path
//   FAILED_PRECONDITION blamed: something else has its root's name there; one
//                       of its references is corrupt
//   ABORTED             blamed: not tried, the batch has too many bad paths
//   UNKNOWN             words that we do not know, and no path passed
//   CANCELLED
class SshCache {
 public:
  // INVALID_ARGUMENT: a URL or option that cannot be passed on safely.
  static absl::StatusOr<SshCache> Make(SshOptions options);

  // Sends `paths` and (unless closure is off) all that they reference, in one
  // process (more if the command line were longer than 64 KiB); when it fails
  // because of a path, halves until that path is alone and the others are
  // there. With pin_remote the roots are made first, so that the receiver's
  // collector finds them whenever it looks.
  // `on_progress` gets the NAR bytes sent so far; where Nix does not tell (2.8
  // does not), the bytes on the wire in steps.
  std::vector<CopyOutcome> Copy(
      const std::vector<StorePath>& paths,
      const std::function<void(uint64_t bytes)>& on_progress,
      const Cancellation& cancel) const;

  // Removes the roots that this sender made on the receiving machine, if they
  // are older than `max_age`. Returns how many. Errors as those of Copy.
  absl::StatusOr<int> PruneRemote(absl::Duration max_age,
                                  const Cancellation& cancel) const;

  // Reaches the other store and asks it something harmless; with pin_remote
  // also whether roots can be made.
  absl::Status Check(const Cancellation& cancel) const;

  std::string Describe() const { return options_.url; }

 private:
  SshCache(SshOptions options, SshAddress address)
      : options_(std::move(options)), address_(std::move(address)) {}

  RemoteRoots Roots() const {
    return {options_.remote_roots_directory, options_.sender,
            options_.store_dir};
  }
  absl::StatusOr<RootsAnswer> RunScript(std::string script,
                                        const Cancellation& cancel) const;

  SshOptions options_;
  SshAddress address_;
};

}  // namespace nixq
