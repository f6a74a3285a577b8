// The inbox: the one table that hooks write, in the same way in every
// version.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nixq {

enum class InboxKind { kOutput, kDerivation };

struct InboxEntry {
  int64_t id = 0;  // set by reading
  InboxKind kind = InboxKind::kOutput;
  std::string path;             // full store path
  std::string deriver;          // full path of the .drv, or ""
  bool named = true;            // Nix named it in OUT_PATHS (or a person did)
  std::string source = "hook";  // "hook", "queuectl", "root", "spool"
  int64_t created_unix_ms = 0;
};

// "<state dir>/queue.db".
std::string QueueFile(const std::string& state_dir);

// Removes the unfinished databases of hooks that were killed while they made
// one: files "<state dir>/.queue.db.*" older than a minute, which no living
// hook is. Trouble is left for the next time.
void SweepUnfinishedDatabases(const std::string& state_dir);

// The writing end of the inbox. Creates the database with just the inbox if
// there is none (whole, by link(2), so that 64 hooks at once make one), gives
// it to the owner and group of the state directory (mode 0660 masked by the
// directory's), never migrates, and checkpoints only a WAL that has grown to
// 8 MiB because nobody else does.
// One object is for one thread.
class InboxWriter {
 public:
  // Opens, waiting for locks up to `busy_timeout` here and in Put.
  // Errors: UNAVAILABLE         locked for longer
  //         PERMISSION_DENIED   not ours to write
  //         RESOURCE_EXHAUSTED  disk full
  //         DATA_LOSS           not a database, or damaged
  static absl::StatusOr<InboxWriter> Open(const std::string& state_dir,
                                          absl::Duration busy_timeout);
  // The same for a process that opens nothing else, makes one Put and ends:
  // SQLite sets nothing aside for more, which saves a tenth of a millisecond.
  // As root, gives away what root made before the directory changed hands.
  static absl::StatusOr<InboxWriter> OpenOnce(const std::string& state_dir,
                                              absl::Duration busy_timeout);
  InboxWriter(InboxWriter&&) noexcept;
  InboxWriter& operator=(InboxWriter&&) noexcept;
  ~InboxWriter();

  // Adds all entries in one transaction. When it returns OK they survive a
  // power cut: they are in the WAL, flushed. (The flush follows the commit
  // rather than being in it, so that hooks that run at once share flushes;
  // what it promises is that of synchronous = FULL.) Errors as for Open; on
  // error none is there, except that a failed flush (UNAVAILABLE, EIO) leaves
  // entries that a power cut may take.
  absl::Status Put(const std::vector<InboxEntry>& entries);

  // Leaves closing to the end of the process, which is quicker at it.
  void LeaveOpen();

 private:
  class Impl;
  explicit InboxWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nixq
