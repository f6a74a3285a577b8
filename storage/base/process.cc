#include "storage/base/process.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
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

namespace {

struct User {
  std::string name;
  gid_t group = 0;
};

absl::StatusOr<User> FindUser(uid_t user) {
  constexpr size_t kLargestEntry = 1 << 20;
  passwd entry = {};
  passwd* found = nullptr;
  std::vector<char> buffer(4096);
  int error = 0;
  while ((error = getpwuid_r(user, &entry, buffer.data(), buffer.size(),
                             &found)) == ERANGE &&
         buffer.size() < kLargestEntry) {
    buffer.resize(buffer.size() * 2);
  }
  if (found != nullptr) return User{found->pw_name, found->pw_gid};
  const std::string number = "user " + std::to_string(user);
  if (error != 0) return ErrnoError(error, "look up " + number);
  return absl::NotFoundError(number + " has no name");
}

// The exit codes of the child that asks.
constexpr int kMay = 0;
constexpr int kMayNot = 1;
constexpr int kCannotAsk = 2;

}  // namespace

absl::StatusOr<std::string> UserName(uid_t user) {
  NIXQ_ASSIGN_OR_RETURN(User found, FindUser(user));
  return found.name;
}

absl::StatusOr<bool> UserMay(uid_t user, const std::string& path, int mode) {
  NIXQ_ASSIGN_OR_RETURN(User found, FindUser(user));
  const pid_t child = fork();
  if (child < 0) return ErrnoError(errno, "fork");
  if (child == 0) {
    if (initgroups(found.name.c_str(), found.group) != 0 ||
        setgid(found.group) != 0 || setuid(user) != 0) {
      _exit(kCannotAsk);
    }
    _exit(access(path.c_str(), mode) == 0 ? kMay : kMayNot);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return ErrnoError(errno, "wait for a child");
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) == kCannotAsk) {
    return absl::PermissionDeniedError("become " + found.name +
                                       ": only root may");
  }
  return WEXITSTATUS(status) == kMay;
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
