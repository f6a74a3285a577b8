#include "storage/base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

using SteadyClock = std::chrono::steady_clock;

// What execvp(3) uses when there is no PATH.
constexpr std::string_view kDefaultPath = "/bin:/usr/bin";
// From fork to exec; longer only when a file system hangs.
constexpr absl::Duration kExecLimit = absl::Seconds(30);
// Between SIGTERM and SIGKILL.
constexpr absl::Duration kGrace = absl::Milliseconds(500);
// How often an exit is looked for where it cannot be polled for.
constexpr int kExitPollMs = 20;
constexpr size_t kReadBytes = size_t{64} * 1024;
// A longer line is delivered in pieces of this length.
constexpr size_t kMaxOutputLineBytes = size_t{64} * 1024;

absl::Duration Since(SteadyClock::time_point start) {
  return absl::FromChrono(SteadyClock::now() - start);
}

// For poll(2): rounded up, so that a limit has passed when poll returns.
int PollTimeoutMs(absl::Duration left) {
  if (left <= absl::ZeroDuration()) return 0;
  const absl::Duration bounded = std::min(left, absl::Minutes(1));
  return static_cast<int>(absl::ToInt64Milliseconds(bounded)) + 1;
}

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

// Out of the way of 0, 1 and 2, which the child replaces.
UniqueFd AboveStandardStreams(int fd) {
  UniqueFd low(fd);
  if (fd > STDERR_FILENO) return low;
  return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> fds;
#ifdef __linux__
  if (pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoError(errno, "pipe");
#else
  if (pipe(fds.data()) != 0) return ErrnoError(errno, "pipe");
  for (int fd : fds) fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
  Pipe made{AboveStandardStreams(fds[0]), AboveStandardStreams(fds[1])};
  if (!made.read_end.valid() || !made.write_end.valid()) {
    return ErrnoError(errno, "pipe");
  }
  return made;
}

absl::Status SetNonBlocking(int fd) {
  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
    return ErrnoError(errno, "set a pipe non-blocking");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> FindProgram(
    const std::string& program, const std::vector<std::string>& environment) {
  if (program.find('/') != std::string::npos) return program;
  std::string path(kDefaultPath);
  for (const std::string& variable : environment) {
    if (variable.starts_with("PATH=")) path = variable.substr(5);
  }
  for (const std::string& directory : Split(path, ':')) {
    if (directory.empty()) continue;
    std::string candidate = directory;
    candidate.append("/").append(program);
    struct stat st;
    if (stat(candidate.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
        access(candidate.c_str(), X_OK) == 0) {
      return candidate;
    }
  }
  return absl::NotFoundError("no program " + program + " in " + path);
}

std::vector<char*> CStrings(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& text : strings) {
    pointers.push_back(const_cast<char*>(text.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

struct SpawnRequest {
  std::string program;
  const std::vector<std::string>& argv;
  const std::vector<std::string>& environment;
  std::string working_directory;
  int standard_input = -1;
  int standard_output = -1;
  int standard_error = -1;        // -1: ours
  bool dies_with_thread = false;  // Linux only
};

// What the child does between fork and exec: only calls that are safe in the
// child of a process with threads. Returns only if something failed.
int BecomeProgram(const SpawnRequest& request, char* const* argv,
                  char* const* environment, [[maybe_unused]] pid_t parent) {
  // A group to be killed as one, and no terminal to ask for passwords on.
  if (setsid() < 0) return errno;
#ifdef __linux__
  if (request.dies_with_thread) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return errno;
    if (getppid() != parent) return ESRCH;
  }
#endif
  // Handlers go with exec, but what is ignored stays ignored.
  for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (chdir(request.working_directory.c_str()) != 0) return errno;
  if (dup2(request.standard_input, STDIN_FILENO) < 0) return errno;
  if (dup2(request.standard_output, STDOUT_FILENO) < 0) return errno;
  if (request.standard_error >= 0 &&
      dup2(request.standard_error, STDERR_FILENO) < 0) {
    return errno;
  }
#if defined(__linux__) && defined(SYS_close_range)
  // Whatever a library left open without close-on-exec. Old kernels have no
  // such call; there our own flags must do.
  constexpr unsigned kCloseRangeCloexec = 4;
  syscall(SYS_close_range, STDERR_FILENO + 1U, ~0U, kCloseRangeCloexec);
#endif
  execve(request.program.c_str(), argv, environment);
  return errno;
}

// Waits until the child has become the program. The pipe closes with exec, or
// brings the errno of what failed.
absl::Status AwaitExec(int status_fd, const std::string& program) {
  pollfd waiting{status_fd, POLLIN, 0};
  const SteadyClock::time_point start = SteadyClock::now();
  int ready = 0;
  do {
    ready = poll(&waiting, 1, PollTimeoutMs(kExecLimit - Since(start)));
  } while (ready <= 0 && Since(start) < kExecLimit);
  if (ready <= 0) {
    return absl::DeadlineExceededError(program + " does not start");
  }
  int err = 0;
  ssize_t got = 0;
  do {
    got = read(status_fd, &err, sizeof err);
  } while (got < 0 && errno == EINTR);
  if (got == sizeof err) return ErrnoError(err, "start " + program);
  return absl::OkStatus();
}

absl::StatusOr<pid_t> Spawn(const SpawnRequest& request) {
  NIXQ_ASSIGN_OR_RETURN(Pipe status_pipe, MakePipe());
  const std::vector<char*> argv = CStrings(request.argv);
  const std::vector<char*> environment = CStrings(request.environment);
  const pid_t parent = getpid();

  // No handler of ours may run in the child.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) {
    const int err =
        BecomeProgram(request, argv.data(), environment.data(), parent);
    (void)!write(status_pipe.write_end.get(), &err, sizeof err);
    _exit(127);
  }
  const int fork_errno = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return ErrnoError(fork_errno, "fork for " + request.program);

  status_pipe.write_end.Reset();
  absl::Status started = AwaitExec(status_pipe.read_end.get(), request.program);
  if (!started.ok()) {
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return started;
  }
  return pid;
}

// Becomes readable when the process has ended; invalid where the system
// cannot do that.
UniqueFd ExitFd([[maybe_unused]] pid_t pid) {
#if defined(__linux__) && defined(SYS_pidfd_open)
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
#else
  return UniqueFd();
#endif
}

// True once the process has ended; it stays a zombie, so that its number and
// its group's are still its own.
bool HasEnded(pid_t pid) {
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid), &info,
             WEXITED | WNOHANG | WNOWAIT) != 0) {
    return errno == ECHILD;
  }
  return info.si_pid == pid;
}

void AwaitEnd(pid_t pid, int exit_fd, absl::Duration limit) {
  const SteadyClock::time_point start = SteadyClock::now();
  while (!HasEnded(pid) && Since(start) < limit) {
    pollfd waiting{exit_fd, POLLIN, 0};
    const int timeout_ms = PollTimeoutMs(limit - Since(start));
    poll(&waiting, 1,
         exit_fd >= 0 ? timeout_ms : std::min(timeout_ms, kExitPollMs));
  }
}

// Ends what is left of the group and reaps its leader: politely, unless it
// has ended already or `grace` is zero.
int EndGroup(pid_t pid, int exit_fd, absl::Duration grace) {
  if (!HasEnded(pid) && grace > absl::ZeroDuration()) {
    kill(-pid, SIGTERM);
    AwaitEnd(pid, exit_fd, grace);
  }
  kill(-pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

// The last bytes of a stream.
class Tail {
 public:
  explicit Tail(size_t max_bytes) : max_bytes_(max_bytes) {}
  void Append(std::string_view bytes) {
    kept_.append(bytes);
    if (kept_.size() > 2 * max_bytes_) Trim();
  }
  std::string Take() {
    Trim();
    return std::move(kept_);
  }

 private:
  void Trim() {
    if (kept_.size() > max_bytes_) kept_.erase(0, kept_.size() - max_bytes_);
  }
  size_t max_bytes_;
  std::string kept_;
};

// Cuts a stream into lines.
class LineSplitter {
 public:
  explicit LineSplitter(const std::function<void(std::string_view)>& on_line)
      : on_line_(on_line) {}
  void Append(std::string_view bytes) {
    if (!on_line_) return;
    for (char c : bytes) {
      if (c != '\n') pending_.push_back(c);
      if (c == '\n' || pending_.size() == kMaxOutputLineBytes) Deliver();
    }
  }
  void Finish() {
    if (!pending_.empty()) Deliver();
  }

 private:
  void Deliver() {
    on_line_(pending_);
    pending_.clear();
  }
  const std::function<void(std::string_view)>& on_line_;
  std::string pending_;
};

// A running child and what flows to and from it.
class Run {
 public:
  Run(const SubprocessOptions& options, const Cancellation& cancel)
      : options_(options),
        cancel_(cancel),
        output_(options.max_output_bytes),
        error_(options.max_output_bytes),
        lines_(options.on_stderr_line) {}

  absl::Status Start();
  // Until the child has ended or must end.
  absl::Status Pump();
  SubprocessResult Finish();
  void Kill() { EndGroup(pid_, exit_fd_.get(), kGrace); }

 private:
  absl::Duration TimeLeft() const;
  absl::Status CheckLimits() const;
  void Feed();
  void ReadOutput();
  void ReadError();
  // Reads what is there; closes at the end of the stream.
  template <typename Consumer>
  void Drain(UniqueFd& fd, Consumer consume);

  const SubprocessOptions& options_;
  const Cancellation& cancel_;
  pid_t pid_ = -1;
  UniqueFd exit_fd_;
  UniqueFd to_child_;
  UniqueFd from_output_;
  UniqueFd from_error_;
  size_t fed_bytes_ = 0;
  Tail output_;
  Tail error_;
  LineSplitter lines_;
  SteadyClock::time_point started_;
  SteadyClock::time_point last_output_;
};

absl::Status Run::Start() {
  if (options_.argv.empty()) return absl::InvalidArgumentError("empty argv");
  NIXQ_ASSIGN_OR_RETURN(std::string program,
                        FindProgram(options_.argv[0], options_.environment));
  NIXQ_ASSIGN_OR_RETURN(Pipe input, MakePipe());
  NIXQ_ASSIGN_OR_RETURN(Pipe output, MakePipe());
  NIXQ_ASSIGN_OR_RETURN(Pipe error, MakePipe());
  NIXQ_RETURN_IF_ERROR(SetNonBlocking(input.write_end.get()));
  NIXQ_RETURN_IF_ERROR(SetNonBlocking(output.read_end.get()));
  NIXQ_RETURN_IF_ERROR(SetNonBlocking(error.read_end.get()));
  started_ = last_output_ = SteadyClock::now();
  NIXQ_ASSIGN_OR_RETURN(pid_,
                        Spawn({.program = std::move(program),
                               .argv = options_.argv,
                               .environment = options_.environment,
                               .working_directory = options_.working_directory,
                               .standard_input = input.read_end.get(),
                               .standard_output = output.write_end.get(),
                               .standard_error = error.write_end.get(),
                               .dies_with_thread = true}));
  exit_fd_ = ExitFd(pid_);
  to_child_ = std::move(input.write_end);
  from_output_ = std::move(output.read_end);
  from_error_ = std::move(error.read_end);
  if (options_.standard_input.empty()) to_child_.Reset();
  return absl::OkStatus();
}

absl::Duration Run::TimeLeft() const {
  return std::min(options_.stall_limit - Since(last_output_),
                  options_.total_limit - Since(started_));
}

absl::Status Run::CheckLimits() const {
  NIXQ_RETURN_IF_ERROR(cancel_.Check());
  if (Since(last_output_) >= options_.stall_limit) {
    return absl::DeadlineExceededError(
        absl::StrFormat("%s wrote nothing for %s", options_.argv[0],
                        absl::FormatDuration(options_.stall_limit)));
  }
  if (Since(started_) >= options_.total_limit) {
    return absl::DeadlineExceededError(
        absl::StrFormat("%s ran for longer than %s", options_.argv[0],
                        absl::FormatDuration(options_.total_limit)));
  }
  return absl::OkStatus();
}

void Run::Feed() {
  const std::string_view rest =
      std::string_view(options_.standard_input).substr(fed_bytes_);
  const ssize_t sent =
      WriteWithoutSigpipe(to_child_.get(), rest.data(), rest.size());
  if (sent > 0) fed_bytes_ += static_cast<size_t>(sent);
  // A child that wants no more of it is not an error of ours.
  const bool refused = sent < 0 && errno != EAGAIN && errno != EINTR;
  if (refused || fed_bytes_ == options_.standard_input.size()) {
    to_child_.Reset();
  }
}

template <typename Consumer>
void Run::Drain(UniqueFd& fd, Consumer consume) {
  std::array<char, kReadBytes> buffer;
  if (!fd.valid()) return;
  const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
  if (got > 0) {
    last_output_ = SteadyClock::now();
    consume(std::string_view(buffer.data(), static_cast<size_t>(got)));
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
    fd.Reset();
  }
}

void Run::ReadOutput() {
  Drain(from_output_,
        [this](std::string_view bytes) { output_.Append(bytes); });
}

void Run::ReadError() {
  Drain(from_error_, [this](std::string_view bytes) {
    error_.Append(bytes);
    lines_.Append(bytes);
  });
}

absl::Status Run::Pump() {
  while (true) {
    NIXQ_RETURN_IF_ERROR(CheckLimits());
    std::array<pollfd, 5> waiting{{{from_output_.get(), POLLIN, 0},
                                   {from_error_.get(), POLLIN, 0},
                                   {to_child_.get(), POLLOUT, 0},
                                   {exit_fd_.get(), POLLIN, 0},
                                   {cancel_.fd(), POLLIN, 0}}};
    const int timeout_ms = PollTimeoutMs(TimeLeft());
    poll(waiting.data(), waiting.size(),
         exit_fd_.valid() ? timeout_ms : std::min(timeout_ms, kExitPollMs));
    // Looked at before the reads: what it wrote before its end is read below.
    const bool ended = HasEnded(pid_);
    if (waiting[0].revents != 0) ReadOutput();
    if (waiting[1].revents != 0) ReadError();
    if (waiting[2].revents != 0) Feed();
    if (ended) return absl::OkStatus();
  }
}

SubprocessResult Run::Finish() {
  const int status = EndGroup(pid_, exit_fd_.get(), absl::ZeroDuration());
  // The group is dead, so the pipes have an end. A process that left the
  // group may still hold them: then only what is there now is read.
  const auto has_more = [](const UniqueFd& fd) {
    pollfd waiting{fd.get(), POLLIN, 0};
    return fd.valid() && poll(&waiting, 1, 0) > 0;
  };
  const SteadyClock::time_point start = SteadyClock::now();
  while (has_more(from_output_) && Since(start) < kGrace) ReadOutput();
  while (has_more(from_error_) && Since(start) < kGrace) ReadError();
  lines_.Finish();

  SubprocessResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  result.standard_output = output_.Take();
  result.standard_error = error_.Take();
  return result;
}

}  // namespace

absl::StatusOr<SubprocessResult> RunSubprocess(const SubprocessOptions& options,
                                               const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(cancel.Check());
  Run run(options, cancel);
  NIXQ_RETURN_IF_ERROR(run.Start());
  if (absl::Status pumped = run.Pump(); !pumped.ok()) {
    run.Kill();
    return pumped;
  }
  return run.Finish();
}

absl::StatusOr<PipedChild> PipedChild::Start(
    const std::vector<std::string>& argv,
    const std::vector<std::string>& environment) {
  if (argv.empty()) return absl::InvalidArgumentError("empty argv");
  NIXQ_ASSIGN_OR_RETURN(std::string program, FindProgram(argv[0], environment));
  NIXQ_ASSIGN_OR_RETURN(Pipe input, MakePipe());
  NIXQ_ASSIGN_OR_RETURN(Pipe output, MakePipe());
  PipedChild child;
  NIXQ_ASSIGN_OR_RETURN(child.pid_,
                        Spawn({.program = std::move(program),
                               .argv = argv,
                               .environment = environment,
                               .working_directory = "/",
                               .standard_input = input.read_end.get(),
                               .standard_output = output.write_end.get()}));
  child.to_child_ = std::move(input.write_end);
  child.from_child_ = std::move(output.read_end);
  return child;
}

PipedChild::PipedChild(PipedChild&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      to_child_(std::move(other.to_child_)),
      from_child_(std::move(other.from_child_)) {}

PipedChild& PipedChild::operator=(PipedChild&& other) noexcept {
  if (this != &other) {
    Kill();
    pid_ = std::exchange(other.pid_, -1);
    to_child_ = std::move(other.to_child_);
    from_child_ = std::move(other.from_child_);
  }
  return *this;
}

PipedChild::~PipedChild() { Kill(); }

void PipedChild::Kill() {
  to_child_.Reset();
  from_child_.Reset();
  if (pid_ < 0) return;
  const UniqueFd exit_fd = ExitFd(pid_);
  EndGroup(std::exchange(pid_, -1), exit_fd.get(), kGrace);
}

ssize_t WriteWithoutSigpipe(int fd, const void* bytes, size_t size) {
  sigset_t sigpipe;
  sigset_t before;
  sigset_t pending;
  sigemptyset(&sigpipe);
  sigaddset(&sigpipe, SIGPIPE);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
  const ssize_t written = write(fd, bytes, size);
  const int err = errno;
  if (written < 0 && err == EPIPE && !was_pending) {
    // The signal is this thread's: take it before it is let through.
    sigpending(&pending);
    int number = 0;
    if (sigismember(&pending, SIGPIPE) == 1) sigwait(&sigpipe, &number);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = err;
  return written;
}

}  // namespace nixq
