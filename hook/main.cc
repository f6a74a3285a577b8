// queued-hook: Nix's post-build-hook. Holds the outputs of one build, puts
// them into the queue, and is gone; see queued-hook(1).
//
// Nix waits for this process, so it exits within a second whatever hangs: it
// parses its environment and watches the clock, and leaves everything that
// touches a disk to a worker (worker.h).

#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "hook/keep.h"
#include "hook/outputs.h"
#include "hook/settings.h"
#include "hook/worker.h"
#include "storage/base/inherited.h"
#include "storage/base/io.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// From the start of the program: when the worker should be done, when it is
// given up, when the spool is given up, and when the program is gone.
constexpr milliseconds kEnqueueBy(400);
constexpr milliseconds kEnqueueLimit(450);
constexpr milliseconds kSpoolLimit(850);
constexpr milliseconds kLifeLimit(950);

constexpr std::string_view kUsage =
    "Usage: queued-hook\n"
    "\n"
    "The post-build-hook of nix-queued. Nix runs it without arguments after\n"
    "every build, with DRV_PATH and OUT_PATHS in its environment. It holds\n"
    "the outputs against garbage collection, writes them into the upload\n"
    "queue and exits 0, within a second, whatever happened.\n"
    "\n"
    "  --help     print this text\n"
    "  --version  print the version\n"
    "\n"
    "In nix.conf: post-build-hook = /usr/bin/queued-hook\n"
    "The environment variables that it heeds: man queued-hook.\n";

void ExitZero(int) { _exit(0); }
void ExitOne(int) { _exit(1); }

// Even a write to a terminal or pipe that nobody reads ends then.
void LimitLife(bool strict) {
  struct sigaction action = {};
  action.sa_handler = strict ? ExitOne : ExitZero;
  sigaction(SIGALRM, &action, nullptr);
  sigset_t alarm_only;
  sigemptyset(&alarm_only);
  sigaddset(&alarm_only, SIGALRM);
  sigprocmask(SIG_UNBLOCK, &alarm_only, nullptr);
  itimerval timer = {};
  timer.it_value.tv_usec = std::chrono::microseconds(kLifeLimit).count();
  setitimer(ITIMER_REAL, &timer, nullptr);
}

std::string_view GetEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : value;
}

void Print(const std::vector<std::string>& lines) {
  if (lines.empty()) return;
  std::string text;
  for (const std::string& line : lines) {
    text += "queued-hook: ";
    text += line;
    text += '\n';
  }
  WriteAll(STDERR_FILENO, text).IgnoreError();
}

// What the workers have said, put together.
struct Outcome {
  bool kept = false;
  bool derivation_read = false;
  std::vector<std::string> failures;
  std::vector<std::string> warnings;
};

void Heed(const std::vector<Note>& notes, BuildOutputs& outputs,
          Outcome& outcome) {
  for (const Note& note : notes) {
    switch (note.kind) {
      case NoteKind::kOutput:
        if (absl::StatusOr<StorePath> path = StorePath::FromBaseName(note.text);
            path.ok()) {
          outputs.told_by_drv.push_back(*std::move(path));
        }
        break;
      case NoteKind::kAskDaemon:
        outputs.ask_daemon = true;
        break;
      case NoteKind::kDerivation:
        outcome.derivation_read = true;
        break;
      case NoteKind::kWarning:
        outcome.warnings.push_back(note.text);
        break;
      case NoteKind::kFailure:
        outcome.failures.push_back(note.text);
        break;
      case NoteKind::kKept:
        outcome.kept = true;
        break;
    }
  }
}

// Starts a worker; failing to is one of the outcome's failures.
std::optional<Worker> StartWorker(const std::function<void(WorkerNotes&)>& work,
                                  Outcome& outcome) {
  absl::StatusOr<Worker> worker = Worker::Start(work);
  if (worker.ok()) return *std::move(worker);
  outcome.failures.emplace_back(worker.status().message());
  return std::nullopt;
}

// The queue, and if that is slow the spool as well: whatever comes first. A
// path that is in both is checked twice and sent once.
Outcome Keep(const HookSettings& settings, BuildOutputs& outputs,
             steady_clock::time_point start) {
  Outcome outcome;
  std::optional<Worker> queue = StartWorker(
      [&](WorkerNotes& notes) {
        HoldAndEnqueue(settings, outputs, start + kEnqueueBy, notes);
      },
      outcome);
  if (queue.has_value()) {
    while (!queue->Exited() && Worker::WaitForAnExit(start + kEnqueueLimit)) {
    }
    Heed(queue->Heard(), outputs, outcome);
    if (outcome.kept) return outcome;
    bool tried_both = outcome.failures.size() > 1;
    if (tried_both) return outcome;
    if (outcome.failures.empty()) {
      outcome.failures.emplace_back("the queue did not answer in time");
    }
  }
  // A .drv that could not be read in time is the daemon's to resolve.
  if (!outcome.derivation_read) outputs.ask_daemon = true;
  std::optional<Worker> spool = StartWorker(
      [&](WorkerNotes& notes) { Spool(settings, outputs, notes); }, outcome);
  if (!spool.has_value()) return outcome;
  size_t failures = outcome.failures.size();
  bool in_time = true;
  while (!outcome.kept && in_time) {
    bool both_exited = spool->Exited() && (!queue || queue->Exited());
    in_time = !both_exited && Worker::WaitForAnExit(start + kSpoolLimit);
    if (queue.has_value()) Heed(queue->Heard(), outputs, outcome);
    Heed(spool->Heard(), outputs, outcome);
  }
  if (!outcome.kept && outcome.failures.size() == failures) {
    outcome.failures.emplace_back("spool: it did not answer in time");
  }
  return outcome;
}

std::vector<std::string> LinesOfLoss(const HookSettings& settings,
                                     const BuildOutputs& outputs,
                                     const Outcome& outcome) {
  std::vector<std::string> lines = {"cannot write the queue: " +
                                    Join(outcome.failures, "; ")};
  for (const InboxEntry& entry : InboxEntries(settings, outputs, 0)) {
    lines.push_back(entry.kind == InboxKind::kOutput
                        ? "not queued: " + entry.path
                        : "not queued: the outputs of " + entry.path);
  }
  return lines;
}

// Returns whether everything that Nix spoke of is kept, or what of it made
// sense.
bool Run(steady_clock::time_point start) {
  absl::StatusOr<HookSettings> settings =
      ReadHookSettings(GetEnvironment, geteuid() == 0);
  if (!settings.ok()) {
    Print({std::string(settings.status().message()),
           "not queued: " + Printable(GetEnvironment("OUT_PATHS")) + " of " +
               Printable(GetEnvironment("DRV_PATH"))});
    return false;
  }
  Complaints refused;
  BuildOutputs outputs = ParseEnvironment(*settings, refused);
  Print(refused.Lines());
  if (outputs.named.empty() && !outputs.derivation.has_value()) {
    Print(
        {"nothing to queue: neither OUT_PATHS nor DRV_PATH names a store "
         "path of " +
         settings->store_dir.path()});
    return false;
  }
  Outcome outcome = Keep(*settings, outputs, start);
  Print(outcome.warnings);
  if (!outcome.kept) Print(LinesOfLoss(*settings, outputs, outcome));
  return outcome.kept;
}

int Main(int argc, char** argv) {
  steady_clock::time_point start = steady_clock::now();
  bool strict = GetEnvironment("NIX_QUEUED_STRICT") == "1";
  // What these tell of are errors of system calls, too.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  LimitLife(strict);
  CloseInheritedFds();
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    return WriteAll(STDOUT_FILENO, kUsage).ok() ? 0 : 1;
  }
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    return WriteAll(STDOUT_FILENO, "queued-hook " NIXQ_VERSION "\n").ok() ? 0
                                                                          : 1;
  }
  if (argc > 1) {
    Print({"takes no arguments; see queued-hook --help"});
    return strict ? 1 : 0;
  }
  return Run(start) || !strict ? 0 : 1;
}

}  // namespace
}  // namespace nixq

// Not by return: there is nothing to tidy up, and Nix is waiting.
int main(int argc, char** argv) { _exit(nixq::Main(argc, argv)); }
