#include "storage/nix/gc_roots.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr std::string_view kTemporaryPrefix = ".tmp-";
constexpr absl::Duration kTemporaryLife = absl::Hours(1);
// How many temporary names are tried: others have them only if as many
// processes of the same number (in other PID namespaces) died underway.
constexpr int kMaxTemporaryNames = 1000;
constexpr size_t kMaxEntries = size_t{4} * 1024 * 1024;
// No root of ours points to anything longer than this.
constexpr size_t kMaxTargetBytes = PATH_MAX;

struct DirCloser {
  void operator()(DIR* dir) const { closedir(dir); }
};

absl::Time ModifiedTime(const struct stat& st) {
#ifdef __APPLE__
  return absl::TimeFromTimespec(st.st_mtimespec);
#else
  return absl::TimeFromTimespec(st.st_mtim);
#endif
}

// O_NOFOLLOW looks at the last component only, and "link/" and "link/." have
// another one.
std::string WithoutTrailingSlashes(std::string directory) {
  while (directory.size() > 1) {
    if (directory.ends_with("/")) {
      directory.resize(directory.size() - 1);
    } else if (directory.ends_with("/.")) {
      directory.resize(directory.size() - 2);
    } else {
      break;
    }
  }
  return directory.empty() ? "/" : directory;
}

// The text of a symlink, or nullopt with errno set.
std::optional<std::string> ReadLink(int directory, const std::string& name) {
  std::string target(kMaxTargetBytes + 1, '\0');
  ssize_t length =
      readlinkat(directory, name.c_str(), target.data(), target.size());
  if (length < 0) return std::nullopt;
  target.resize(static_cast<size_t>(length));
  return target;
}

bool IsDangling(const std::string& full_path) {
  struct stat st;
  return lstat(full_path.c_str(), &st) != 0 &&
         (errno == ENOENT || errno == ENOTDIR);
}

// Creates a symlink to `target` under a name that nobody else has.
absl::StatusOr<std::string> MakeTemporaryLink(int directory,
                                              const std::string& target) {
  const size_t thread =
      std::hash<std::thread::id>()(std::this_thread::get_id());
  for (int i = 0; i < kMaxTemporaryNames; ++i) {
    std::string name = absl::StrFormat(
        "%s%d-%x-%d", std::string(kTemporaryPrefix), getpid(), thread, i);
    if (symlinkat(target.c_str(), directory, name.c_str()) == 0) return name;
    if (errno != EEXIST) return ErrnoError(errno, "create a temporary link");
  }
  return absl::ResourceExhaustedError("no free name for a temporary link");
}

}  // namespace

absl::StatusOr<GcRoots> GcRoots::Open(const std::string& directory,
                                      const StoreDir& store_dir, bool create) {
  const std::string path = WithoutTrailingSlashes(directory);
  const auto open_it = [&path] {
    return UniqueFd(
        open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  };
  UniqueFd fd = open_it();
  if (!fd.valid() && errno == ENOENT && create) {
    NIXQ_RETURN_IF_ERROR(
        Annotate(MakeDirectories(path, 0755), "create the roots directory"));
    fd = open_it();
  }
  if (!fd.valid()) {
    // A symlink is ELOOP or ENOTDIR, as the system likes.
    if (errno == ELOOP || errno == ENOTDIR) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "roots directory %s is a symlink or not a directory", path));
    }
    return ErrnoError(errno, "open roots directory " + path);
  }
  return GcRoots(path, store_dir, std::move(fd));
}

absl::Status GcRoots::Hold(const StorePath& path) {
  const std::string target = store_dir_.Print(path);
  const std::string& name = path.base_name();
  const std::string doing = "hold " + target + " in " + directory_;
  if (symlinkat(target.c_str(), fd_.get(), name.c_str()) == 0) {
    return absl::OkStatus();
  }
  if (errno != EEXIST) return ErrnoError(errno, doing);

  struct stat st;
  if (fstatat(fd_.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      !S_ISLNK(st.st_mode)) {
    return absl::FailedPreconditionError(
        doing + ": something that is not a symlink has that name");
  }
  auto temporary = MakeTemporaryLink(fd_.get(), target);
  if (!temporary.ok()) return Annotate(temporary.status(), doing);
  if (renameat(fd_.get(), temporary->c_str(), fd_.get(), name.c_str()) == 0) {
    return absl::OkStatus();
  }
  const int err = errno;
  unlinkat(fd_.get(), temporary->c_str(), 0);
  if (err == EISDIR) {
    return absl::FailedPreconditionError(doing + ": a directory has that name");
  }
  return ErrnoError(err, doing);
}

absl::Status GcRoots::Remove(const StorePath& path) {
  const std::string doing =
      "remove root " + path.base_name() + " from " + directory_;
  auto target = ReadLink(fd_.get(), path.base_name());
  if (!target.has_value()) {
    // EINVAL: there, but not a symlink.
    if (errno != EINVAL) return ErrnoError(errno, doing);
    return absl::FailedPreconditionError(doing + ": not a symlink");
  }
  if (*target != store_dir_.Print(path)) {
    return absl::FailedPreconditionError(doing + ": points to " +
                                         Printable(*target));
  }
  if (unlinkat(fd_.get(), path.base_name().c_str(), 0) != 0) {
    return ErrnoError(errno, doing);
  }
  return absl::OkStatus();
}

absl::StatusOr<GcRoot> GcRoots::Find(const StorePath& path) const {
  const std::string doing =
      "find root " + path.base_name() + " in " + directory_;
  struct stat st;
  if (fstatat(fd_.get(), path.base_name().c_str(), &st, AT_SYMLINK_NOFOLLOW) !=
      0) {
    return ErrnoError(errno, doing);
  }
  const std::string full_path = store_dir_.Print(path);
  if (auto target = ReadLink(fd_.get(), path.base_name());
      !target.has_value() || *target != full_path) {
    return absl::NotFoundError(doing + ": the entry is not a link to the path");
  }
  return GcRoot{path, ModifiedTime(st), IsDangling(full_path)};
}

absl::StatusOr<GcRootListing> GcRoots::List() const {
  // A descriptor of its own: reading a directory moves the offset.
  UniqueFd fd(openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  std::unique_ptr<DIR, DirCloser> dir(fd.valid() ? fdopendir(fd.get())
                                                 : nullptr);
  if (dir == nullptr) return ErrnoError(errno, "list " + directory_);
  (void)fd.Release();

  const absl::Time now = SystemClock().Now();
  GcRootListing listing;
  for (size_t entries = 0;; ++entries) {
    errno = 0;
    const dirent* entry = readdir(dir.get());
    if (entry == nullptr) {
      if (errno != 0) return ErrnoError(errno, "list " + directory_);
      break;
    }
    if (entries == kMaxEntries) {
      return absl::OutOfRangeError(directory_ + " has too many entries");
    }
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;

    struct stat st;
    if (fstatat(fd_.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // removed since
      return ErrnoError(errno, "look at " + directory_ + "/" + name);
    }
    // What a sender pushed here has its roots in a directory of its own.
    if (S_ISDIR(st.st_mode)) continue;
    if (!S_ISLNK(st.st_mode)) {
      listing.strange.push_back({name, "not a symlink"});
      continue;
    }
    auto target = ReadLink(fd_.get(), name);
    if (!target.has_value()) continue;  // replaced or removed since
    auto path = store_dir_.ParsePath(*target);
    if (!path.ok()) {
      listing.strange.push_back({name, "points to " + Printable(*target)});
    } else if (name.starts_with(kTemporaryPrefix)) {
      if (now - ModifiedTime(st) > kTemporaryLife) {
        unlinkat(fd_.get(), name.c_str(), 0);
      }
    } else if (path->base_name() != name) {
      listing.strange.push_back(
          {name, "is named otherwise than " + *target + ", its path"});
    } else {
      listing.roots.push_back(
          GcRoot{*std::move(path), ModifiedTime(st), IsDangling(*target)});
    }
  }
  std::sort(listing.roots.begin(), listing.roots.end(),
            [](const GcRoot& a, const GcRoot& b) { return a.path < b.path; });
  std::sort(listing.strange.begin(), listing.strange.end(),
            [](const StrangeEntry& a, const StrangeEntry& b) {
              return a.name < b.name;
            });
  return listing;
}

}  // namespace nixq
