// The Nix archive (NAR): the canonical serialisation of a file system object.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace nixq {

// Receives the bytes of an archive in order; an error stops the writer and is
// returned from it unchanged.
using ByteSink = absl::FunctionRef<absl::Status(std::string_view)>;

struct NarOptions {
  // Undo the `~nix~case~hack~` suffixes of case-insensitive file systems:
  // names are stripped, then sorted. True on macOS, as Nix has it.
#ifdef __APPLE__
  bool case_hack = true;
#else
  bool case_hack = false;
#endif
};

// Nodes may be nested this deep, as in Nix.
inline constexpr int kMaxNarDepth = 64;

// Writes the archive of the object at `path` straight from the file system,
// byte-identical to `nix-store --dump`. Follows no symlink, reads with one
// buffer of 256 KiB, holds no more than one directory's names per level.
// Errors: NOT_FOUND           vanished (at the start or underway)
//         PERMISSION_DENIED   unreadable
//         FAILED_PRECONDITION a socket, FIFO or device; a file that changed
//                             its size or kind underway; two names that the
//                             case hack makes equal
//         OUT_OF_RANGE        nested deeper than kMaxNarDepth
// These carry BlamePath's mark, which tells them from the sink's errors.
absl::Status WriteNar(const std::string& path, const NarOptions& options,
                      ByteSink sink);

}  // namespace nixq
