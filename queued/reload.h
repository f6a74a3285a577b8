// What a configuration needs of the machine that it is to run on, and whether
// taking it up anew would change anything.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "queued/config.h"

namespace nixq {

// The group that may read the queue; nullopt if none is configured.
// NOT_FOUND: this machine has no such group.
absl::StatusOr<std::optional<uint32_t>> ReaderGroup(const Config& config);

// Whether a daemon that runs with `running` could go on with `wanted`: keys
// and roots directory can be opened, the group is there, the state directory
// is the same.
absl::Status CheckReload(const Config& running, const Config& wanted);

// Tells whether the files that a configuration names (keys, passwords,
// certificates) are as they were: what stat(2) says of each, as text.
std::string StampOfFiles(const Config& config);

}  // namespace nixq
