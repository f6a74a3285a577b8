#include "storage/nix/nar.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr size_t kBufferBytes = size_t{256} * 1024;
// From here on the kernel is told that the whole file will be read.
constexpr uint64_t kReadAheadFromBytes = uint64_t{1} << 20;
constexpr std::string_view kCaseHackSuffix = "~nix~case~hack~";
constexpr size_t kMaxSymlinkBytes = 4096;

// Errors of the file system are this path's, not those of whoever receives
// the archive.
absl::Status FileError(int err, std::string_view doing,
                       const std::string& path) {
  return BlamePath(
      ErrnoError(err, absl::StrFormat("%s %s", std::string(doing), path)));
}

absl::Status Refused(const std::string& path, std::string_view why) {
  return BlamePath(absl::FailedPreconditionError(
      absl::StrFormat("%s %s", Printable(path), std::string(why))));
}

enum class Kind { kUnknown, kRegular, kDirectory, kSymlink, kOther };

Kind KindOfMode(mode_t mode) {
  if (S_ISREG(mode)) return Kind::kRegular;
  if (S_ISDIR(mode)) return Kind::kDirectory;
  if (S_ISLNK(mode)) return Kind::kSymlink;
  return Kind::kOther;
}

// readdir(3) mostly knows the kind already, which saves a call for each file.
Kind KindOfEntry(const dirent& entry) {
#ifdef DT_UNKNOWN
  switch (entry.d_type) {
    case DT_UNKNOWN:
      return Kind::kUnknown;
    case DT_REG:
      return Kind::kRegular;
    case DT_DIR:
      return Kind::kDirectory;
    case DT_LNK:
      return Kind::kSymlink;
    default:
      return Kind::kOther;
  }
#else
  static_cast<void>(entry);
  return Kind::kUnknown;
#endif
}

struct Entry {
  std::string file_name;
  size_t name_length;  // less than the file name's if the case hack added to it
  Kind kind;

  std::string_view name() const {
    return std::string_view(file_name).substr(0, name_length);
  }
};

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

// Collects the archive's small pieces, and the contents of small files, into
// pieces of kBufferBytes for the sink.
class Output {
 public:
  explicit Output(ByteSink sink)
      : sink_(sink), buffer_(std::make_unique<char[]>(kBufferBytes)) {}

  absl::Status Flush() {
    if (used_ == 0) return absl::OkStatus();
    const std::string_view bytes(buffer_.get(), used_);
    used_ = 0;
    return sink_(bytes);
  }

  absl::Status Append(std::string_view bytes) {
    while (bytes.size() > kBufferBytes - used_) {
      const size_t fitting = kBufferBytes - used_;
      std::memcpy(buffer_.get() + used_, bytes.data(), fitting);
      used_ += fitting;
      bytes.remove_prefix(fitting);
      NIXQ_RETURN_IF_ERROR(Flush());
    }
    std::memcpy(buffer_.get() + used_, bytes.data(), bytes.size());
    used_ += bytes.size();
    return absl::OkStatus();
  }

  // The length that precedes every string: 64 bits, little-endian.
  absl::Status Length(uint64_t length) {
    char bytes[8];
    for (char& byte : bytes) {
      byte = static_cast<char>(length & 0xff);
      length >>= 8;
    }
    return Append({bytes, sizeof bytes});
  }

  absl::Status Padding(uint64_t length) {
    constexpr std::string_view kZeros("\0\0\0\0\0\0\0", 7);
    return Append(kZeros.substr(0, (8 - length % 8) % 8));
  }

  absl::Status String(std::string_view text) {
    NIXQ_RETURN_IF_ERROR(Length(text.size()));
    NIXQ_RETURN_IF_ERROR(Append(text));
    return Padding(text.size());
  }

  absl::Status Strings(std::initializer_list<std::string_view> texts) {
    for (const std::string_view text : texts) {
      NIXQ_RETURN_IF_ERROR(String(text));
    }
    return absl::OkStatus();
  }

  // Room to read into directly, at least `wanted` bytes if the whole buffer
  // has as many; what was read is then taken with Advance.
  absl::Status MakeRoom(uint64_t wanted) {
    const uint64_t enough = std::min<uint64_t>(wanted, kBufferBytes);
    return kBufferBytes - used_ < enough ? Flush() : absl::OkStatus();
  }
  char* room() { return buffer_.get() + used_; }
  size_t room_bytes() const { return kBufferBytes - used_; }
  void Advance(size_t bytes) { used_ += bytes; }

 private:
  ByteSink sink_;
  std::unique_ptr<char[]> buffer_;
  size_t used_ = 0;
};

class NarWriter {
 public:
  NarWriter(std::string path, const NarOptions& options, ByteSink sink)
      : path_(std::move(path)), options_(options), output_(sink) {}

  absl::Status Write() {
    NIXQ_RETURN_IF_ERROR(output_.String("nix-archive-1"));
    const std::string root = path_;
    NIXQ_RETURN_IF_ERROR(Node(AT_FDCWD, root, Kind::kUnknown, 0));
    return output_.Flush();
  }

 private:
  // Writes the node called `name` in the open directory `parent`; `path_` is
  // its whole path, for messages.
  absl::Status Node(int parent, const std::string& name, Kind kind, int depth) {
    if (depth >= kMaxNarDepth) {
      return BlamePath(absl::OutOfRangeError(
          absl::StrFormat("%s is nested deeper than %d nodes", Printable(path_),
                          kMaxNarDepth)));
    }
    if (kind == Kind::kUnknown) {
      struct stat info;
      if (fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return FileError(errno, "stat", path_);
      }
      kind = KindOfMode(info.st_mode);
    }
    switch (kind) {
      case Kind::kRegular:
        return Regular(parent, name);
      case Kind::kDirectory:
        return DirectoryNode(parent, name, depth);
      case Kind::kSymlink:
        return Symlink(parent, name);
      case Kind::kUnknown:
      case Kind::kOther:
        break;
    }
    return Refused(path_, "is neither a file, a directory nor a symlink");
  }

  absl::Status Symlink(int parent, const std::string& name) {
    char target[kMaxSymlinkBytes];
    const ssize_t length =
        readlinkat(parent, name.c_str(), target, sizeof target);
    if (length < 0) return OpenError("read symlink");
    if (static_cast<size_t>(length) == sizeof target) {
      return Refused(path_, "is a symlink with too long a target");
    }
    return output_.Strings({"(",
                            "type",
                            "symlink",
                            "target",
                            {target, static_cast<size_t>(length)},
                            ")"});
  }

  absl::Status Regular(int parent, const std::string& name) {
    // O_NONBLOCK in case a FIFO took the name.
    const UniqueFd fd(
        openat(parent, name.c_str(),
               O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd.valid()) return OpenError("open");
    struct stat info;
    if (fstat(fd.get(), &info) != 0) return FileError(errno, "stat", path_);
    if (!S_ISREG(info.st_mode)) return ChangedKind();
    const auto size = static_cast<uint64_t>(info.st_size);
#ifdef POSIX_FADV_SEQUENTIAL
    if (size >= kReadAheadFromBytes) {
      posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    }
#endif
    NIXQ_RETURN_IF_ERROR(output_.Strings({"(", "type", "regular"}));
    if ((info.st_mode & S_IXUSR) != 0) {
      NIXQ_RETURN_IF_ERROR(output_.Strings({"executable", ""}));
    }
    NIXQ_RETURN_IF_ERROR(output_.String("contents"));
    NIXQ_RETURN_IF_ERROR(output_.Length(size));
    NIXQ_RETURN_IF_ERROR(Contents(fd.get(), size));
    NIXQ_RETURN_IF_ERROR(output_.Padding(size));
    return output_.String(")");
  }

  absl::Status Contents(int fd, uint64_t size) {
    // Each read asks for one byte more than is left: the last one then shows
    // growth as well, and a small file needs one read.
    for (uint64_t left = size;;) {
      NIXQ_RETURN_IF_ERROR(output_.MakeRoom(left + 1));
      const size_t wanted = std::min<uint64_t>(left + 1, output_.room_bytes());
      const ssize_t got = read(fd, output_.room(), wanted);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FileError(errno, "read", path_);
      const auto count = static_cast<uint64_t>(got);
      if (count > left || (count == 0 && left > 0)) {
        return Refused(path_, "changed its size while it was read");
      }
      output_.Advance(count);
      left -= count;
      if (left == 0 && count < wanted) return absl::OkStatus();
    }
  }

  absl::Status DirectoryNode(int parent, const std::string& name, int depth) {
    UniqueFd fd(openat(parent, name.c_str(),
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return OpenError("open directory");
    const Directory directory(fdopendir(fd.get()));
    if (directory == nullptr) return FileError(errno, "list", path_);
    fd.Release();
    std::vector<Entry> entries;
    NIXQ_RETURN_IF_ERROR(List(directory.get(), &entries));
    NIXQ_RETURN_IF_ERROR(output_.Strings({"(", "type", "directory"}));
    const size_t path_length = path_.size();
    for (const Entry& entry : entries) {
      NIXQ_RETURN_IF_ERROR(
          output_.Strings({"entry", "(", "name", entry.name(), "node"}));
      path_ += '/';
      path_ += entry.file_name;
      NIXQ_RETURN_IF_ERROR(
          Node(dirfd(directory.get()), entry.file_name, entry.kind, depth + 1));
      path_.resize(path_length);
      NIXQ_RETURN_IF_ERROR(output_.String(")"));
    }
    return output_.String(")");
  }

  // The entries as the archive has them: sorted by unsigned bytes of their
  // names, each name once.
  absl::Status List(DIR* directory, std::vector<Entry>* entries) {
    while (true) {
      errno = 0;
      const dirent* found = readdir(directory);
      if (found == nullptr) break;
      const std::string_view name = found->d_name;
      if (name == "." || name == "..") continue;
      const size_t hack = options_.case_hack ? name.find(kCaseHackSuffix)
                                             : std::string_view::npos;
      entries->push_back({.file_name = std::string(name),
                          .name_length = std::min(hack, name.size()),
                          .kind = KindOfEntry(*found)});
    }
    if (errno != 0) return FileError(errno, "list", path_);
    std::sort(
        entries->begin(), entries->end(),
        [](const Entry& a, const Entry& b) { return a.name() < b.name(); });
    for (size_t i = 0; options_.case_hack && i < entries->size(); ++i) {
      const Entry& entry = (*entries)[i];
      if (entry.name_length == 0) {
        return Refused(path_ + "/" + entry.file_name,
                       "has no name but the case hack's suffix");
      }
      if (i > 0 && entry.name() == (*entries)[i - 1].name()) {
        return Refused(path_ + "/" + entry.file_name,
                       absl::StrFormat("has the same name as %s without the "
                                       "case hack's suffix",
                                       Printable((*entries)[i - 1].file_name)));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ChangedKind() const {
    return Refused(path_, "became something else while it was read");
  }

  // An error of opening what was of the right kind a moment ago.
  absl::Status OpenError(std::string_view doing) const {
    const int err = errno;
    // What O_NOFOLLOW and O_DIRECTORY, a socket, or readlink of a file give.
    if (err == ELOOP || err == ENOTDIR || err == ENXIO || err == EINVAL) {
      return ChangedKind();
    }
    return FileError(err, doing, path_);
  }

  std::string path_;
  const NarOptions& options_;
  Output output_;
};

}  // namespace

absl::Status WriteNar(const std::string& path, const NarOptions& options,
                      ByteSink sink) {
  std::string root = path;
  // "link/" would follow the link.
  while (root.size() > 1 && root.back() == '/') root.pop_back();
  return NarWriter(std::move(root), options, sink).Write();
}

}  // namespace nixq
