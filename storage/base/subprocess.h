// Child processes, bounded in every way: their environment is only what they
// are given, their output is kept up to a limit, their silence and their life
// have an end, and they die as a group.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/cancel.h"

namespace nixq {

struct SubprocessOptions {
  // argv[0] is looked up in the PATH of `environment` unless it has a slash
  // (/bin:/usr/bin if there is no PATH).
  std::vector<std::string> argv;
  // "NAME=value"; nothing is inherited.
  std::vector<std::string> environment;
  std::string working_directory = "/";
  std::string standard_input;
  // Killed when it has written nothing for this long, or in all.
  absl::Duration stall_limit = absl::Minutes(5);
  absl::Duration total_limit = absl::InfiniteDuration();
  // The tail of each stream that is kept.
  size_t max_output_bytes = size_t{64} * 1024;
  // Called for each line of standard error, without its newline, in this
  // thread. A line over 64 KiB comes in pieces.
  std::function<void(std::string_view line)> on_stderr_line;
};

struct SubprocessResult {
  int exit_code = 0;  // -1 if a signal ended it
  int signal = 0;
  std::string standard_output;
  std::string standard_error;
};

// Runs a child until it exits, blocking, in a session and process group of its
// own (so that it finds no terminal to ask on); what it leaves running in its
// group is killed then. On Linux it also dies with this process. Thread-safe.
// Killing is SIGTERM and, half a second later, SIGKILL.
// Errors: NOT_FOUND          no such program
//         DEADLINE_EXCEEDED  stall or total limit; the group was killed
//         CANCELLED          cancelled; the group was killed
absl::StatusOr<SubprocessResult> RunSubprocess(const SubprocessOptions& options,
                                               const Cancellation& cancel);

// A child whose standard input and output are ours to speak over
// (`nix-daemon --stdio`, ssh). Its standard error is ours. Move-only; the
// destructor kills the group.
class PipedChild {
 public:
  // Errors: NOT_FOUND  no such program
  static absl::StatusOr<PipedChild> Start(
      const std::vector<std::string>& argv,
      const std::vector<std::string>& environment);
  PipedChild(PipedChild&& other) noexcept;
  PipedChild& operator=(PipedChild&& other) noexcept;
  ~PipedChild();

  int pid() const { return pid_; }
  int to_child() const { return to_child_.get(); }
  int from_child() const { return from_child_.get(); }

 private:
  PipedChild() = default;
  void Kill();

  int pid_ = -1;
  UniqueFd to_child_;
  UniqueFd from_child_;
};

// Like write(2), but a reader that has gone is EPIPE and never a signal.
ssize_t WriteWithoutSigpipe(int fd, const void* bytes, size_t size);

}  // namespace nixq
