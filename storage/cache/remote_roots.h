// GC roots on another machine: scripts for its shell, and what they answer.
//
// The scripts are POSIX sh with `readlink`, `touch -h` or `mv -T`, and
// `find -maxdepth -mmin`, as GNU, BSD, macOS and busybox have them. They are
// fed through standard input, so that no path is ever in an argv, and define
// one function that their last line calls: a script that arrives in part does
// nothing. They never leave the sender's own directory among the roots, never
// follow a symlink in its place, and change nothing in it but symlinks into
// the store: the receiver's own roots, and other senders', are not theirs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/nix/store_path.h"

namespace nixq {

// Where the roots are, over there.
struct RemoteRoots {
  std::string directory;  // absolute, without control characters
  // The directory in it that holds our roots and nobody else's.
  std::string sender;  // letters, digits, '-' and '_'
  StoreDir store_dir;  // of letters that no shell treats specially
};

// Creates the directories if needed and makes the root of each path, or renews
// its age. A path is never without a root that it had.
std::string PinScript(const RemoteRoots& roots,
                      const std::vector<StorePath>& paths);

// Removes the symlinks to store paths, directly in our directory, that are
// older than `max_age`, which is rounded up to minutes.
std::string PruneScript(const RemoteRoots& roots, absl::Duration max_age);

struct RootsAnswer {
  int count = 0;  // roots removed
  // Base names whose place is taken by something that is not a symlink.
  std::vector<std::string> taken;
};

// Reads a script's standard output.
//   PERMISSION_DENIED  it may not write there, or the directory is a symlink
//                      or none; the message says what to do
//   UNKNOWN            no answer of the script is in it, or tools are missing
absl::StatusOr<RootsAnswer> ParseRootsAnswer(std::string_view output,
                                             const RemoteRoots& roots);

}  // namespace nixq
