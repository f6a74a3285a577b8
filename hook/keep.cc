#include "hook/keep.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
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
  for (const StorePath& path : outputs.found) {
    found.push_back({NoteKind::kOutput, path.base_name()});
  }
  if (outputs.ask_daemon) found.push_back({NoteKind::kAskDaemon, ""});
  found.push_back({NoteKind::kDerivation, ""});
  notes.Say(found);
}

// Makes GC roots. One that cannot be made does not keep its path from being
// queued.
class Holder {
 public:
  // `deadline` is when roots beyond the first few are left out.
  Holder(const HookSettings& settings, Deadline deadline)
      : settings_(settings), deadline_(deadline) {}

  void Hold(const std::vector<StorePath>& paths) {
    if (paths.empty() || settings_.roots_dir.empty()) return;
    if (!roots_.has_value()) {
      roots_ = GcRoots::Open(settings_.roots_dir, settings_.store_dir,
                             /*create=*/true);
      if (!roots_->ok()) {
        complaints_.Add("no GC root was made: " + Message(roots_->status()));
      }
    }
    if (!roots_->ok()) return;
    for (const StorePath& path : paths) HoldOne(path);
  }

  // A collection that is running learns of the roots. Says all that went
  // wrong, and that this was all.
  void Finish(WorkerNotes& notes) {
    absl::Duration left = absl::FromChrono(deadline_ - steady_clock::now());
    absl::Status told =
        TellCollector(settings_.nix_state_dir, settings_.store_dir, rooted_,
                      std::max(left, kLeastLockWait));
    if (!told.ok()) {
      complaints_.Add("this collection may miss the GC roots: " +
                      Message(told));
    }
    if (late_ > 0) {
      complaints_.Add(absl::StrFormat(
          "no GC root for %d paths: there was no time left", late_));
    }
    std::vector<Note> all;
    for (const std::string& line : complaints_.Lines()) {
      all.push_back({NoteKind::kWarning, line});
    }
    all.push_back({NoteKind::kRooted, ""});
    notes.Say(all);
  }

 private:
  void HoldOne(const StorePath& path) {
    if (++tried_ > kRootsAtAnyTime && steady_clock::now() >= deadline_) {
      ++late_;
      return;
    }
    absl::Status held = (*roots_)->Hold(path);
    if (held.ok()) {
      rooted_.push_back(path);
    } else {
      complaints_.Add("no GC root: " + Message(held));
    }
  }

  const HookSettings& settings_;
  const Deadline deadline_;
  std::optional<absl::StatusOr<GcRoots>> roots_;
  std::vector<StorePath> rooted_;
  Complaints complaints_;
  size_t tried_ = 0;
  size_t late_ = 0;
};

absl::Status PutInInbox(const std::string& state_dir,
                        const std::vector<InboxEntry>& entries,
                        absl::Duration lock_wait) {
  NIXQ_ASSIGN_OR_RETURN(InboxWriter inbox,
                        InboxWriter::OpenOnce(state_dir, lock_wait));
  absl::Status status = inbox.Put(entries);
  inbox.LeaveOpen();
  return status;
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
  Holder holder(settings, start + (deadline - start) / 2);
  // What Nix names is held before anything else is looked at.
  holder.Hold(outputs.named);
  FindOutputs(settings, outputs);
  SayFound(outputs, notes);
  holder.Hold(outputs.found);
  holder.Finish(notes);
  std::vector<InboxEntry> entries =
      InboxEntries(settings, outputs, absl::ToUnixMillis(SystemClock().Now()));
  if (entries.empty()) {
    notes.Say(NoteKind::kKept);
    return;
  }

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
