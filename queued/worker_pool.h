// Threads for work that blocks, and the way back to the loop thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "storage/base/io.h"

namespace nixq {

// Starts threads as work comes, up to a limit, and lets them go when they
// have been idle for a few seconds: an idle daemon has none. Thread-safe.
class WorkerPool {
 public:
  explicit WorkerPool(size_t max_threads) : max_threads_(max_threads) {}
  // Waits for all work; whoever wants that soon cancels it first.
  ~WorkerPool();

  // Never blocks. Work beyond max_threads waits in order; the scheduler's
  // limits bound how much there is.
  void Run(std::function<void()> work);

 private:
  void Work();

  const size_t max_threads_;
  std::mutex mutex_;
  std::condition_variable work_came_;
  std::condition_variable thread_left_;
  std::deque<std::function<void()>> queue_;
  size_t threads_ = 0;
  size_t idle_ = 0;
  bool stopping_ = false;
};

// What workers have to say to the loop: functions that the loop runs.
// Post is thread-safe; fd() is readable while something is waiting.
class Mailbox {
 public:
  Mailbox();
  void Post(std::function<void()> message);
  std::vector<std::function<void()>> TakeAll();
  int fd() const { return pipe_.read_end.get(); }

 private:
  std::mutex mutex_;
  std::vector<std::function<void()>> messages_;
  WakePipe pipe_;
};

}  // namespace nixq
