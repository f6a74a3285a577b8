#include "storage/nix/wire.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/subprocess.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

// The tags of the records before a reply.
constexpr uint64_t kNext = 0x6f6c6d67;
constexpr uint64_t kLast = 0x616c7473;
constexpr uint64_t kError = 0x63787470;
constexpr uint64_t kStartActivity = 0x53545254;
constexpr uint64_t kStopActivity = 0x53544f50;
constexpr uint64_t kResult = 0x52534c54;

constexpr size_t kWordBytes = 8;
constexpr size_t kChunkBytes = size_t{64} * 1024;
constexpr size_t kMaxErrorText = 4096;
// Nix sends a handful of each.
constexpr size_t kMaxFields = 10'000;
constexpr size_t kMaxTraces = 10'000;

using SteadyClock = std::chrono::steady_clock;

void SetNonBlocking(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

// For poll(2): rounded up, so that a limit has passed when poll returns.
int PollTimeoutMs(absl::Duration left) {
  if (left <= absl::ZeroDuration()) return 0;
  const absl::Duration bounded = std::min(left, absl::Minutes(1));
  return static_cast<int>(absl::ToInt64Milliseconds(bounded)) + 1;
}

size_t PaddingOf(size_t size) {
  return (kWordBytes - size % kWordBytes) % kWordBytes;
}

}  // namespace

Wire::Wire(int read_fd, int write_fd, absl::Duration limit,
           const Cancellation& cancel)
    : read_fd_(read_fd), write_fd_(write_fd), limit_(limit), cancel_(cancel) {
  SetNonBlocking(read_fd_);
  SetNonBlocking(write_fd_);
}

void Wire::PutUint(uint64_t number) {
  for (size_t i = 0; i < kWordBytes; ++i) {
    output_.push_back(static_cast<char>(number >> (8 * i) & 0xff));
  }
}

void Wire::PutString(std::string_view text) {
  PutUint(text.size());
  output_.append(text);
  output_.append(PaddingOf(text.size()), '\0');
}

void Wire::PutStrings(const std::vector<std::string>& texts) {
  PutUint(texts.size());
  for (const std::string& text : texts) PutString(text);
}

absl::Status Wire::Broken(absl::Status status) {
  broken_ = true;
  return status;
}

bool Wire::SendSome() {
  bool moved = false;
  while (peer_reads_ && sent_ < output_.size()) {
    const ssize_t written = WriteWithoutSigpipe(
        write_fd_, output_.data() + sent_, output_.size() - sent_);
    if (written > 0) {
      sent_ += static_cast<size_t>(written);
      moved = true;
    } else if (errno == EAGAIN) {
      return moved;
    } else if (errno != EINTR) {
      // It may have said why before it hung up: reading finds that, or the
      // end.
      peer_reads_ = false;
    }
  }
  output_.clear();
  sent_ = 0;
  return moved;
}

absl::Status Wire::Fill() {
  if (broken_) return absl::UnavailableError("the connection is broken");
  input_.erase(0, consumed_);
  consumed_ = 0;
  SteadyClock::time_point moved = SteadyClock::now();
  while (true) {
    if (absl::Status live = cancel_.Check(); !live.ok()) return Broken(live);
    if (SendSome()) moved = SteadyClock::now();
    const absl::Duration waited = absl::FromChrono(SteadyClock::now() - moved);
    const bool late = waited >= limit_;
    std::array<pollfd, 3> waiting{
        {{read_fd_, POLLIN, 0},
         {output_.empty() ? -1 : write_fd_, POLLOUT, 0},
         {cancel_.fd(), POLLIN, 0}}};
    poll(waiting.data(), waiting.size(),
         late ? 0 : PollTimeoutMs(limit_ - waited));
    if (waiting[0].revents != 0) {
      const size_t before = input_.size();
      input_.resize(before + kChunkBytes);
      const ssize_t got = read(read_fd_, input_.data() + before, kChunkBytes);
      const int err = errno;
      input_.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
      if (got > 0) return absl::OkStatus();
      if (got == 0) {
        return Broken(absl::UnavailableError("the peer closed the connection"));
      }
      if (err != EAGAIN && err != EINTR) {
        return Broken(absl::UnavailableError(
            ErrnoError(err, "read from the peer").message()));
      }
    } else if (late) {
      return Broken(absl::DeadlineExceededError(
          absl::StrFormat("no reply within %s", absl::FormatDuration(limit_))));
    }
  }
}

absl::StatusOr<uint64_t> Wire::ReadUint() {
  while (available() < kWordBytes) NIXQ_RETURN_IF_ERROR(Fill());
  uint64_t number = 0;
  for (size_t i = 0; i < kWordBytes; ++i) {
    number |=
        static_cast<uint64_t>(static_cast<unsigned char>(input_[consumed_ + i]))
        << (8 * i);
  }
  consumed_ += kWordBytes;
  return number;
}

absl::StatusOr<bool> Wire::ReadBool() {
  NIXQ_ASSIGN_OR_RETURN(uint64_t number, ReadUint());
  return number != 0;
}

absl::StatusOr<size_t> Wire::ReadCount(size_t max) {
  NIXQ_ASSIGN_OR_RETURN(uint64_t count, ReadUint());
  if (count > max) {
    return Broken(absl::DataLossError(
        absl::StrFormat("a count or length of %d, over %d", count, max)));
  }
  return static_cast<size_t>(count);
}

absl::Status Wire::ReadPadded(size_t size, std::string* text) {
  size_t left = size;
  while (left > 0) {
    if (available() == 0) NIXQ_RETURN_IF_ERROR(Fill());
    const size_t piece = std::min(left, available());
    if (text != nullptr) text->append(input_, consumed_, piece);
    consumed_ += piece;
    left -= piece;
  }
  const size_t padding = PaddingOf(size);
  while (available() < padding) NIXQ_RETURN_IF_ERROR(Fill());
  for (size_t i = 0; i < padding; ++i) {
    if (input_[consumed_++] != '\0') {
      return Broken(absl::DataLossError("padding that is not zero"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Wire::ReadString(size_t max_bytes) {
  NIXQ_ASSIGN_OR_RETURN(size_t size, ReadCount(max_bytes));
  std::string text;
  NIXQ_RETURN_IF_ERROR(ReadPadded(size, &text));
  return text;
}

absl::StatusOr<std::vector<std::string>> Wire::ReadStrings(size_t max_count) {
  NIXQ_ASSIGN_OR_RETURN(size_t count, ReadCount(max_count));
  std::vector<std::string> texts;
  while (texts.size() < count) {
    NIXQ_ASSIGN_OR_RETURN(std::string text, ReadString());
    texts.push_back(std::move(text));
  }
  return texts;
}

absl::Status Wire::SkipString(size_t max_bytes) {
  NIXQ_ASSIGN_OR_RETURN(size_t size, ReadCount(max_bytes));
  return ReadPadded(size, nullptr);
}

absl::Status Wire::SkipFields() {
  NIXQ_ASSIGN_OR_RETURN(size_t count, ReadCount(kMaxFields));
  for (size_t i = 0; i < count; ++i) {
    NIXQ_ASSIGN_OR_RETURN(uint64_t type, ReadUint());
    if (type == 0) {
      NIXQ_RETURN_IF_ERROR(ReadUint().status());
    } else if (type == 1) {
      NIXQ_RETURN_IF_ERROR(SkipString(kMaxLogBytes));
    } else {
      return Broken(absl::DataLossError(
          absl::StrFormat("a field of unknown type %d", type)));
    }
  }
  return absl::OkStatus();
}

// Of protocol 1.26 and later: type, level, name, message, position (0),
// traces. The message alone is for people.
absl::StatusOr<std::string> Wire::ReadErrorRecord() {
  NIXQ_RETURN_IF_ERROR(SkipString(kMaxStringBytes));
  NIXQ_RETURN_IF_ERROR(ReadUint().status());
  NIXQ_RETURN_IF_ERROR(SkipString(kMaxStringBytes));
  NIXQ_ASSIGN_OR_RETURN(std::string message, ReadString());
  NIXQ_RETURN_IF_ERROR(ReadCount(0).status());
  NIXQ_ASSIGN_OR_RETURN(size_t traces, ReadCount(kMaxTraces));
  for (size_t i = 0; i < traces; ++i) {
    NIXQ_RETURN_IF_ERROR(ReadCount(0).status());
    NIXQ_RETURN_IF_ERROR(SkipString(kMaxStringBytes));
  }
  return Printable(message, kMaxErrorText);
}

absl::StatusOr<std::optional<std::string>> Wire::AwaitReply() {
  for (size_t records = 0; records < kMaxRecords; ++records) {
    NIXQ_ASSIGN_OR_RETURN(uint64_t tag, ReadUint());
    switch (tag) {
      case kLast:
        return std::nullopt;
      case kError: {
        NIXQ_ASSIGN_OR_RETURN(std::string message, ReadErrorRecord());
        return message;
      }
      case kNext:
        NIXQ_RETURN_IF_ERROR(SkipString(kMaxLogBytes));
        break;
      case kStartActivity:  // id, level, type, text, fields, parent
        for (int i = 0; i < 3; ++i) NIXQ_RETURN_IF_ERROR(ReadUint().status());
        NIXQ_RETURN_IF_ERROR(SkipString(kMaxLogBytes));
        NIXQ_RETURN_IF_ERROR(SkipFields());
        NIXQ_RETURN_IF_ERROR(ReadUint().status());
        break;
      case kStopActivity:
        NIXQ_RETURN_IF_ERROR(ReadUint().status());
        break;
      case kResult:  // id, type, fields
        for (int i = 0; i < 2; ++i) NIXQ_RETURN_IF_ERROR(ReadUint().status());
        NIXQ_RETURN_IF_ERROR(SkipFields());
        break;
      default:
        return Broken(absl::DataLossError(
            absl::StrFormat("an unknown record 0x%x", tag)));
    }
  }
  return Broken(absl::DataLossError("records without end, and no reply"));
}

bool Wire::SpokeOutOfTurn() const {
  if (broken_ || available() > 0) return true;
  pollfd waiting{read_fd_, POLLIN, 0};
  return poll(&waiting, 1, 0) != 0;
}

}  // namespace nixq
