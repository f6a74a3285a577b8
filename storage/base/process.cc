#include "storage/base/process.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstdlib>
#include <vector>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "storage/base/status.h"

namespace nixq {

void DisableCoreDumps() {
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
}

std::string TakeEnvironmentVariable(const char* name) {
  const char* value = getenv(name);
  std::string text = value == nullptr ? "" : value;
  unsetenv(name);
  return text;
}

void ReturnFreedMemory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

absl::StatusOr<gid_t> GroupNumber(const std::string& name) {
  constexpr size_t kLargestEntry = 1 << 20;
  group entry = {};
  group* found = nullptr;
  std::vector<char> buffer(4096);
  int error = 0;
  while ((error = getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(),
                             &found)) == ERANGE &&
         buffer.size() < kLargestEntry) {
    buffer.resize(buffer.size() * 2);
  }
  if (found != nullptr) return found->gr_gid;
  if (error != 0) return ErrnoError(error, "look up group " + name);
  return absl::NotFoundError("there is no group " + name);
}

absl::StatusOr<UniqueFd> LockFile(const std::string& file) {
  UniqueFd fd(
      open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return ErrnoError(errno, "open " + file);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return absl::FailedPreconditionError(
          file + ": another queued works on this state directory");
    }
    return ErrnoError(errno, "lock " + file);
  }
  return fd;
}

}  // namespace nixq
