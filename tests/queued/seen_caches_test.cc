#include "queued/seen_caches.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

class SeenCachesTest : public ::testing::Test {
 protected:
  SeenCachesTest() {
    std::filesystem::create_directories(state_);
    std::filesystem::create_directories(cache_);
  }
  void MakeCache() { std::ofstream(cache_ + "/nix-cache-info") << "x"; }

  TemporaryDirectory directory_;
  const std::string state_ = directory_ / "state";
  const std::string cache_ = directory_ / "cache";
};

TEST_F(SeenCachesTest, WhatWasNeverThereMayBeBegun) {
  EXPECT_TRUE(CheckCacheSeen(state_, cache_).ok());
  EXPECT_TRUE(CheckCacheSeen(state_, cache_ + "/none").ok());
  EXPECT_TRUE(CheckCacheSeen("/nonexistent", cache_).ok());
}

TEST_F(SeenCachesTest, WhatWasThereAndIsNotIsUnavailable) {
  MakeCache();
  NoteCacheSeen(state_, cache_);
  NoteCacheSeen(state_, cache_);
  EXPECT_TRUE(CheckCacheSeen(state_, cache_).ok());
  EXPECT_TRUE(CheckCacheSeen(state_, cache_ + "2").ok());
  std::filesystem::remove_all(cache_);
  EXPECT_TRUE(absl::IsUnavailable(CheckCacheSeen(state_, cache_)));
  std::filesystem::create_directory(cache_);
  const absl::Status empty = CheckCacheSeen(state_, cache_);
  EXPECT_TRUE(absl::IsUnavailable(empty)) << empty;
  EXPECT_THAT(std::string(empty.message()), ::testing::HasSubstr("mounted"));
  MakeCache();
  EXPECT_TRUE(CheckCacheSeen(state_, cache_).ok());
}

TEST_F(SeenCachesTest, ItIsForgottenAsTheMessageSays) {
  MakeCache();
  NoteCacheSeen(state_, cache_);
  std::filesystem::remove_all(cache_);
  const std::string message(CheckCacheSeen(state_, cache_).message());
  const size_t file = message.find(state_);
  ASSERT_NE(file, std::string::npos) << message;
  std::filesystem::remove(message.substr(file, message.find(' ', file) - file));
  EXPECT_TRUE(CheckCacheSeen(state_, cache_).ok());
}

}  // namespace
}  // namespace nixq
