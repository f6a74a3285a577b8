// Files and descriptors: the few file operations that must be right about
// durability, bounds and symlinks, in one place.
//
// Linux and macOS differ here (F_FULLFSYNC, pipe2); nothing above this folder
// knows. All functions are thread-safe; those that take a path block on its
// file system.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nixq {

// Owns a file descriptor; closes it when it goes.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    Reset(other.Release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

// What wakes a loop that polls: a byte that is written makes the other end
// readable. Both ends are non-blocking and closed on exec.
struct WakePipe {
  UniqueFd read_end;
  UniqueFd write_end;
};
// RESOURCE_EXHAUSTED: no descriptors are left.
absl::StatusOr<WakePipe> MakeWakePipe();

// The whole file, or OUT_OF_RANGE if it is longer than `max_bytes`.
// Not for special files: a FIFO or device is INVALID_ARGUMENT, unopened.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

// Writes all bytes, however many calls that takes.
absl::Status WriteAll(int fd, std::string_view bytes);

// Makes what was written to `fd` survive a power cut (F_FULLFSYNC on macOS).
absl::Status SyncFd(int fd, std::string_view name);

// Makes entries that were created, renamed or removed in a directory durable.
absl::Status SyncDirectory(const std::string& path);

// Replaces `path` by `contents`: temporary file in the same directory, fsync,
// rename, fsync of the directory. Readers see the old or the new, whole.
absl::Status WriteFileAtomically(const std::string& path,
                                 std::string_view contents, mode_t mode);

// Creates `path` and its missing parents with `mode`. An existing directory
// is fine; anything else of that name is FAILED_PRECONDITION.
absl::Status MakeDirectories(const std::string& path, mode_t mode);

// The names in a directory, sorted bytewise, without "." and "..".
// OUT_OF_RANGE beyond `max_entries`.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path,
                                                       size_t max_entries);

}  // namespace nixq
