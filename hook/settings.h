// What the environment tells the hook: where things are and how strict to be.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/nix/store_path.h"

namespace nixq {

struct HookSettings {
  StoreDir store_dir;
  // Where the store's files really are; the same unless told otherwise.
  std::string real_store_dir;
  std::string state_dir;
  std::string roots_dir;  // "": none can be made, as problems say
  std::string nix_state_dir;
  // The store that Nix has built in, if it is not this one; else "".
  std::string other_store;
  // Lines about variables that are wrong, but do not keep paths from the queue.
  std::vector<std::string> problems;
  std::string drv_path;   // as Nix gave it, unchecked
  std::string out_paths;  // as Nix gave it, unchecked
};

// The value of an environment variable, "" if it is unset.
using EnvironmentLookup = std::function<std::string_view(const char* name)>;

// Reads the environment of a hook; `is_root` decides the default state
// directory. Touches no file. Directories come out absolute, without trailing
// slashes; one without which paths can be queued all the same, and that is
// relative, is a problem and not an error.
// Errors: INVALID_ARGUMENT     the state directory is relative or the store's
//                              is odd
//         FAILED_PRECONDITION  no variable says where the state directory is
absl::StatusOr<HookSettings> ReadHookSettings(const EnvironmentLookup& lookup,
                                              bool is_root);

}  // namespace nixq
