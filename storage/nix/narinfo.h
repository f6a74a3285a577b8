// The two text files of a binary cache: <hash part>.narinfo, nix-cache-info.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "storage/nix/path_info.h"

namespace nixq {

struct NarInfo {
  PathInfo info;    // `ultimate` and `registration_time` are not written
  std::string url;  // "nar/<narhash>.nar.zst"
  std::string compression;  // "zstd", "xz", "none", as Nix names them
  std::optional<Sha256Digest> file_hash;
  uint64_t file_size_bytes = 0;  // 0: unknown
};

// The file's text, in Nix's own order of fields: StorePath, URL, Compression,
// FileHash, FileSize, NarHash, NarSize, References (even if empty), Deriver,
// Sig (sorted, once each), CA. Ends in a newline.
std::string FormatNarInfo(const StoreDir& store_dir, const NarInfo& narinfo);

// Reads what Nix reads: unknown fields are skipped; a missing Compression is
// bzip2; the last line must end in a newline. INVALID_ARGUMENT names the line
// and the field. At most 4 MiB.
absl::StatusOr<NarInfo> ParseNarInfo(const StoreDir& store_dir,
                                     std::string_view text);

struct CacheInfo {
  std::string store_dir;
  bool want_mass_query = false;
  std::optional<int> priority;  // lower is preferred
};

std::string FormatCacheInfo(const CacheInfo& info);
absl::StatusOr<CacheInfo> ParseCacheInfo(std::string_view text);

}  // namespace nixq
