// What the queue needs of a derivation (.drv, ATerm): its outputs and system.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/nix/store_path.h"

namespace nixq {

struct DerivationOutput {
  std::string name;               // "out", "dev"
  std::optional<StorePath> path;  // unknown until built for floating
                                  // content-addressed and deferred outputs
};

struct DerivationSummary {
  std::vector<DerivationOutput> outputs;
  std::string system;  // "x86_64-linux", "builtin"

  // True if every output's path is written in the derivation.
  bool OutputsAreStatic() const;
};

// The largest .drv that is read, in bytes.
inline constexpr size_t kMaxDerivationBytes = size_t{64} * 1024 * 1024;

// Parses `Derive(` and `DrvWithVersion("xp-dyn-drv",` forms: the outputs, then
// skips to the platform without keeping what lies between. The builder,
// arguments and environment are not looked at. INVALID_ARGUMENT says at which
// byte the text stops being a derivation.
absl::StatusOr<DerivationSummary> ParseDerivation(const StoreDir& store_dir,
                                                  std::string_view text);

}  // namespace nixq
