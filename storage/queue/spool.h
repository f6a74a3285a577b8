// The spool: files that a hook leaves when it cannot write the database.
//
//   <state dir>/spool/<unix ms>-<pid>-<random>.entries
//
// Text, one line for one entry, tab separated, first line "nix-queued spool
// 1", last line "end": a file without its last line was cut short. Written
// whole (temporary name, fsync, rename, fsync of the directory).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/queue/inbox.h"

namespace nixq {

// Writes one file with all entries; durable when OK. Creates the directory.
absl::Status WriteSpool(const std::string& state_dir,
                        const std::vector<InboxEntry>& entries);

struct SpoolFile {
  std::string file;  // full name
  std::vector<InboxEntry> entries;
};

struct SpoolListing {
  std::vector<SpoolFile> files;         // oldest first
  std::vector<std::string> unreadable;  // renamed to *.bad, with the reason
};

// Reads at most `max_files` of what is there. Unreadable files are renamed to
// "<name>.bad" and reported; temporary files older than an hour are removed.
absl::StatusOr<SpoolListing> ReadSpool(const std::string& state_dir,
                                       size_t max_files);

// The same without changing anything, for those who only look: unreadable
// files stay. Without permission to look it is as if nothing were there.
absl::StatusOr<SpoolListing> PeekSpool(const std::string& state_dir,
                                       size_t max_files);
absl::StatusOr<int64_t> CountSpoolFiles(const std::string& state_dir);

// Removes a file whose entries are in the database.
absl::Status RemoveSpoolFile(const std::string& file);

}  // namespace nixq
