// Which cache directories have been there before: a mount that is away looks
// like an empty directory, and must not be filled in its place.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace nixq {

// Remembers, in a file of the state directory, that `directory` is a cache.
// Where that cannot be written, it is not remembered. Blocks on the disk.
void NoteCacheSeen(const std::string& state_dir, const std::string& directory);

// UNAVAILABLE, with what to do, if the directory is remembered and is no cache
// now (it has no nix-cache-info). Blocks on the disk.
absl::Status CheckCacheSeen(const std::string& state_dir,
                            const std::string& directory);

}  // namespace nixq
