// Where a binary cache keeps its files: a directory or an HTTP server, and
// what both can do. The Nix formats are one floor up, in binary_cache.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/cancel.h"

namespace nixq {

// The answers for many keys, in their order: whether it is there, or why the
// target has no answer for this one key (blamed on the path).
using KeyAnswers = std::vector<absl::StatusOr<bool>>;

// One blob being written. Commit makes it visible, whole; an object that goes
// without Commit leaves nothing visible. One thread at a time.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  // Blocks while the bounded buffer between here and the target is full.
  virtual absl::Status Append(std::string_view bytes) = 0;
  // Returns when the target has confirmed it (a directory: when it is
  // flushed). No more calls after it.
  virtual absl::Status Commit() = 0;
};

// Keys are relative: "nar/x.nar.zst", "x.narinfo". Thread-safe: any number of
// calls at once. Every wait is bounded by the target's connect and stall
// limits. Errors common to all:
//   UNAVAILABLE         unreachable, reset, 5xx, truncated, 408, 429 (with
//                       RetryAfterOf if the target said so)
//   DEADLINE_EXCEEDED   no progress within the stall limit
//   UNAUTHENTICATED     401, 407
//   PERMISSION_DENIED   403; a directory that is not ours to write
//   RESOURCE_EXHAUSTED  507, disk full
//   INVALID_ARGUMENT    the request itself is wrong: other 4xx (413 names the
//                       size), too many redirects; blamed on the path
//   CANCELLED
class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // The blob, or NOT_FOUND, or OUT_OF_RANGE beyond `max_bytes`.
  virtual absl::StatusOr<std::string> Get(const std::string& key,
                                          size_t max_bytes,
                                          const Cancellation& cancel) = 0;

  // For each key whether it is there; many are asked at once. A 403 for one
  // key means that it is not (what cannot be listed is not there). What keeps
  // one key from being answered, while the target answers for others, is that
  // key's error; what would happen to any key is the error of the whole.
  virtual absl::StatusOr<KeyAnswers> Exist(const std::vector<std::string>& keys,
                                           const Cancellation& cancel) = 0;

  // Writes a whole blob, replacing what is there.
  virtual absl::Status Put(const std::string& key,
                           std::string_view content_type,
                           std::string_view bytes,
                           const Cancellation& cancel) = 0;

  // Starts a blob of `size_bytes`, or of a size not known yet. UNIMPLEMENTED,
  // from here or from the writer: the target takes no body without its size
  // (411); the caller starts again with the size.
  virtual absl::StatusOr<std::unique_ptr<BlobWriter>> StartPut(
      const std::string& key, std::string_view content_type,
      std::optional<uint64_t> size_bytes, const Cancellation& cancel) = 0;

  // What a person calls it: its URL, without secrets.
  virtual std::string Describe() const = 0;
};

}  // namespace nixq
