#include "storage/cache/nix_log.h"

#include <random>
#include <string>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string Start(uint64_t id, int type) {
  return absl::StrFormat(
      R"(@nix {"action":"start","id":%d,"level":3,"text":"x","type":%d})", id,
      type);
}
std::string Progress(uint64_t id, uint64_t done) {
  return absl::StrFormat(
      R"(@nix {"action":"result","fields":[%d,1000,0,0],"id":%d,"type":105})",
      done, id);
}
std::string Stop(uint64_t id) {
  return absl::StrFormat(R"(@nix {"action":"stop","id":%d})", id);
}

TEST(NixLog, AddsUpTheBytesOfCopies) {
  NixLog log(1 << 20);
  EXPECT_FALSE(log.Add(Start(18446744073709551615u, 100)));
  EXPECT_FALSE(log.Add(Start(2, 100)));
  EXPECT_FALSE(log.Add(Start(3, 103)));
  EXPECT_TRUE(log.Add(Progress(18446744073709551615u, 300)));
  EXPECT_FALSE(log.Add(Progress(18446744073709551615u, 300)));
  EXPECT_TRUE(log.Add(Progress(2, 40)));
  EXPECT_FALSE(log.Add(Progress(3, 7))) << "counts paths, not bytes";
  EXPECT_FALSE(log.Add(Progress(4, 7))) << "never started";
  EXPECT_EQ(log.bytes_sent(), 340u);
  log.Add(Stop(2));
  EXPECT_FALSE(log.Add(Progress(2, 90)));
  EXPECT_EQ(log.bytes_sent(), 340u);
  EXPECT_THAT(log.Words(), IsEmpty());
}

// Nix 2.8 says nothing while it sends one path.
TEST(NixLog, CountsTheKeysOfSshInstead) {
  NixLog log(1000);
  EXPECT_TRUE(log.Add("debug1: SSH2_MSG_NEWKEYS sent"));
  EXPECT_EQ(log.bytes_sent(), 0u);
  EXPECT_FALSE(log.Add("debug1: rekeying in progress"));
  EXPECT_TRUE(log.Add("debug1: SSH2_MSG_NEWKEYS sent"));
  EXPECT_TRUE(log.Add("debug1: SSH2_MSG_NEWKEYS sent\r"));
  EXPECT_EQ(log.bytes_sent(), 2000u);
  EXPECT_THAT(log.Words(), IsEmpty());
}

TEST(NixLog, KeepsErrorsAndForeignLines) {
  NixLog log(1);
  log.Add("ssh: connect to host h: Connection refused\r");
  log.Add(R"(@nix {"action":"msg","level":3,"msg":"copying 1 path"})");
  log.Add(
      "@nix {\"action\":\"msg\",\"level\":0,\"msg\":"
      "\"error: hash mismatch;\\n  specified: a\\n  got: b\"}");
  log.Add("debug1: noise");
  log.Add("");
  EXPECT_THAT(log.Words(),
              ElementsAre("ssh: connect to host h: Connection refused",
                          "error: hash mismatch; specified: a got: b"));
}

TEST(NixLog, KeepsTheBeginningAndTheEndOfMuchTalk) {
  NixLog log(1);
  for (int i = 0; i < 100000; ++i) log.Add(absl::StrFormat("line %d", i));
  const auto words = log.Words();
  ASSERT_EQ(words.size(), 200u);
  EXPECT_EQ(words.front(), "line 0");
  EXPECT_EQ(words.back(), "line 99999");
}

TEST(NixLog, AnythingMayComeAfterNix) {
  NixLog log(1);
  for (const char* line :
       {"@nix ", "@nix {", "@nix []", "@nix 1", "@nix null", "@nix \"x\"",
        R"(@nix {"action":1,"id":"x"})", R"(@nix {"action":"result","id":1})",
        R"(@nix {"action":"start","id":1,"type":"100"})",
        R"(@nix {"action":"msg","level":"0","msg":5})",
        R"(@nix {"action":"start","id":-1,"type":100})",
        R"(@nix {"action":"result","id":-1,"type":105})",
        R"(@nix {"action":"result","id":-1,"type":105,"fields":[]})",
        R"(@nix {"action":"result","id":-1,"type":105,"fields":["1"]})",
        R"(@nix {"action":"result","id":-1,"type":105,"fields":[-1]})",
        R"(@nix {"action":"result","id":-1,"type":105,"fields":[1e300]})"}) {
    EXPECT_FALSE(log.Add(line)) << line;
  }
  log.Add("@nix " + std::string(60000, '['));
  EXPECT_EQ(log.bytes_sent(), 0u);

  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrFormat("seed %d", seed));
  std::mt19937 random(seed);
  std::string line = Progress(7, 5) + Start(7, 100);
  for (int i = 0; i < 20000; ++i) {
    std::string damaged = line.substr(0, random() % line.size());
    if (!damaged.empty()) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    log.Add(damaged);
  }
}

}  // namespace
}  // namespace nixq
