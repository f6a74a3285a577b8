// Nix's own database, asked the one question that the hook has and a .drv may
// not answer: what did this build leave in the store?
//
// Outputs of content-addressed derivations are not written in the .drv, and
// the .drv of a build that another machine has ordered is not in the store at
// all. Nix registers outputs, with their deriver, before it runs the hook.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/nix/store_path.h"

namespace nixq {

// How many of the newest registrations are looked at: Nix has no index of
// derivers, and a hook no time for a whole store (200,000 paths: 40 ms, these:
// 1.5 ms).
inline constexpr int kNewestRegistrations = 10'000;

// The valid paths among the newest registrations whose deriver is
// `derivation`, sorted. Reads <nix state dir>/db/db.sqlite, schema 10 (Nix 2.0
// and later, Lix); changes nothing. Waits for locks for up to 50 ms.
// Errors: NOT_FOUND          there is no database
//         PERMISSION_DENIED  not ours to read
//         INTERNAL           another schema
//         others as storage/queue/sqlite.h has them
absl::StatusOr<std::vector<StorePath>> RegisteredOutputs(
    const std::string& nix_state_dir, const StoreDir& store_dir,
    const StorePath& derivation);

}  // namespace nixq
