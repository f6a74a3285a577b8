// queued-hook: Nix's post-build-hook. Holds the outputs of one build, puts
// them into the queue, and is gone; see queued-hook(1).
//
// Nix waits for this process, so it exits within a second whatever hangs: it
// parses its environment and watches the clock, and leaves everything that
// touches a disk to a worker (worker.h).

#include <poll.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
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
#include "storage/base/turns.h"

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

// What there is to say, and to exit with, when there is no time or memory left
// to find it out.
struct {
  int exit_status = 0;
  std::string text;
} last_words;

// Only what a signal handler may do; a reader that does not read is not waited
// for.
[[noreturn]] void SayLastWords() {
  constexpr size_t kSurelyFits = 512;  // POSIX: a pipe takes as much at once
  pollfd standard_error = {STDERR_FILENO, POLLOUT, 0};
  if (!last_words.text.empty() && poll(&standard_error, 1, 0) == 1) {
    [[maybe_unused]] ssize_t written =
        write(STDERR_FILENO, last_words.text.data(),
              std::min(last_words.text.size(), kSurelyFits));
  }
  _exit(last_words.exit_status);
}

// Even a write to a terminal or pipe that nobody reads ends then.
void LimitLife() {
  struct sigaction action = {};
  action.sa_handler = [](int) { SayLastWords(); };
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

// What the workers have said, put together.
struct Outcome {
  bool kept = false;
  bool derivation_read = false;
  bool rooted = false;
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
          outputs.found.push_back(*std::move(path));
        }
        break;
      case NoteKind::kAskDaemon:
        outputs.ask_daemon = true;
        break;
      case NoteKind::kDerivation:
        outcome.derivation_read = true;
        break;
      case NoteKind::kRooted:
        outcome.rooted = true;
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

// The lines that Nix's user sees.
std::string Text(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) {
    text += "queued-hook: ";
    text += line;
    text += '\n';
  }
  return text;
}

void Print(const std::vector<std::string>& lines) {
  WriteAll(STDERR_FILENO, Text(lines)).IgnoreError();
}

std::vector<std::string> NotQueued(const HookSettings& settings,
                                   const BuildOutputs& outputs) {
  std::vector<std::string> lines;
  for (const InboxEntry& entry : InboxEntries(settings, outputs, 0)) {
    lines.push_back(entry.kind == InboxKind::kOutput
                        ? "not queued: " + entry.path
                        : "not queued: the outputs of " + entry.path);
  }
  return lines;
}

// Starts a worker; failing to is one of the outcome's failures.
std::optional<Worker> StartWorker(const HookSettings& settings,
                                  const BuildOutputs& outputs,
                                  const std::function<void(WorkerNotes&)>& work,
                                  Outcome& outcome) {
  // Without a process of its own the work may hang this one.
  absl::StatusOr<Worker> worker = Worker::Start(work, [&] {
    std::vector<std::string> lines = NotQueued(settings, outputs);
    lines.insert(lines.begin(), "no process to be had, and no time left");
    last_words.text = Text(lines);
  });
  last_words.text.clear();
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
      settings, outputs,
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
      settings, outputs,
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
  if (!outcome.rooted && !settings.roots_dir.empty()) {
    outcome.warnings.push_back(
        "no GC root, or not for all: store or roots directory did not answer "
        "in time");
  }
  return outcome;
}

// Without settings nothing can be checked: one line for each word that Nix
// passed.
std::vector<std::string> NotQueuedUnchecked() {
  std::vector<std::string> lines;
  for (std::string_view word : Split(GetEnvironment("OUT_PATHS"), ' ')) {
    if (!word.empty() && lines.size() < Complaints::kMaxLines) {
      lines.push_back("not queued: " + Printable(word));
    }
  }
  if (std::string_view drv = GetEnvironment("DRV_PATH"); !drv.empty()) {
    lines.push_back("not queued: the outputs of " + Printable(drv));
  }
  return lines;
}

// Returns whether everything that Nix spoke of is kept, or what of it made
// sense.
bool Run(steady_clock::time_point start) {
  absl::StatusOr<HookSettings> settings =
      ReadHookSettings(GetEnvironment, geteuid() == 0);
  if (!settings.ok()) {
    std::vector<std::string> lines = NotQueuedUnchecked();
    lines.insert(lines.begin(), std::string(settings.status().message()));
    Print(lines);
    return false;
  }
  if (!settings->other_store.empty()) {
    Print({"not queued: built in another store than this queue is for: " +
           Printable(settings->other_store)});
    return true;
  }
  Complaints refused;
  BuildOutputs outputs = ParseEnvironment(*settings, refused);
  if (outputs.named.empty() && !outputs.derivation.has_value()) {
    std::vector<std::string> lines = refused.Lines();
    lines.push_back(
        "nothing to queue: neither OUT_PATHS nor DRV_PATH names a store path "
        "of " +
        settings->store_dir.path());
    Print(lines);
    return false;
  }
  // Whatever there is to say comes after what there is to do: nobody may be
  // reading.
  Outcome outcome = Keep(*settings, outputs, start);
  if (outcome.kept) last_words.exit_status = 0;
  std::vector<std::string> lines = settings->problems;
  for (const auto& more : {refused.Lines(), outcome.warnings}) {
    lines.insert(lines.end(), more.begin(), more.end());
  }
  if (!outcome.kept) {
    lines.push_back("cannot write the queue: " + Join(outcome.failures, "; "));
    for (const std::string& line : NotQueued(*settings, outputs)) {
      lines.push_back(line);
    }
  }
  if (!lines.empty()) Print(lines);
  return outcome.kept;
}

int Main(int argc, char** argv) {
  steady_clock::time_point start = steady_clock::now();
  bool strict = GetEnvironment("NIX_QUEUED_STRICT") == "1";
  // What these tell of are errors of system calls, too.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  last_words.exit_status = strict ? 1 : 0;
  LimitLife();
  AskForShortTurns();
  // Out of memory. In a worker it is that worker's failure.
  std::set_terminate([] {
    if (last_words.text.empty()) {
      constexpr std::string_view kText =
          "queued-hook: out of memory; what was built may not be queued\n";
      [[maybe_unused]] ssize_t written =
          write(STDERR_FILENO, kText.data(), kText.size());
    }
    SayLastWords();
  });
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
