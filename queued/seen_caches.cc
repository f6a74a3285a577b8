#include "queued/seen_caches.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/nix/hash.h"

namespace nixq {
namespace {

// One file for each directory, so that targets do not meet in one.
std::string MemoryOf(const std::string& state_dir,
                     const std::string& directory) {
  constexpr size_t kDigits = 16;
  return state_dir + "/seen-cache-" +
         ToBase16(Sha256::Of(directory)).substr(0, kDigits);
}

bool IsMissing(const std::string& file) {
  return access(file.c_str(), F_OK) != 0 &&
         (errno == ENOENT || errno == ENOTDIR);
}

}  // namespace

void NoteCacheSeen(const std::string& state_dir, const std::string& directory) {
  const std::string memory = MemoryOf(state_dir, directory);
  if (!IsMissing(memory)) return;
  WriteFileAtomically(memory, directory + "\n", 0644).IgnoreError();
}

absl::Status CheckCacheSeen(const std::string& state_dir,
                            const std::string& directory) {
  const std::string memory = MemoryOf(state_dir, directory);
  if (IsMissing(memory) || !IsMissing(directory + "/nix-cache-info")) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrFormat(
      "the cache directory %s has no nix-cache-info any more; is it mounted? "
      "(to begin a new cache there, remove %s and restart queued)",
      directory, memory));
}

}  // namespace nixq
