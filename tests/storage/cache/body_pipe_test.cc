#include "storage/cache/body_pipe.h"

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>

namespace nixq {
namespace {

using State = BodyPipe::State;

TEST(BodyPipeTest, TheLastByteWaitsForFinish) {
  BodyPipe pipe([] {});
  char buffer[16];
  ASSERT_TRUE(pipe.Write("abc"));
  auto piece = pipe.Read(buffer, sizeof buffer);
  ASSERT_EQ(piece.state, State::kBytes);
  EXPECT_EQ(std::string(buffer, piece.size), "ab");
  EXPECT_EQ(pipe.Read(buffer, sizeof buffer).state, State::kWait);
  EXPECT_FALSE(pipe.drained());
  pipe.Finish();
  piece = pipe.Read(buffer, sizeof buffer);
  ASSERT_EQ(piece.state, State::kBytes);
  EXPECT_EQ(std::string(buffer, piece.size), "c");
  EXPECT_TRUE(pipe.drained());
  EXPECT_EQ(pipe.Read(buffer, sizeof buffer).state, State::kEnd);
}

TEST(BodyPipeTest, TellsAWaitingConsumerOnce) {
  int told = 0;
  BodyPipe pipe([&told] { ++told; });
  char buffer[16];
  EXPECT_EQ(pipe.Read(buffer, sizeof buffer).state, State::kWait);
  ASSERT_TRUE(pipe.Write("a"));
  EXPECT_EQ(told, 0) << "one byte is not readable yet";
  ASSERT_TRUE(pipe.Write("b"));
  EXPECT_EQ(told, 1);
  ASSERT_TRUE(pipe.Write("c"));
  EXPECT_EQ(told, 1);
  EXPECT_EQ(pipe.Read(buffer, sizeof buffer).size, 2u);
  EXPECT_EQ(pipe.Read(buffer, sizeof buffer).state, State::kWait);
  pipe.Finish();
  EXPECT_EQ(told, 2);
}

TEST(BodyPipeTest, CloseFreesABlockedProducer) {
  BodyPipe pipe([] {});
  auto writing = std::async(std::launch::async, [&pipe] {
    return pipe.Write(std::string(BodyPipe::kCapacityBytes + 1, 'x'));
  });
  pipe.Close();
  EXPECT_FALSE(writing.get());
  EXPECT_FALSE(pipe.Write("more"));
  char buffer[16];
  EXPECT_EQ(pipe.Read(buffer, sizeof buffer).state, State::kClosed);
}

TEST(BodyPipeTest, ManyBytesPassInOrder) {
  BodyPipe pipe([] {});
  std::string sent;
  for (int i = 0; sent.size() < 5 * BodyPipe::kCapacityBytes; ++i) {
    sent += std::to_string(i) + ",";
  }
  std::thread producer([&] {
    for (size_t at = 0, piece = 1; at < sent.size(); at += piece, piece += 97) {
      ASSERT_TRUE(pipe.Write(std::string_view(sent).substr(at, piece)));
    }
    pipe.Finish();
  });
  std::string received;
  char buffer[7001];
  while (true) {
    const auto piece = pipe.Read(buffer, sizeof buffer);
    if (piece.state == State::kEnd) break;
    if (piece.state == State::kWait) std::this_thread::yield();
    received.append(buffer, piece.size);
  }
  producer.join();
  EXPECT_TRUE(received == sent);
}

}  // namespace
}  // namespace nixq
