// The bytes between the thread that makes a body and the one that sends it.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>

namespace nixq {

// A bounded buffer for one producer and one consumer. The consumer never gets
// the last byte before Finish, so that it cannot send a whole that nobody has
// vouched for.
class BodyPipe {
 public:
  static constexpr size_t kCapacityBytes = 1 << 20;

  // `on_bytes` is called in the producer's thread whenever there is something
  // to read again for a consumer that was told to wait.
  explicit BodyPipe(std::function<void()> on_bytes);

  // Producer: blocks while the buffer is full. False: the consumer is gone.
  bool Write(std::string_view bytes);
  // Producer: that was all.
  void Finish();

  enum class State { kBytes, kWait, kEnd, kClosed };
  struct Piece {
    State state;
    size_t size = 0;  // for kBytes
  };
  // Consumer: fills `buffer` with what is there; never blocks. After kWait,
  // `on_bytes` says when to come again.
  Piece Read(char* buffer, size_t size);
  // Either side: nothing more will be read. Write fails from now on.
  void Close();
  // True once the consumer has got everything up to the end.
  bool drained() const;

 private:
  // Bytes that may be given away now.
  size_t ReadableLocked() const;

  const std::function<void()> on_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  const std::unique_ptr<char[]> ring_;
  size_t begin_ = 0;
  size_t size_ = 0;
  bool finished_ = false;
  bool ended_ = false;
  bool closed_ = false;
  bool waiting_ = false;
};

}  // namespace nixq
