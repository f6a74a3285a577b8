// What a failed `nix copy` or `ssh` said, and what that means.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "storage/nix/store_path.h"

namespace nixq {

struct SshFailure {
  // Whose fault it is, as far as the words tell.
  enum class Scope {
    kTarget,   // every other path would fail alike
    kPath,     // one path's; the others of the batch may pass
    kUnknown,  // try and see
  };

  absl::StatusCode code = absl::StatusCode::kUnknown;
  Scope scope = Scope::kUnknown;
  std::string text;  // one line: what was said, and what to do
  std::string path;  // base name of the store path that it names, or ""
};

// Understands what a program that failed has said, oldest line first: the
// lines of ssh, of the other machine, and Nix's errors without their framing.
// Words of Nix 2.8 to 2.35 and OpenSSH 7 to 10; the most telling line wins,
// not the last ("unexpected end-of-file" follows from everything).
SshFailure ClassifySshFailure(const std::vector<std::string>& lines,
                              const StoreDir& store_dir);

// A failure to run the program at all (the status of RunSubprocess): a stall
// keeps its code, a program that is missing or cannot be started is the
// machine's fault and will pass.
SshFailure ClassifyRunFailure(const absl::Status& status);

// The base name of the first store path in `text`, or "".
std::string StorePathIn(std::string_view text, const StoreDir& store_dir);

}  // namespace nixq
