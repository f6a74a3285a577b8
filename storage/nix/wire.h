// The primitives of the daemon's worker protocol: 64-bit little-endian
// numbers, padded strings, and the records that come before each reply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/cancel.h"

namespace nixq {

// One end of a conversation over a socket or a pair of pipes. What is put is
// kept until something is read; while a read waits, it writes too, so a peer
// that answers before it has read everything cannot make both wait for ever.
// The caller bounds what is put ahead. For one thread.
//
// Errors of every read; after one, broken() is true and nothing but the
// destructor makes sense:
//   UNAVAILABLE        the peer has gone
//   DEADLINE_EXCEEDED  nothing moved for the limit
//   CANCELLED
//   DATA_LOSS          not the protocol: a length beyond its bound, padding
//                      that is not zero, an unknown record
class Wire {
 public:
  // Bounds against a stream that lost its step.
  static constexpr size_t kMaxStringBytes = size_t{4} * 1024 * 1024;
  static constexpr size_t kMaxLogBytes = size_t{64} * 1024 * 1024;
  static constexpr size_t kMaxRecords = 1'000'000;  // before one reply

  // Makes both descriptors (which may be one) non-blocking. They and `cancel`
  // are not owned and must live as long.
  Wire(int read_fd, int write_fd, absl::Duration limit,
       const Cancellation& cancel);
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  void PutUint(uint64_t number);
  void PutString(std::string_view text);
  void PutStrings(const std::vector<std::string>& texts);

  absl::StatusOr<uint64_t> ReadUint();
  absl::StatusOr<bool> ReadBool();
  // A number of things to come, at most `max`.
  absl::StatusOr<size_t> ReadCount(size_t max);
  absl::StatusOr<std::string> ReadString(size_t max_bytes = kMaxStringBytes);
  absl::StatusOr<std::vector<std::string>> ReadStrings(size_t max_count);

  // Reads the records before a reply and drops log lines and activities.
  // nullopt: the reply follows. A text: the peer answers with this error, and
  // nothing follows. It is fit to print: no escapes, at most 4 KiB.
  absl::StatusOr<std::optional<std::string>> AwaitReply();

  // True if the peer has said or done something while nothing was asked: it
  // has gone, or is a record ahead of us. To be asked between requests.
  bool SpokeOutOfTurn() const;

  bool broken() const { return broken_; }

 private:
  absl::Status Broken(absl::Status status);
  // Waits until there is more to read, writing meanwhile.
  absl::Status Fill();
  // Writes what can be written now; true if something was.
  bool SendSome();
  size_t available() const { return input_.size() - consumed_; }
  // Passes `size` bytes and their padding on, or drops them.
  absl::Status ReadPadded(size_t size, std::string* text);
  absl::Status SkipString(size_t max_bytes);
  absl::Status SkipFields();
  absl::StatusOr<std::string> ReadErrorRecord();

  int read_fd_;
  int write_fd_;
  absl::Duration limit_;
  const Cancellation& cancel_;
  std::string output_;  // not yet sent from sent_ on
  size_t sent_ = 0;
  std::string input_;  // not yet consumed from consumed_ on
  size_t consumed_ = 0;
  bool peer_reads_ = true;
  bool broken_ = false;
};

}  // namespace nixq
