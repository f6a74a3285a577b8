#include "queued/signer.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/text.h"
#include "tests/queued/fakes.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// RFC 8032, 7.1: seed and public key of the first two vectors.
constexpr std::string_view kKeys[] = {
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"};

SecretKey Key(size_t number, const std::string& name) {
  std::string bytes;
  for (size_t i = 0; i < kKeys[number].size(); i += 2) {
    bytes += static_cast<char>(
        std::stoi(std::string(kKeys[number].substr(i, 2)), nullptr, 16));
  }
  return *SecretKey::Parse(name + ":" + Base64Encode(bytes));
}

class NoLog : public Log {
 public:
  void Write(LogLevel, std::string_view,
             std::initializer_list<LogField>) override {}
};

class SignaturesTest : public ::testing::Test {
 protected:
  std::string SignatureBy(const SecretKey& key) {
    return key.Sign(Fingerprint(TestStoreDir(), info_));
  }
  void Sign(SecretKey key) {
    std::vector<SecretKey> keys;
    keys.push_back(std::move(key));
    Signer signer(std::move(keys), TestStoreDir(), store_, log_);
    store_.Add(info_);
    const absl::Status status = signer.Sign({&info_});
    EXPECT_TRUE(status.ok()) << status;
  }
  std::vector<std::string>& InStore() {
    return store_.paths.at(info_.path).signatures;
  }

  NoLog log_;
  FakeStore store_;
  PathInfo info_ = TestInfo("x", 100);
};

TEST_F(SignaturesTest, AddsWhatIsMissingHereAndInTheStore) {
  info_.signatures = {"other-1:abc"};
  Sign(Key(0, "key-1"));
  const std::string ours = SignatureBy(Key(0, "key-1"));
  EXPECT_THAT(info_.signatures, UnorderedElementsAre("other-1:abc", ours));
  EXPECT_THAT(InStore(), UnorderedElementsAre("other-1:abc", ours));
}

TEST_F(SignaturesTest, WhatIsSignedAlreadyIsNotSignedAgain) {
  const std::string ours = SignatureBy(Key(0, "key-1"));
  info_.signatures = {ours};
  store_.sign_status = absl::InternalError("asked");
  Sign(Key(0, "key-1"));
  EXPECT_THAT(info_.signatures, ElementsAre(ours));
}

// A key was made anew under its old name: what the old one signed is nothing
// to those who trust the new one.
TEST_F(SignaturesTest, AnOlderKeysSignatureIsReplaced) {
  info_.signatures = {SignatureBy(Key(1, "key-1")), "key-10:abc"};
  Sign(Key(0, "key-1"));
  const std::string ours = SignatureBy(Key(0, "key-1"));
  EXPECT_THAT(info_.signatures, UnorderedElementsAre("key-10:abc", ours));
  EXPECT_THAT(InStore(), ::testing::Contains(ours));
}

TEST_F(SignaturesTest, TheOldOneStaysOutWhenTheStoreHasBoth) {
  const std::string ours = SignatureBy(Key(0, "key-1"));
  info_.signatures = {ours, SignatureBy(Key(1, "key-1"))};
  Sign(Key(0, "key-1"));
  EXPECT_THAT(info_.signatures, ElementsAre(ours));
}

TEST_F(SignaturesTest, WithoutKeysNothingChanges) {
  Signer signer({}, TestStoreDir(), store_, log_);
  EXPECT_TRUE(signer.Sign({&info_}).ok());
  EXPECT_THAT(info_.signatures, IsEmpty());
}

}  // namespace
}  // namespace nixq
