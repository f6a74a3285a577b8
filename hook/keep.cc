#include "hook/keep.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "storage/base/clock.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/nix/collector.h"
#include "storage/nix/gc_roots.h"
#include "storage/queue/spool.h"

namespace nixq {
namespace {

using std::chrono::steady_clock;

// What a lock gets at least, and what is set aside for writing the spool.
constexpr absl::Duration kLeastLockWait = absl::Milliseconds(20);
constexpr absl::Duration kSpoolTime = absl::Milliseconds(100);
// Made without looking at the clock: few builds have more outputs, and on a
// machine so busy that time is up already a root matters all the more.
constexpr size_t kRootsAtAnyTime = 16;
constexpr size_t kMaxMessageBytes = 400;

std::string Message(const absl::Status& status) {
  return Printable(std::string(status.message()), kMaxMessageBytes);
}

void SayFound(const BuildOutputs& outputs, WorkerNotes& notes) {
  std::vector<Note> found;
  for (const StorePath& path : outputs.told_by_drv) {
    found.push_back({NoteKind::kOutput, path.base_name()});
  }
  if (outputs.ask_daemon) found.push_back({NoteKind::kAskDaemon, ""});
  found.push_back({NoteKind::kDerivation, ""});
  notes.Say(found);
}

// A root that cannot be made does not keep a path from being queued.
void Hold(const HookSettings& settings, const BuildOutputs& outputs,
          Deadline deadline, WorkerNotes& notes) {
  absl::StatusOr<GcRoots> roots =
      GcRoots::Open(settings.roots_dir, settings.store_dir, /*create=*/true);
  if (!roots.ok()) {
    notes.Say(NoteKind::kWarning,
              "no GC root was made: " + Message(roots.status()));
    return;
  }
  Complaints complaints;
  std::vector<StorePath> rooted;
  size_t tried = 0;
  size_t late = 0;
  for (const auto* paths : {&outputs.named, &outputs.told_by_drv}) {
    for (const StorePath& path : *paths) {
      if (tried >= kRootsAtAnyTime && steady_clock::now() >= deadline) {
        ++late;
        continue;
      }
      absl::Status held = roots->Hold(path);
      ++tried;
      if (held.ok()) {
        rooted.push_back(path);
      } else {
        complaints.Add("no GC root: " + Message(held));
      }
    }
  }
  if (late > 0) {
    complaints.Add(absl::StrFormat(
        "no GC root for %d paths: there was no time left", late));
  }
  absl::Duration left = absl::FromChrono(deadline - steady_clock::now());
  absl::Status told = TellCollector(settings.nix_state_dir, settings.store_dir,
                                    rooted, std::max(left, kLeastLockWait));
  if (!told.ok()) {
    complaints.Add("this collection may miss the GC roots: " + Message(told));
  }
  for (const std::string& line : complaints.Lines()) {
    notes.Say(NoteKind::kWarning, line);
  }
}

absl::Status PutInInbox(const std::string& state_dir,
                        const std::vector<InboxEntry>& entries,
                        absl::Duration lock_wait) {
  NIXQ_ASSIGN_OR_RETURN(InboxWriter inbox,
                        InboxWriter::Open(state_dir, lock_wait));
  return inbox.Put(entries);
}

// A hint: whoever misses it looks by itself now and then. The short name
// serves state directories that a socket address has no room for.
void WakeDaemon(const std::string& state_dir) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, "wake.sock", sizeof(address.sun_path) - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM, 0));
  if (!fd.valid() || chdir(state_dir.c_str()) != 0) return;
  sendto(fd.get(), "", 1, MSG_DONTWAIT,
         reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

bool SpoolEntries(const HookSettings& settings,
                  const std::vector<InboxEntry>& entries, WorkerNotes& notes) {
  absl::Status spooled = WriteSpool(settings.state_dir, entries);
  if (!spooled.ok()) {
    notes.Say(NoteKind::kFailure, "spool: " + Message(spooled));
    return false;
  }
  notes.Say(NoteKind::kKept);
  return true;
}

}  // namespace

void HoldAndEnqueue(const HookSettings& settings, BuildOutputs outputs,
                    Deadline deadline, WorkerNotes& notes) {
  steady_clock::time_point start = steady_clock::now();
  AddDerivationOutputs(settings, outputs);
  SayFound(outputs, notes);
  std::vector<InboxEntry> entries =
      InboxEntries(settings, outputs, absl::ToUnixMillis(SystemClock().Now()));
  if (entries.empty()) {
    notes.Say(NoteKind::kKept);
    return;
  }
  Hold(settings, outputs, start + (deadline - start) / 2, notes);

  absl::Duration lock_wait =
      absl::FromChrono(deadline - steady_clock::now()) - kSpoolTime;
  absl::Status queued = PutInInbox(settings.state_dir, entries,
                                   std::max(lock_wait, kLeastLockWait));
  if (queued.ok()) {
    notes.Say(NoteKind::kKept);
  } else {
    notes.Say(NoteKind::kFailure, Message(queued));
    if (!SpoolEntries(settings, entries, notes)) return;
  }
  WakeDaemon(settings.state_dir);
}

void Spool(const HookSettings& settings, const BuildOutputs& outputs,
           WorkerNotes& notes) {
  std::vector<InboxEntry> entries =
      InboxEntries(settings, outputs, absl::ToUnixMillis(SystemClock().Now()));
  if (SpoolEntries(settings, entries, notes)) WakeDaemon(settings.state_dir);
}

}  // namespace nixq
