// Compression of NARs on their way out: zstd, xz or none, streaming.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/nix/nar.h"

namespace nixq {

enum class Compression { kNone, kZstd, kXz };

struct CompressionSettings {
  Compression method = Compression::kZstd;
  std::optional<int> level;  // zstd 1 to 19 (default 3), xz 0 to 9 (6)
  bool operator==(const CompressionSettings&) const = default;
};

// "none", "zstd", "xz": the narinfo's Compression field; nullopt for others.
std::optional<Compression> CompressionFromName(std::string_view name);
std::string_view CompressionName(Compression method);
// "", ".zst", ".xz".
std::string_view CompressionExtension(Compression method);

// One stream: Write any number of times, then Finish once. Output goes to the
// sink in pieces of at most 128 KiB. The same input and settings (with the
// same `threads` > 1 or not) give the same output. One thread at a time.
class Compressor {
 public:
  virtual ~Compressor() = default;
  virtual absl::Status Write(std::string_view bytes, ByteSink sink) = 0;
  virtual absl::Status Finish(ByteSink sink) = 0;
};

// `size_hint_bytes` sizes windows and decides nothing else; `threads` above 1
// lets zstd use that many. INVALID_ARGUMENT for a level out of range.
absl::StatusOr<std::unique_ptr<Compressor>> MakeCompressor(
    const CompressionSettings& settings, uint64_t size_hint_bytes, int threads);

}  // namespace nixq
