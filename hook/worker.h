// Work that may hang, done in a child process so that nobody has to wait for
// it.
//
// A process in an uninterruptible system call (a frozen file system, a dead
// NFS server) cannot exit, not even when killed, and Nix waits for the hook's
// exit. So the process that Nix waits for never touches a disk: a child does,
// and is left behind, without descriptors of ours, if it does not come back.
// A thread would not do: a process ends when its last thread has.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/base/io.h"

namespace nixq {

// What a worker has to say, one kind and one text each, in order.
enum class NoteKind : char {
  kOutput = 'o',      // a store path that OUT_PATHS did not name
  kAskDaemon = 'a',   // the daemon has to ask Nix for more outputs
  kDerivation = 'd',  // all of the above has been said
  kRooted = 'r',      // every GC root was made, or its warning said
  kWarning = 'w',     // a line for standard error; the work goes on
  kFailure = 'f',     // why nothing could be kept in one place
  kKept = 'k',        // every output is durably in the queue or the spool
};

struct Note {
  NoteKind kind;
  std::string text;
};

// The worker's end: what is said reaches the parent even if the worker hangs
// or dies right after. Never blocks: beyond what a pipe holds (64 KiB, some
// 500 paths) notes are dropped.
class WorkerNotes {
 public:
  explicit WorkerNotes(int fd) : fd_(fd) {}
  // In one write(2), so that a killed worker leaves whole notes.
  void Say(NoteKind kind, std::string_view text = "");
  void Say(const std::vector<Note>& notes);

 private:
  int fd_;
};

using Deadline = std::chrono::steady_clock::time_point;

// Owns the child: the destructor kills it if it has not exited, and does not
// wait for it to die.
class Worker {
 public:
  // Forks. The child gets /dev/null as standard input, output and error,
  // default signals but for those with which a terminal ends a build, a
  // session of its own, "/" as its directory and a umask of 022, runs `work`
  // and exits. Only from a process with one thread that has closed what it had
  // inherited.
  // Where no process is to be had, calls `alone`, then does `work` here and
  // now: better a hook that may hang than outputs that are lost.
  static absl::StatusOr<Worker> Start(
      const std::function<void(WorkerNotes&)>& work,
      const std::function<void()>& alone);
  Worker(Worker&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), notes_(std::move(other.notes_)) {}
  Worker& operator=(Worker&&) = delete;
  ~Worker();

  // What it has said since this was asked last. Does not block.
  std::vector<Note> Heard();
  // Whether it has exited. Does not block.
  bool Exited();
  // Blocks until some worker exits, perhaps one that had before, or it is
  // `deadline`; false: it is.
  static bool WaitForAnExit(Deadline deadline);

 private:
  Worker(pid_t pid, UniqueFd notes) : pid_(pid), notes_(std::move(notes)) {}

  pid_t pid_;  // -1: it has exited
  UniqueFd notes_;
};

}  // namespace nixq
