#include "storage/queue/spool.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "absl/strings/str_format.h"
#include "storage/base/clock.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr std::string_view kFirstLine = "nix-queued spool 1";
constexpr std::string_view kLastLine = "end";
constexpr std::string_view kSuffix = ".entries";
constexpr std::string_view kTemporaryPrefix = ".tmp-";
constexpr size_t kMaxEntriesPerFile = 10000;
constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr absl::Duration kTemporaryAge = absl::Hours(1);
// Of other owners: a hook of root writes where the daemon's user reads. Store
// paths are no secret, and the state directory decides who may look.
constexpr mode_t kFileMode = 0644;
constexpr mode_t kDirectoryMode = 0750;

std::string SpoolDirectory(const std::string& state_dir) {
  return state_dir + "/spool";
}

bool FitsInAField(std::string_view text) {
  return text.find_first_of(std::string_view("\t\n\0", 3)) ==
         std::string_view::npos;
}

absl::StatusOr<std::string> Serialize(const InboxEntry* begin,
                                      const InboxEntry* end) {
  std::string text = absl::StrFormat("%s\n", std::string(kFirstLine));
  for (const InboxEntry* entry = begin; entry != end; ++entry) {
    if (!FitsInAField(entry->path) || !FitsInAField(entry->deriver) ||
        !FitsInAField(entry->source)) {
      return absl::InvalidArgumentError(
          "spool: an entry contains a tab, a newline or NUL");
    }
    text += absl::StrFormat(
        "%s\t%s\t%s\t%d\t%s\t%d\n",
        entry->kind == InboxKind::kOutput ? "output" : "derivation",
        entry->path, entry->deriver, entry->named ? 1 : 0, entry->source,
        entry->created_unix_ms);
  }
  text += absl::StrFormat("%s\n", std::string(kLastLine));
  if (text.size() > kMaxFileBytes) {
    return absl::OutOfRangeError("spool: entries of absurd length");
  }
  return text;
}

std::optional<InboxEntry> ParseEntry(std::string_view line) {
  std::vector<std::string> fields = Split(line, '\t');
  if (fields.size() != 6) return std::nullopt;
  InboxEntry entry;
  if (fields[0] == "derivation") {
    entry.kind = InboxKind::kDerivation;
  } else if (fields[0] != "output") {
    return std::nullopt;
  }
  std::optional<uint64_t> created = ParseUint(fields[5]);
  if (fields[1].empty() || !created || (fields[3] != "0" && fields[3] != "1")) {
    return std::nullopt;
  }
  entry.path = fields[1];
  entry.deriver = fields[2];
  entry.named = fields[3] == "1";
  entry.source = fields[4];
  entry.created_unix_ms = static_cast<int64_t>(*created);
  return entry;
}

// All entries, or INVALID_ARGUMENT with what is wrong.
absl::StatusOr<std::vector<InboxEntry>> Parse(std::string_view text) {
  std::vector<std::string> lines = Split(text, '\n');
  if (lines.front() != kFirstLine) {
    return absl::InvalidArgumentError("not a spool file of this version");
  }
  // The text ends in a newline, so that the last piece is empty.
  if (lines.size() < 3 || !lines.back().empty() ||
      lines[lines.size() - 2] != kLastLine) {
    return absl::InvalidArgumentError("cut short");
  }
  std::vector<InboxEntry> entries;
  for (size_t i = 1; i + 2 < lines.size(); ++i) {
    std::optional<InboxEntry> entry = ParseEntry(lines[i]);
    if (!entry) {
      return absl::InvalidArgumentError(
          absl::StrFormat("line %d is not an entry", i + 1));
    }
    entries.push_back(*std::move(entry));
  }
  return entries;
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

void RemoveIfAbandoned(const std::string& file) {
  struct stat info;
  if (lstat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  absl::Time changed = absl::FromTimeT(info.st_mtime);
  if (SystemClock().Now() - changed > kTemporaryAge) unlink(file.c_str());
}

bool IsSpoolFile(std::string_view name) {
  return name.ends_with(kSuffix) && !name.starts_with('.');
}

// Calls `visit` with each name in the directory; none if there is none.
template <typename Visit>
absl::Status ForEachName(const std::string& directory, Visit visit) {
  std::unique_ptr<DIR, CloseDirectory> handle(opendir(directory.c_str()));
  if (handle == nullptr) {
    if (errno == ENOENT) return absl::OkStatus();
    return ErrnoError(errno, absl::StrFormat("list %s", directory));
  }
  while (true) {
    errno = 0;
    const dirent* entry = readdir(handle.get());
    if (entry == nullptr) break;
    visit(std::string(entry->d_name));
  }
  if (errno == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrFormat("list %s", directory));
}

absl::StatusOr<std::vector<InboxEntry>> ReadOne(const std::string& file) {
  struct stat info;
  if (lstat(file.c_str(), &info) != 0) {
    return ErrnoError(errno, absl::StrFormat("open %s", file));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError("not a regular file");
  }
  absl::StatusOr<std::string> text = ReadFile(file, kMaxFileBytes);
  if (absl::IsOutOfRange(text.status())) {
    return absl::InvalidArgumentError(text.status().message());
  }
  NIXQ_RETURN_IF_ERROR(text.status());
  return Parse(*text);
}

absl::StatusOr<SpoolListing> Read(const std::string& directory,
                                  size_t max_files, bool tidy_up) {
  std::set<std::string> names;  // the oldest ones
  NIXQ_RETURN_IF_ERROR(ForEachName(directory, [&](const std::string& name) {
    if (tidy_up && name.starts_with(kTemporaryPrefix)) {
      RemoveIfAbandoned(absl::StrFormat("%s/%s", directory, name));
    } else if (IsSpoolFile(name)) {
      names.insert(name);
      if (names.size() > max_files) names.erase(std::prev(names.end()));
    }
  }));
  SpoolListing listing;
  for (const std::string& name : names) {
    std::string file = absl::StrFormat("%s/%s", directory, name);
    absl::StatusOr<std::vector<InboxEntry>> entries = ReadOne(file);
    if (entries.ok()) {
      listing.files.push_back({file, *std::move(entries)});
      continue;
    }
    if (absl::IsNotFound(entries.status())) continue;  // taken meanwhile
    std::string reason = absl::StrFormat(
        "%s: %s", file, std::string(entries.status().message()));
    // Only what is wrong for good is put aside; what cannot be read for now
    // stays, and is told of again.
    if (tidy_up && absl::IsInvalidArgument(entries.status())) {
      std::string bad = file + ".bad";
      if (rename(file.c_str(), bad.c_str()) != 0) {
        return ErrnoError(errno, absl::StrFormat("rename %s", file));
      }
      reason = absl::StrFormat("%s, renamed to %s", reason, bad);
    }
    listing.unreadable.push_back(std::move(reason));
  }
  return listing;
}

}  // namespace

absl::Status WriteSpool(const std::string& state_dir,
                        const std::vector<InboxEntry>& entries) {
  if (entries.empty()) return absl::OkStatus();
  std::string directory = SpoolDirectory(state_dir);
  struct stat info;
  if (lstat(directory.c_str(), &info) != 0) {
    NIXQ_RETURN_IF_ERROR(MakeDirectories(directory, kDirectoryMode));
    // A daemon that runs as another user removes what is in there.
    struct stat owner;
    if (geteuid() == 0 && stat(state_dir.c_str(), &owner) == 0 &&
        lchown(directory.c_str(), owner.st_uid, owner.st_gid) != 0) {
      return ErrnoError(errno, absl::StrFormat("give away %s", directory));
    }
    NIXQ_RETURN_IF_ERROR(SyncDirectory(state_dir));
  } else if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s is not a directory", directory));
  }
  for (size_t i = 0; i < entries.size(); i += kMaxEntriesPerFile) {
    size_t end = std::min(i + kMaxEntriesPerFile, entries.size());
    NIXQ_ASSIGN_OR_RETURN(std::string text,
                          Serialize(entries.data() + i, entries.data() + end));
    // Padded, so that the order of names is the order of time.
    std::string file = absl::StrFormat(
        "%s/%013d-%d-%016x%s", directory, entries[i].created_unix_ms, getpid(),
        static_cast<uint64_t>(SystemRandom().NextUnit() * 0x1p53),
        std::string(kSuffix));
    NIXQ_RETURN_IF_ERROR(WriteFileAtomically(file, text, kFileMode));
  }
  return absl::OkStatus();
}

absl::StatusOr<SpoolListing> ReadSpool(const std::string& state_dir,
                                       size_t max_files) {
  return Read(SpoolDirectory(state_dir), max_files, /*tidy_up=*/true);
}

absl::StatusOr<SpoolListing> PeekSpool(const std::string& state_dir,
                                       size_t max_files) {
  absl::StatusOr<SpoolListing> listing =
      Read(SpoolDirectory(state_dir), max_files, /*tidy_up=*/false);
  if (absl::IsPermissionDenied(listing.status())) return SpoolListing();
  return listing;
}

absl::StatusOr<int64_t> CountSpoolFiles(const std::string& state_dir) {
  int64_t count = 0;
  absl::Status status =
      ForEachName(SpoolDirectory(state_dir),
                  [&](const std::string& name) { count += IsSpoolFile(name); });
  if (!status.ok() && !absl::IsPermissionDenied(status)) return status;
  return count;
}

absl::Status RemoveSpoolFile(const std::string& file) {
  if (unlink(file.c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, absl::StrFormat("remove %s", file));
  }
  return absl::OkStatus();
}

}  // namespace nixq
