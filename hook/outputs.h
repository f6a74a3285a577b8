// From what Nix says of a build to the store paths to keep.
//
// OUT_PATHS cannot be relied on: Nix 2.8.0 leaves it empty and several later
// versions name only the outputs that somebody wanted. What is kept is the
// union of OUT_PATHS, the outputs that the derivation names and that are
// there, and, where the derivation does not say, those that Nix has
// registered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hook/settings.h"
#include "storage/nix/derivation.h"
#include "storage/nix/store_path.h"
#include "storage/queue/inbox.h"

namespace nixq {

// Lines for standard error: the first few whole, then only their number.
class Complaints {
 public:
  static constexpr size_t kMaxLines = 10;

  void Add(std::string line);
  // Whether what is added is only counted; then its text need not be made.
  bool full() const { return lines_.size() == kMaxLines; }
  void AddUnshown() { ++more_; }
  // The lines, and one that says how many more there were.
  std::vector<std::string> Lines() const;

 private:
  std::vector<std::string> lines_;
  size_t more_ = 0;
};

// The store paths of one build, without duplicates.
struct BuildOutputs {
  std::vector<StorePath> named;         // in OUT_PATHS, sorted
  std::vector<StorePath> found;         // not named, but there; sorted
  std::optional<StorePath> derivation;  // DRV_PATH
  bool out_paths_empty = true;
  // Outputs that neither the .drv nor Nix's database tells: the daemon has to
  // ask Nix.
  bool ask_daemon = false;
};

// The largest OUT_PATHS that is looked at, in bytes; what lies beyond is
// refused as one token. Linux passes at most 128 KiB in one variable.
inline constexpr size_t kMaxOutPathsBytes = size_t{1024} * 1024;

// Checks OUT_PATHS token by token, and DRV_PATH. What is refused becomes a
// complaint; the rest goes on. Touches no file.
BuildOutputs ParseEnvironment(const HookSettings& settings,
                              Complaints& complaints);

// Completes `found`. Reads the .drv and takes the outputs that it names and
// that exist in the store; if it leaves any open (content-addressed ones) or
// is not there (a build for another machine), takes those that Nix's database
// has of it. Sets `ask_daemon` if more are to be expected. May block for as
// long as the store's file system does.
void FindOutputs(const HookSettings& settings, BuildOutputs& outputs);

// As rows for the inbox: outputs first, then the derivation if the daemon has
// to be asked.
std::vector<InboxEntry> InboxEntries(const HookSettings& settings,
                                     const BuildOutputs& outputs,
                                     int64_t now_unix_ms);

}  // namespace nixq
