#include "storage/cache/directory_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr std::string_view kTemporaryPrefix = ".nixq-";
constexpr std::string_view kTemporarySuffix = ".tmp";
// Every cache has this file: where it was and is no more, a mount is away.
constexpr std::string_view kCacheInfo = "nix-cache-info";
constexpr size_t kTemporaryPartDigits = 14;
constexpr absl::Duration kTemporaryMaxAge = absl::Hours(24);

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

std::string ParentOf(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

// A file system that is shared over the network may take our handles away
// (ESTALE): that passes, unlike other errors that nobody foresaw.
absl::Status FileError(int err, std::string_view doing) {
  if (err == ESTALE) {
    return absl::UnavailableError(
        absl::StrFormat("%s: stale file handle", std::string(doing)));
  }
  return ErrnoError(err, doing);
}

// Keys are ours, but they become file names: no way out of the directory, and
// none of the names that are temporary.
absl::Status CheckKey(const std::string& key) {
  bool good = !key.empty() && key.find('\0') == std::string::npos;
  for (const std::string& piece : Split(key, '/')) {
    good = good && !piece.empty() && piece.front() != '.';
  }
  if (good) return absl::OkStatus();
  return BlamePath(absl::InvalidArgumentError(
      absl::StrFormat("not a cache key: \"%s\"", Printable(key, 200))));
}

std::string TemporaryPrefix(const std::string& owner) {
  return std::string(kTemporaryPrefix) + (owner.empty() ? "" : owner + "-");
}

// The name of a temporary file as CreateTemporary makes them for `owner`.
bool IsTemporaryOf(const std::string& owner, std::string_view name) {
  const std::string prefix = TemporaryPrefix(owner);
  return !owner.empty() && name.starts_with(prefix) &&
         name.size() ==
             prefix.size() + 2 * kTemporaryPartDigits + kTemporarySuffix.size();
}

// Writers hold a lock on their file as long as they live. Only asked about
// files of this machine, so that it matters not whether a file system shared
// with others tells them of locks; one without any makes all look alive.
bool IsAbandoned(int directory, const char* name) {
  const UniqueFd fd(
      openat(directory, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  return fd.valid() && flock(fd.get(), LOCK_EX | LOCK_NB) == 0;
}

// Removes what crashed writers left: those of `owner` at once, others' when
// they are old. Another machine may do the same at the same time; whatever
// cannot be removed stays.
void RemoveAbandonedTemporaries(const std::string& directory,
                                const std::string& owner) {
  const std::unique_ptr<DIR, CloseDirectory> entries(
      opendir(directory.c_str()));
  if (entries == nullptr) return;
  const absl::Time limit = SystemClock().Now() - kTemporaryMaxAge;
  while (const dirent* entry = readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (!name.starts_with(kTemporaryPrefix) ||
        !name.ends_with(kTemporarySuffix)) {
      continue;
    }
    struct stat info;
    const int fd = dirfd(entries.get());
    if (fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(info.st_mode)) {
      continue;
    }
    if (absl::FromTimeT(info.st_mtime) < limit ||
        (IsTemporaryOf(owner, name) && IsAbandoned(fd, entry->d_name))) {
      unlinkat(fd, entry->d_name, 0);
    }
  }
}

// Flushes directories for many writers at once: a flush serves everybody who
// had renamed before it began. Thread-safe.
class DirectorySyncer {
 public:
  absl::Status Sync(const std::string& directory) {
    std::unique_lock<std::mutex> lock(mutex_);
    Group& group = groups_[directory];
    const uint64_t mine = ++group.requested;
    while (group.completed < mine) {
      if (group.running) {
        changed_.wait(lock);
        continue;
      }
      group.running = true;
      const uint64_t served = group.requested;
      lock.unlock();
      absl::Status synced = SyncDirectory(directory);
      lock.lock();
      group.running = false;
      changed_.notify_all();
      // Whoever waited too tries for itself.
      if (!synced.ok()) return synced;
      group.completed = served;
    }
    return absl::OkStatus();
  }

 private:
  struct Group {
    uint64_t requested = 0;
    uint64_t completed = 0;
    bool running = false;
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Group> groups_;  // a cache has a handful
};

class DirectoryStore : public BlobStore {
 public:
  DirectoryStore(std::string directory, std::string owner, Random& random)
      : directory_(std::move(directory)),
        owner_(std::move(owner)),
        random_(random) {}

  absl::StatusOr<std::string> Get(const std::string& key, size_t max_bytes,
                                  const Cancellation& cancel) override;
  absl::StatusOr<KeyAnswers> Exist(const std::vector<std::string>& keys,
                                   const Cancellation& cancel) override;
  absl::Status Put(const std::string& key, std::string_view content_type,
                   std::string_view bytes, const Cancellation& cancel) override;
  absl::StatusOr<std::unique_ptr<BlobWriter>> StartPut(
      const std::string& key, std::string_view content_type,
      std::optional<uint64_t> size_bytes, const Cancellation& cancel) override;
  std::string Describe() const override { return "file://" + directory_; }

 private:
  friend class FileWriter;

  struct Temporary {
    UniqueFd fd;
    std::string path;
  };

  absl::StatusOr<Temporary> CreateTemporary(const std::string& folder);
  // Makes the folders between the cache's own directory and `folder`.
  absl::Status MakeFolders(const std::string& folder);
  absl::StatusOr<bool> Exists(const std::string& key) const;
  // NOT_FOUND means something else when the whole directory is away, and an
  // empty one is not the cache that it was.
  absl::Status CheckThere() const;
  void NoteThere(const std::string& key) {
    if (key == kCacheInfo) was_there_.store(true);
  }

  const std::string directory_;
  const std::string owner_;
  std::atomic<bool> was_there_{false};  // nix-cache-info
  Random& random_;
  DirectorySyncer syncer_;
};

class FileWriter : public BlobWriter {
 public:
  FileWriter(DirectoryStore& store, DirectoryStore::Temporary temporary,
             std::string key, std::optional<uint64_t> size_bytes,
             const Cancellation& cancel)
      : store_(store),
        temporary_(std::move(temporary)),
        key_(std::move(key)),
        path_(store.directory_ + "/" + key_),
        size_bytes_(size_bytes),
        cancel_(cancel) {}
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter() override {
    if (!temporary_.path.empty()) unlink(temporary_.path.c_str());
  }

  absl::Status Append(std::string_view bytes) override {
    NIXQ_RETURN_IF_ERROR(cancel_.Check());
    written_bytes_ += bytes.size();
    return Annotate(WriteAll(temporary_.fd.get(), bytes),
                    absl::StrFormat("write %s", path_));
  }

  absl::Status Commit() override {
    NIXQ_RETURN_IF_ERROR(cancel_.Check());
    if (size_bytes_.has_value() && *size_bytes_ != written_bytes_) {
      return absl::InternalError(
          absl::StrFormat("write %s: %d bytes were promised, %d came", path_,
                          *size_bytes_, written_bytes_));
    }
    if (key_ != kCacheInfo) NIXQ_RETURN_IF_ERROR(store_.CheckThere());
    NIXQ_RETURN_IF_ERROR(SyncFd(temporary_.fd.get(), temporary_.path));
    // NFS reports some failed writes only here.
    if (close(temporary_.fd.Release()) != 0 && errno != EINTR) {
      return FileError(errno, absl::StrFormat("close %s", temporary_.path));
    }
    if (rename(temporary_.path.c_str(), path_.c_str()) != 0) {
      const absl::Status failed =
          FileError(errno, absl::StrFormat("rename to %s", path_));
      return absl::IsNotFound(failed)
                 ? absl::UnavailableError(std::string(failed.message()))
                 : failed;
    }
    temporary_.path.clear();
    store_.NoteThere(key_);
    return store_.syncer_.Sync(ParentOf(path_));
  }

 private:
  DirectoryStore& store_;
  DirectoryStore::Temporary temporary_;
  const std::string key_;
  const std::string path_;
  const std::optional<uint64_t> size_bytes_;
  const Cancellation& cancel_;
  uint64_t written_bytes_ = 0;
};

absl::Status DirectoryStore::CheckThere() const {
  struct stat info;
  if (stat(directory_.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::UnavailableError(absl::StrFormat(
        "the cache directory %s is not there; is it mounted?", directory_));
  }
  const std::string file = directory_ + "/" + std::string(kCacheInfo);
  if (!was_there_.load() || stat(file.c_str(), &info) == 0) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrFormat(
      "the cache directory %s has no nix-cache-info any more; is it mounted?",
      directory_));
}

absl::StatusOr<std::string> DirectoryStore::Get(const std::string& key,
                                                size_t max_bytes,
                                                const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(cancel.Check());
  NIXQ_RETURN_IF_ERROR(CheckKey(key));
  absl::StatusOr<std::string> bytes =
      ReadFile(directory_ + "/" + key, max_bytes);
  if (absl::IsNotFound(bytes.status())) {
    NIXQ_RETURN_IF_ERROR(CheckThere());
  }
  if (bytes.ok()) NoteThere(key);
  return bytes;
}

// Blamed on the path if the trouble is with this one file.
absl::StatusOr<bool> DirectoryStore::Exists(const std::string& key) const {
  NIXQ_RETURN_IF_ERROR(CheckKey(key));
  const std::string path = directory_ + "/" + key;
  struct stat info;
  if (stat(path.c_str(), &info) == 0) {
    // No blob is empty: an empty file is what a power cut made of one that
    // another program wrote without flushing.
    return S_ISREG(info.st_mode) && info.st_size > 0;
  }
  const int err = errno;
  if (err == ENOENT || err == ENOTDIR) return false;
  absl::Status failed = FileError(err, absl::StrFormat("stat %s", path));
  // A bad block below one file, or a name that leads nowhere.
  const bool own = err == EIO || absl::IsInvalidArgument(failed);
  return own && CheckThere().ok() ? BlamePath(std::move(failed)) : failed;
}

absl::StatusOr<KeyAnswers> DirectoryStore::Exist(
    const std::vector<std::string>& keys, const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(CheckThere());
  KeyAnswers there;
  there.reserve(keys.size());
  for (const std::string& key : keys) {
    NIXQ_RETURN_IF_ERROR(cancel.Check());
    there.push_back(Exists(key));
    const absl::Status& status = there.back().status();
    if (!status.ok() && !IsPathsFault(status)) return status;
  }
  return there;
}

absl::Status DirectoryStore::MakeFolders(const std::string& folder) {
  if (folder == directory_) return CheckThere();
  const std::string parent = ParentOf(folder);
  if (mkdir(folder.c_str(), 0755) == 0) return syncer_.Sync(parent);
  if (errno == EEXIST) return absl::OkStatus();
  if (errno != ENOENT) {
    return FileError(errno, absl::StrFormat("mkdir %s", folder));
  }
  NIXQ_RETURN_IF_ERROR(MakeFolders(parent));
  if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) {
    return FileError(errno, absl::StrFormat("mkdir %s", folder));
  }
  return syncer_.Sync(parent);
}

absl::StatusOr<DirectoryStore::Temporary> DirectoryStore::CreateTemporary(
    const std::string& folder) {
  constexpr int kAttempts = 10;
  int err = 0;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    // Unique among all machines that share the directory; O_EXCL proves it.
    const auto part = [this] {
      return static_cast<uint64_t>(random_.NextUnit() * 0x1.0p53);
    };
    std::string path =
        absl::StrFormat("%s/%s%014x%014x%s", folder, TemporaryPrefix(owner_),
                        part(), part(), std::string(kTemporarySuffix));
    UniqueFd fd(
        open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (fd.valid()) {
      // For IsAbandoned; where there are no locks, age has to do.
      static_cast<void>(flock(fd.get(), LOCK_EX | LOCK_NB));
      return Temporary{std::move(fd), std::move(path)};
    }
    err = errno;
    if (err == ENOENT) {
      NIXQ_RETURN_IF_ERROR(MakeFolders(folder));
    } else if (err != EEXIST) {
      break;
    }
  }
  return FileError(err, absl::StrFormat("create a file in %s", folder));
}

absl::StatusOr<std::unique_ptr<BlobWriter>> DirectoryStore::StartPut(
    const std::string& key, std::string_view /*content_type*/,
    std::optional<uint64_t> size_bytes, const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(cancel.Check());
  NIXQ_RETURN_IF_ERROR(CheckKey(key));
  if (key != kCacheInfo) NIXQ_RETURN_IF_ERROR(CheckThere());
  NIXQ_ASSIGN_OR_RETURN(Temporary temporary,
                        CreateTemporary(ParentOf(directory_ + "/" + key)));
  return std::make_unique<FileWriter>(*this, std::move(temporary), key,
                                      size_bytes, cancel);
}

absl::Status DirectoryStore::Put(const std::string& key,
                                 std::string_view content_type,
                                 std::string_view bytes,
                                 const Cancellation& cancel) {
  NIXQ_ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer,
                        StartPut(key, content_type, bytes.size(), cancel));
  NIXQ_RETURN_IF_ERROR(writer->Append(bytes));
  return writer->Commit();
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlobStore>> OpenDirectoryStore(
    const std::string& directory, Random& random, const std::string& owner) {
  std::string path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (path.empty() || path.front() != '/') {
    return absl::InvalidArgumentError(absl::StrFormat(
        "cache directory \"%s\": must be an absolute path", path));
  }
  if (mkdir(path.c_str(), 0755) == 0) {
    NIXQ_RETURN_IF_ERROR(SyncDirectory(ParentOf(path) + "/"));
  } else if (errno != EEXIST) {
    const int err = errno;
    struct stat info;
    // A read-only parent (EROFS, EACCES) says nothing about what is there.
    if (stat(path.c_str(), &info) != 0) {
      return FileError(err, absl::StrFormat("create cache directory %s", path));
    }
  }
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return FileError(errno, absl::StrFormat("stat %s", path));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("cache directory %s: not a directory", path));
  }
  if (access(path.c_str(), W_OK | X_OK) != 0) {
    return FileError(errno, absl::StrFormat("write to %s", path));
  }
  RemoveAbandonedTemporaries(path, owner);
  RemoveAbandonedTemporaries(path + "/nar", owner);
  return std::make_unique<DirectoryStore>(std::move(path), owner, random);
}

}  // namespace nixq
