#include "storage/nix/wire.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/subprocess.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(2);
constexpr absl::Duration kShort = absl::Milliseconds(50);

// A number as the protocol has it.
std::string U(uint64_t number) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(number >> (8 * i) & 0xff));
  }
  return bytes;
}

std::string S(std::string_view text) {
  std::string bytes = U(text.size()) + std::string(text);
  bytes.resize((bytes.size() + 7) / 8 * 8, '\0');
  return bytes;
}

const std::string kNext = U(0x6f6c6d67);
const std::string kLast = U(0x616c7473);
const std::string kError = U(0x63787470);
const std::string kStart = U(0x53545254);
const std::string kStop = U(0x53544f50);
const std::string kResult = U(0x52534c54);

class WireTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> fds;
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()), 0);
    ours_.Reset(fds[0]);
    theirs_.Reset(fds[1]);
  }

  Wire MakeWire(absl::Duration limit = kLong) {
    return Wire(ours_.get(), ours_.get(), limit, cancel_);
  }
  // A wire on which the peer says this and hangs up.
  Wire Hears(const std::string& bytes) {
    Send(bytes);
    theirs_.Reset();
    return MakeWire();
  }
  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent =
          WriteWithoutSigpipe(theirs_.get(), bytes.data(), bytes.size());
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }

  Cancellation cancel_;
  UniqueFd ours_;
  UniqueFd theirs_;
};

TEST_F(WireTest, PutsWhatTheProtocolSays) {
  Wire wire = MakeWire(kShort);
  wire.PutUint(0x0102030405060708);
  wire.PutString("");
  wire.PutString("12345678");
  wire.PutString("abc");
  wire.PutStrings({"x", "y"});
  // Nothing answers; what was put goes out while the read waits.
  EXPECT_TRUE(absl::IsDeadlineExceeded(wire.ReadUint().status()));
  std::string sent(256, '\0');
  sent.resize(
      static_cast<size_t>(read(theirs_.get(), sent.data(), sent.size())));
  EXPECT_EQ(sent, std::string("\x08\x07\x06\x05\x04\x03\x02\x01", 8) + U(0) +
                      U(8) + "12345678" + U(3) +
                      std::string("abc\0\0\0\0\0", 8) + U(2) + S("x") + S("y"));
}

TEST_F(WireTest, ReadsWhatTheProtocolSays) {
  Wire wire = Hears(U(UINT64_MAX) + U(7) + S("") + S("12345678") + S("abc") +
                    U(2) + S("x") + S("y"));
  EXPECT_EQ(*wire.ReadUint(), UINT64_MAX);
  EXPECT_TRUE(*wire.ReadBool());
  EXPECT_EQ(*wire.ReadString(), "");
  EXPECT_EQ(*wire.ReadString(), "12345678");
  EXPECT_EQ(*wire.ReadString(), "abc");
  EXPECT_THAT(*wire.ReadStrings(2), ElementsAre("x", "y"));
  EXPECT_FALSE(wire.broken());
  EXPECT_TRUE(absl::IsUnavailable(wire.ReadUint().status()));
  EXPECT_TRUE(wire.broken());
}

TEST_F(WireTest, RefusesLengthsAndCountsBeyondTheirBounds) {
  struct Row {
    const char* name;
    std::string bytes;
    std::function<absl::Status(Wire&)> read;
  };
  const std::vector<Row> rows = {
      {"a string of 2^64-1 bytes", U(UINT64_MAX),
       [](Wire& wire) { return wire.ReadString().status(); }},
      {"a string one byte too long", U(6) + std::string(8, 'x'),
       [](Wire& wire) { return wire.ReadString(5).status(); }},
      {"too many strings", U(3) + S("a") + S("b") + S("c"),
       [](Wire& wire) { return wire.ReadStrings(2).status(); }},
      {"padding that is not zero", U(3) + "abcdefgh",
       [](Wire& wire) { return wire.ReadString().status(); }},
      {"an unknown record", U(0x1234),
       [](Wire& wire) { return wire.AwaitReply().status(); }},
      {"a log line without end", kNext + U(UINT64_MAX),
       [](Wire& wire) { return wire.AwaitReply().status(); }},
      {"a field of unknown type", kResult + U(1) + U(2) + U(1) + U(9),
       [](Wire& wire) { return wire.AwaitReply().status(); }},
      {"too many fields", kResult + U(1) + U(2) + U(UINT64_MAX),
       [](Wire& wire) { return wire.AwaitReply().status(); }},
      {"an error with a position",
       kError + S("Error") + U(0) + S("Error") + S("message") + U(1) + U(0),
       [](Wire& wire) { return wire.AwaitReply().status(); }},
  };
  for (const Row& row : rows) {
    SetUp();
    Wire wire = Hears(row.bytes);
    absl::Status status = row.read(wire);
    EXPECT_TRUE(absl::IsDataLoss(status)) << row.name << ": " << status;
    EXPECT_TRUE(wire.broken()) << row.name;
  }
}

TEST_F(WireTest, IsUnavailableAtEveryTruncation) {
  const std::string whole = kNext + S("log\n") + kStart + U(1) + U(2) + U(3) +
                            S("text") + U(2) + U(0) + U(5) + U(1) + S("field") +
                            U(0) + kError + S("Error") + U(0) + S("Error") +
                            S("message") + U(0) + U(1) + U(0) + S("hint");
  for (size_t length = 0; length < whole.size(); ++length) {
    SetUp();
    Wire wire = Hears(whole.substr(0, length));
    auto reply = wire.AwaitReply();
    EXPECT_TRUE(absl::IsUnavailable(reply.status()))
        << length << ": " << reply.status();
  }
  SetUp();
  Wire wire = Hears(whole);
  EXPECT_EQ(*wire.AwaitReply(), "message");
}

TEST_F(WireTest, SkipsRecordsBeforeTheReply) {
  Wire wire = Hears(kNext + S("a log line\n") + kNext + S("") + kStart + U(1) +
                    U(3) + U(105) + S("building") + U(2) + U(1) + S("x") +
                    U(0) + U(7) + U(0) + kResult + U(1) + U(101) + U(1) + U(1) +
                    S("log") + kStop + U(1) + kLast + U(42));
  auto reply = wire.AwaitReply();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_FALSE(reply->has_value());
  EXPECT_EQ(*wire.ReadUint(), 42u);
}

TEST_F(WireTest, GivesTheErrorAsPlainText) {
  Wire wire = Hears(kError + S("Error") + U(0) + S("Error") +
                    S("path '\x1b[35;1m/nix/store/x\x1b[0m' is\nnot valid") +
                    U(0) + U(2) + U(0) + S("one") + U(0) + S("two") + kLast);
  auto reply = wire.AwaitReply();
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_TRUE(reply->has_value());
  EXPECT_THAT(**reply, HasSubstr("path '/nix/store/x' is"));
  EXPECT_EQ((*reply)->find('\x1b'), std::string::npos);
  // The conversation goes on after it.
  EXPECT_FALSE(wire.broken());
  EXPECT_FALSE(wire.AwaitReply()->has_value());
}

TEST_F(WireTest, DropsALogLineThatIsLongerThanAnyString) {
  std::thread peer([this] {
    Send(kNext + S(std::string(Wire::kMaxStringBytes + 5, 'x')) + kLast);
  });
  Wire wire = MakeWire();
  auto reply = wire.AwaitReply();
  peer.join();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_FALSE(reply->has_value());
}

TEST_F(WireTest, DoesNotListenToRecordsForEver) {
  std::thread peer([this] {
    std::string some;
    for (int i = 0; i < 10'000; ++i) some += kStop + U(1);
    for (size_t sent = 0; sent <= Wire::kMaxRecords; sent += 10'000) {
      Send(some);
    }
  });
  Wire wire = MakeWire();
  auto reply = wire.AwaitReply();
  ours_.Reset();
  peer.join();
  EXPECT_TRUE(absl::IsDataLoss(reply.status())) << reply.status();
}

// More than the kernel buffers in either direction: whoever only wrote would
// wait for ever.
TEST_F(WireTest, TalksAndListensAtOnce) {
  const std::string long_text(Wire::kMaxStringBytes, 'x');
  std::thread peer([this] {
    std::string buffer(size_t{64} * 1024, '\0');
    size_t left = 4 * (8 + Wire::kMaxStringBytes);
    while (left > 0) {
      const ssize_t got = read(theirs_.get(), buffer.data(), buffer.size());
      if (got <= 0) return;
      Send(std::string_view(buffer).substr(0, static_cast<size_t>(got)));
      left -= static_cast<size_t>(got);
    }
  });
  Wire wire = MakeWire();
  for (int i = 0; i < 4; ++i) wire.PutString(long_text);
  for (int i = 0; i < 4; ++i) {
    auto text = wire.ReadString();
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_TRUE(*text == long_text);
  }
  peer.join();
}

TEST_F(WireTest, WorksOverPipes) {
  std::array<int, 2> to;
  std::array<int, 2> from;
  ASSERT_EQ(pipe(to.data()), 0);
  ASSERT_EQ(pipe(from.data()), 0);
  UniqueFd to_read(to[0]);
  UniqueFd to_write(to[1]);
  UniqueFd from_read(from[0]);
  UniqueFd from_write(from[1]);
  ASSERT_EQ(write(from_write.get(), U(9).data(), 8), 8);
  Wire wire(from_read.get(), to_write.get(), kLong, cancel_);
  wire.PutUint(5);
  EXPECT_EQ(*wire.ReadUint(), 9u);
  // A reader that is gone is no signal, and what it said last is heard.
  to_read.Reset();
  ASSERT_EQ(write(from_write.get(), U(10).data(), 8), 8);
  from_write.Reset();
  wire.PutUint(6);
  EXPECT_EQ(*wire.ReadUint(), 10u);
  wire.PutUint(7);
  EXPECT_TRUE(absl::IsUnavailable(wire.ReadUint().status()));
}

TEST_F(WireTest, StopsWaitingWhenCancelled) {
  Wire wire = MakeWire();
  std::thread canceller([this] { cancel_.Cancel(); });
  EXPECT_TRUE(absl::IsCancelled(wire.ReadUint().status()));
  canceller.join();
  EXPECT_TRUE(wire.broken());
}

TEST_F(WireTest, NoticesAPeerThatSpeaksUnasked) {
  Wire wire = MakeWire();
  EXPECT_FALSE(wire.SpokeOutOfTurn());
  Send(U(1));
  EXPECT_TRUE(wire.SpokeOutOfTurn());
  EXPECT_EQ(*wire.ReadUint(), 1u);
  EXPECT_FALSE(wire.SpokeOutOfTurn());
  Send(U(1) + U(2));
  EXPECT_EQ(*wire.ReadUint(), 1u);
  EXPECT_TRUE(wire.SpokeOutOfTurn());
  EXPECT_EQ(*wire.ReadUint(), 2u);
  theirs_.Reset();
  EXPECT_TRUE(wire.SpokeOutOfTurn());
}

}  // namespace
}  // namespace nixq
