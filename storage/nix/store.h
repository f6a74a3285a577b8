// What the queue asks of the local Nix store.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/nix/path_info.h"

namespace nixq {

// The local Nix store's database, as far as it concerns the queue. All calls
// block; all are thread-safe (implementations serialise). Errors common to
// all: UNAVAILABLE the store cannot be asked now (its daemon is away),
// DEADLINE_EXCEEDED it did not answer within the limit, DATA_LOSS it does not
// speak the protocol.
class Store {
 public:
  virtual ~Store() = default;

  // One entry for each path, in order; nullopt: not valid in this store.
  virtual absl::StatusOr<std::vector<std::optional<PathInfo>>> QueryPathInfos(
      const std::vector<StorePath>& paths) = 0;

  // Output name to path; nullopt: not known (not built). NOT_FOUND if the
  // derivation is not valid.
  virtual absl::StatusOr<std::map<std::string, std::optional<StorePath>>>
  QueryDerivationOutputs(const StorePath& derivation) = 0;

  // Adds "name:base64" signatures to each valid path; paths that are not
  // valid are passed over. PERMISSION_DENIED: this Nix wants a trusted user
  // (Nix before 2.17).
  virtual absl::Status AddSignatures(
      const std::vector<std::pair<StorePath, std::vector<std::string>>>&
          signatures) = 0;

  // Keeps paths from the garbage collector while this object's connection
  // lives; reconnecting adds them again. Paths need not be valid.
  virtual absl::Status AddTempRoots(const std::vector<StorePath>& paths) = 0;

  // Every valid path; large stores have hundreds of thousands.
  virtual absl::StatusOr<std::vector<StorePath>> QueryAllValidPaths() = 0;
};

}  // namespace nixq
