#include "storage/base/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status CheckRegular(const struct stat& info, const std::string& path) {
  if (S_ISREG(info.st_mode)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("read %s: not a regular file", path));
}

// Removes a temporary file unless it was renamed into place.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }
  void Keep() { path_.clear(); }

 private:
  std::string path_;
};

// Widens a directory that was just made to `mode`: umask took bits away.
// Bits that it inherited (setgid) stay.
absl::Status WidenDirectory(const std::string& path, mode_t mode) {
  UniqueFd fd(
      open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  // Without read permission for its own maker the mode was meant as it is.
  if (!fd.valid()) return absl::OkStatus();
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoError(errno, absl::StrFormat("stat %s", path));
  }
  if ((info.st_mode & mode) == mode) return absl::OkStatus();
  if (fchmod(fd.get(), (info.st_mode & 07777) | mode) != 0) {
    return ErrnoError(errno, absl::StrFormat("chmod %s", path));
  }
  return absl::OkStatus();
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

}  // namespace

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0 && fd_ != fd) close(fd_);
  fd_ = fd;
}

absl::StatusOr<WakePipe> MakeWakePipe() {
  int ends[2];
#ifdef __linux__
  const int made = pipe2(ends, O_CLOEXEC | O_NONBLOCK);
#else
  const int made = pipe(ends);
#endif
  if (made != 0) return ErrnoError(errno, "make a pipe");
  WakePipe pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
#ifndef __linux__
  for (int end : ends) {
    fcntl(end, F_SETFD, FD_CLOEXEC);
    fcntl(end, F_SETFL, O_NONBLOCK);
  }
#endif
  return pipe;
}

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     size_t max_bytes) {
  const std::string doing = absl::StrFormat("read %s", path);
  struct stat info;
  // Before opening: opening a FIFO or a device can block or have effects.
  if (stat(path.c_str(), &info) != 0) return ErrnoError(errno, doing);
  NIXQ_RETURN_IF_ERROR(CheckRegular(info, path));
  // O_NONBLOCK in case a FIFO took the name in between.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return ErrnoError(errno, doing);
  if (fstat(fd.get(), &info) != 0) return ErrnoError(errno, doing);
  NIXQ_RETURN_IF_ERROR(CheckRegular(info, path));

  const auto too_long = [&] {
    return absl::OutOfRangeError(
        absl::StrFormat("read %s: longer than %d bytes", path, max_bytes));
  };
  if (static_cast<uint64_t>(info.st_size) > max_bytes) return too_long();
  // One byte more than the size shows the end in one read; files of /proc say
  // that their size is 0, so the buffer may have to grow.
  std::string contents;
  size_t used = 0;
  size_t room = static_cast<size_t>(info.st_size) + 1;
  while (true) {
    contents.resize(used + room);
    const ssize_t got = read(fd.get(), contents.data() + used, room);
    if (got < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(errno, doing);
    }
    if (got == 0) break;
    used += static_cast<size_t>(got);
    if (used > max_bytes) return too_long();
    room = std::max<size_t>(contents.size() - used, 4096);
  }
  contents.resize(used);
  return contents;
}

absl::Status WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(errno, absl::StrFormat("write %d bytes", bytes.size()));
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SyncFd(int fd, std::string_view name) {
#ifdef __APPLE__
  // fsync(2) leaves the data in the drive's cache there. Not every file
  // system knows F_FULLFSYNC; those get what they have.
  if (fcntl(fd, F_FULLFSYNC) == 0) return absl::OkStatus();
#endif
  while (fsync(fd) != 0) {
    if (errno == EINTR) continue;
    return ErrnoError(errno, absl::StrFormat("fsync %s", std::string(name)));
  }
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError(errno, absl::StrFormat("open %s", path));
  absl::Status synced = SyncFd(fd.get(), path);
  // EINVAL: a file system whose directories cannot be synced.
  return absl::IsInvalidArgument(synced) ? absl::OkStatus() : synced;
}

absl::Status WriteFileAtomically(const std::string& path,
                                 std::string_view contents, mode_t mode) {
  const std::string directory = DirectoryOf(path);
  std::string name = directory + "/.tmp-XXXXXX";
  UniqueFd fd(mkostemp(name.data(), O_CLOEXEC));
  if (!fd.valid()) {
    return ErrnoError(
        errno, absl::StrFormat("create a temporary file in %s", directory));
  }
  TemporaryFile temporary(name);
  NIXQ_RETURN_IF_ERROR(Annotate(WriteAll(fd.get(), contents),
                                absl::StrFormat("write %s", path)));
  if (fchmod(fd.get(), mode) != 0) {
    return ErrnoError(errno, absl::StrFormat("chmod %s", name));
  }
  NIXQ_RETURN_IF_ERROR(SyncFd(fd.get(), name));
  // Some network file systems report a failed write only here.
  if (close(fd.Release()) != 0 && errno != EINTR) {
    return ErrnoError(errno, absl::StrFormat("close %s", name));
  }
  if (rename(name.c_str(), path.c_str()) != 0) {
    return ErrnoError(errno, absl::StrFormat("rename %s to %s", name, path));
  }
  temporary.Keep();
  return SyncDirectory(directory);
}

absl::Status MakeDirectories(const std::string& path, mode_t mode) {
  std::string wanted = path;
  while (wanted.size() > 1 && wanted.back() == '/') wanted.pop_back();
  struct stat info;
  const auto not_a_directory = [&] {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s exists and is not a directory", wanted));
  };
  if (stat(wanted.c_str(), &info) == 0) {
    return S_ISDIR(info.st_mode) ? absl::OkStatus() : not_a_directory();
  }
  if (errno != ENOENT && errno != ENOTDIR) {
    return ErrnoError(errno, absl::StrFormat("stat %s", wanted));
  }
  const std::string parent = DirectoryOf(wanted);
  if (!wanted.empty() && parent != wanted) {
    NIXQ_RETURN_IF_ERROR(MakeDirectories(parent, mode));
  }
  if (mkdir(wanted.c_str(), mode) == 0) return WidenDirectory(wanted, mode);
  const int err = errno;
  if (err != EEXIST)
    return ErrnoError(err, absl::StrFormat("mkdir %s", wanted));
  // Somebody else was faster, or the name is a dangling symlink.
  if (stat(wanted.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return absl::OkStatus();
  }
  return not_a_directory();
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path,
                                                       size_t max_entries) {
  const std::unique_ptr<DIR, CloseDirectory> directory(opendir(path.c_str()));
  if (directory == nullptr) {
    return ErrnoError(errno, absl::StrFormat("list %s", path));
  }
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (names.size() >= max_entries) {
      return absl::OutOfRangeError(
          absl::StrFormat("list %s: more than %d entries", path, max_entries));
    }
    names.emplace_back(name);
  }
  if (errno != 0) return ErrnoError(errno, absl::StrFormat("list %s", path));
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace nixq
