#include "queued/worker_pool.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

namespace nixq {
namespace {

constexpr std::chrono::seconds kIdleLimit(3);

}  // namespace

WorkerPool::~WorkerPool() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  work_came_.notify_all();
  thread_left_.wait(lock, [this] { return threads_ == 0; });
}

void WorkerPool::Run(std::function<void()> work) {
  std::lock_guard lock(mutex_);
  queue_.push_back(std::move(work));
  if (idle_ >= queue_.size()) {
    work_came_.notify_one();
  } else if (threads_ < max_threads_) {
    ++threads_;
    std::thread(&WorkerPool::Work, this).detach();
  }
}

void WorkerPool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (queue_.empty()) {
      if (stopping_) break;
      ++idle_;
      const bool work = work_came_.wait_for(
          lock, kIdleLimit, [this] { return stopping_ || !queue_.empty(); });
      --idle_;
      if (!work) break;
      continue;
    }
    std::function<void()> next = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    next();
    next = nullptr;
    lock.lock();
  }
  --threads_;
  // Under the lock: the destructor may free this object as soon as it is
  // released.
  thread_left_.notify_all();
}

Mailbox::Mailbox() {
  absl::StatusOr<WakePipe> pipe = MakeWakePipe();
  if (!pipe.ok()) {
    fprintf(stderr, "queued: %s\n", pipe.status().ToString().c_str());
    abort();
  }
  pipe_ = *std::move(pipe);
}

void Mailbox::Post(std::function<void()> message) {
  std::lock_guard lock(mutex_);
  messages_.push_back(std::move(message));
  if (messages_.size() == 1) {
    // A full pipe is as good as a written byte.
    [[maybe_unused]] ssize_t written = write(pipe_.write_end.get(), "", 1);
  }
}

std::vector<std::function<void()>> Mailbox::TakeAll() {
  std::lock_guard lock(mutex_);
  char bytes[16];
  while (read(pipe_.read_end.get(), bytes, sizeof bytes) > 0) {
  }
  return std::exchange(messages_, {});
}

}  // namespace nixq
