#include "hook/worker.h"

#include <fcntl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "storage/base/status.h"

namespace nixq {
namespace {

// Only so that SIGCHLD interrupts pselect(2).
void OnChildExit(int) {}

absl::Status WatchChildExit() {
  struct sigaction action = {};
  action.sa_handler = OnChildExit;
  sigset_t child_exit;
  sigemptyset(&child_exit);
  sigaddset(&child_exit, SIGCHLD);
  if (sigaction(SIGCHLD, &action, nullptr) != 0 ||
      sigprocmask(SIG_BLOCK, &child_exit, nullptr) != 0) {
    return ErrnoError(errno, "watch SIGCHLD");
  }
  return absl::OkStatus();
}

// A pipe that does not block. Where standard streams are closed its ends would
// take their numbers, and be lost to what belongs there.
absl::Status MakePipe(UniqueFd& read_end, UniqueFd& write_end) {
  int ends[2];
  if (pipe(ends) != 0) return ErrnoError(errno, "make a pipe");
  read_end.Reset(ends[0]);
  write_end.Reset(ends[1]);
  for (UniqueFd* end : {&read_end, &write_end}) {
    if (end->get() <= STDERR_FILENO) {
      end->Reset(fcntl(end->get(), F_DUPFD, STDERR_FILENO + 1));
    }
    if (!end->valid() || fcntl(end->get(), F_SETFL, O_NONBLOCK) != 0) {
      return ErrnoError(errno, "set up a pipe");
    }
  }
  return absl::OkStatus();
}

// Nix reads our output until nobody has it open, so a worker that may outlive
// us must not.
bool DropStandardStreams() {
  int null = open("/dev/null", O_RDWR);
  if (null < 0) return false;
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (null != fd && dup2(null, fd) < 0) return false;
  }
  if (null > STDERR_FILENO) close(null);
  return true;
}

[[noreturn]] void RunWork(int notes_fd,
                          const std::function<void(WorkerNotes&)>& work) {
  WorkerNotes notes(notes_fd);
  sigset_t none;
  sigemptyset(&none);
  signal(SIGCHLD, SIG_DFL);
  // Who interrupts the build has its outputs all the same.
  for (int number : {SIGHUP, SIGINT, SIGQUIT, SIGTERM}) signal(number, SIG_IGN);
  setsid();
  sigprocmask(SIG_SETMASK, &none, nullptr);
  umask(022);
  if (!DropStandardStreams() || chdir("/") != 0) {
    notes.Say(NoteKind::kFailure, "cannot leave the caller's surroundings");
    _exit(1);
  }
  work(notes);
  _exit(0);
}

std::vector<Note> ParseNotes(std::string_view text) {
  std::vector<Note> notes;
  while (!text.empty()) {
    size_t end = text.find('\n');
    if (end == text.npos) break;
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.empty()) continue;
    notes.push_back(
        {static_cast<NoteKind>(line.front()), std::string(line.substr(1))});
  }
  return notes;
}

}  // namespace

void WorkerNotes::Say(NoteKind kind, std::string_view text) {
  Say({Note{kind, std::string(text)}});
}

void WorkerNotes::Say(const std::vector<Note>& notes) {
  std::string bytes;
  for (const Note& note : notes) {
    bytes += static_cast<char>(note.kind);
    bytes += note.text;
    std::replace(bytes.end() - note.text.size(), bytes.end(), '\n', ' ');
    bytes += '\n';
  }
  // What does not fit is dropped, as promised.
  [[maybe_unused]] ssize_t written = write(fd_, bytes.data(), bytes.size());
}

absl::StatusOr<Worker> Worker::Start(
    const std::function<void(WorkerNotes&)>& work,
    const std::function<void()>& alone) {
  NIXQ_RETURN_IF_ERROR(WatchChildExit());
  UniqueFd read_end;
  UniqueFd write_end;
  NIXQ_RETURN_IF_ERROR(MakePipe(read_end, write_end));
  pid_t pid = fork();
  if (pid == 0) {
    read_end.Reset();
    RunWork(write_end.get(), work);
  }
  if (pid < 0) {
    alone();
    WorkerNotes notes(write_end.get());
    work(notes);
  }
  return Worker(pid, std::move(read_end));
}

Worker::~Worker() {
  if (Exited()) return;
  kill(pid_, SIGKILL);
  // Takes the zombie away if it died at once; if not, it is init's.
  waitpid(pid_, nullptr, WNOHANG);
}

std::vector<Note> Worker::Heard() {
  std::string said;
  char buffer[4096];
  while (true) {
    ssize_t got = read(notes_.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    said.append(buffer, static_cast<size_t>(got));
  }
  return ParseNotes(said);
}

bool Worker::Exited() {
  if (pid_ < 0) return true;
  pid_t ended = waitpid(pid_, nullptr, WNOHANG);
  if (ended == pid_ || (ended < 0 && errno != EINTR)) pid_ = -1;
  return pid_ < 0;
}

bool Worker::WaitForAnExit(Deadline deadline) {
  using std::chrono::nanoseconds;
  nanoseconds left = deadline - std::chrono::steady_clock::now();
  if (left <= nanoseconds::zero()) return false;
  timespec timeout;
  timeout.tv_sec = left.count() / 1'000'000'000;
  timeout.tv_nsec = left.count() % 1'000'000'000;
  // SIGCHLD gets through only in here, so that none is missed.
  sigset_t none;
  sigemptyset(&none);
  return pselect(0, nullptr, nullptr, nullptr, &timeout, &none) != 0;
}

}  // namespace nixq
