// A binary cache in a directory: file:///srv/cache, also over NFS and shared
// by several machines.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/base/clock.h"
#include "storage/cache/blob_store.h"

namespace nixq {

// Blobs are files. Each is written under a temporary name in the directory
// that it will live in, flushed, renamed and the directory flushed: readers
// see it whole or not at all. Temporary files bear the name of `owner`, which
// tells this machine and queue from others ("" nobody in particular; letters,
// digits, '-', '_'). At Open those of the same owner that no living process
// writes are removed, and anybody's that are older than a day. Modes 0644 and
// 0755 under the umask. The directory is created if its parent exists. Once
// nix-cache-info has been read or written, a directory without it is not the
// cache: everything is UNAVAILABLE and nothing is written. NOT_FOUND: no such
// parent. PERMISSION_DENIED. FAILED_PRECONDITION: it is no directory.
absl::StatusOr<std::unique_ptr<BlobStore>> OpenDirectoryStore(
    const std::string& directory, Random& random,
    const std::string& owner = "");

}  // namespace nixq
