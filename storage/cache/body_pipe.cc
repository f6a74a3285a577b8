#include "storage/cache/body_pipe.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace nixq {

BodyPipe::BodyPipe(std::function<void()> on_bytes)
    : on_bytes_(std::move(on_bytes)),
      ring_(std::make_unique_for_overwrite<char[]>(kCapacityBytes)) {}

size_t BodyPipe::ReadableLocked() const {
  if (finished_) return size_;
  return size_ > 0 ? size_ - 1 : 0;
}

bool BodyPipe::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    bool tell = false;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return closed_ || size_ < kCapacityBytes; });
      if (closed_) return false;
      const size_t end = (begin_ + size_) % kCapacityBytes;
      const size_t piece = std::min(
          {bytes.size(), kCapacityBytes - size_, kCapacityBytes - end});
      std::memcpy(ring_.get() + end, bytes.data(), piece);
      size_ += piece;
      bytes.remove_prefix(piece);
      tell = waiting_ && ReadableLocked() > 0;
      if (tell) waiting_ = false;
    }
    if (tell) on_bytes_();
  }
  return true;
}

void BodyPipe::Finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    finished_ = true;
    if (!waiting_) return;
    waiting_ = false;
  }
  on_bytes_();
}

BodyPipe::Piece BodyPipe::Read(char* buffer, size_t size) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return {State::kClosed};
  const size_t piece =
      std::min({size, ReadableLocked(), kCapacityBytes - begin_});
  if (piece > 0) {
    std::memcpy(buffer, ring_.get() + begin_, piece);
    begin_ = (begin_ + piece) % kCapacityBytes;
    size_ -= piece;
    ended_ = finished_ && size_ == 0;
    changed_.notify_one();
    return {State::kBytes, piece};
  }
  if (finished_) {
    ended_ = true;
    return {State::kEnd};
  }
  waiting_ = true;
  return {State::kWait};
}

void BodyPipe::Close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  changed_.notify_one();
}

bool BodyPipe::drained() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return ended_;
}

}  // namespace nixq
