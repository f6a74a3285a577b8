// Which of a batch's paths is the bad one: `nix copy` sends many paths or
// fails as a whole, and this finds out with few more processes.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "storage/base/cancel.h"
#include "storage/cache/ssh_cache.h"
#include "storage/cache/ssh_errors.h"
#include "storage/nix/store_path.h"

namespace nixq {

// One process. nullopt: all of it is there.
using SendPaths = std::function<std::optional<SshFailure>(
    const std::vector<StorePath>& paths)>;
// Whether a path (by base name) has any signature at all.
using HasSignature = std::function<bool(const std::string& path)>;

// Sends `paths` in groups whose command lines stay under 64 KiB. A group that
// fails because of a path that the failure names goes on without it; one that
// fails for unknown reasons is halved; a failure that is the target's ends it
// all. When several processes failed and none passed, three single paths tell
// whether it is the target after all. At most kMaxProcesses.
std::vector<CopyOutcome> SendBatch(const std::vector<StorePath>& paths,
                                   size_t bytes_per_path_prefix,
                                   const SendPaths& send,
                                   const HasSignature& has_signature,
                                   const Cancellation& cancel);

inline constexpr int kMaxProcessesPerBatch = 128;

}  // namespace nixq
