#include "queued/surroundings_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

class SurroundingsCheckTest : public testing::Test {
 protected:
  SurroundingsCheckTest() {
    config_.nix_state_dir = directory_ / "nix";
    config_.real_store_dir = directory_ / "store";
    std::filesystem::create_directories(directory_ / "nix/gcroots/ours");
    std::filesystem::create_directories(directory_ / "elsewhere");
    std::filesystem::create_directories(config_.real_store_dir);
  }

  bool Holds(const std::string& roots_directory) {
    config_.roots_directory = roots_directory;
    return RootsTrouble(config_).empty();
  }

  TemporaryDirectory directory_;
  Config config_;
};

TEST_F(SurroundingsCheckTest, RootsHoldBelowWhatTheCollectorWalks) {
  EXPECT_TRUE(Holds(directory_ / "nix/gcroots/ours"));
  EXPECT_TRUE(Holds(directory_ / "nix/gcroots/ours/"));
  EXPECT_TRUE(Holds(directory_ / "nix/gcroots/not/yet/there"));
  EXPECT_TRUE(Holds(directory_ / "nix/profiles/x"));
  EXPECT_FALSE(Holds(directory_ / "elsewhere"));
  EXPECT_FALSE(Holds(directory_ / "nix/gcroots-not"));
  EXPECT_FALSE(Holds(directory_ / "nix"));
}

TEST_F(SurroundingsCheckTest, SymlinksAreSeenThrough) {
  // The whole of Nix's state may be elsewhere, by one name or the other.
  std::filesystem::create_symlink(directory_ / "nix", directory_ / "alias");
  EXPECT_TRUE(Holds(directory_ / "alias/gcroots/ours"));
  config_.nix_state_dir = directory_ / "alias";
  EXPECT_TRUE(Holds(directory_ / "nix/gcroots/ours"));
  // The collector does not follow this one.
  std::filesystem::create_directory_symlink(directory_ / "elsewhere",
                                            directory_ / "nix/gcroots/link");
  EXPECT_FALSE(Holds(directory_ / "nix/gcroots/link/roots"));
}

TEST_F(SurroundingsCheckTest, TheHookIsOfTheUserWhoOwnsTheStore) {
  if (geteuid() != 0) GTEST_SKIP() << "root alone gives directories away";
  Surroundings ours;
  ours.is_root = true;
  ours.variables = {{"XDG_STATE_HOME", "/home/state"},
                    {"NIX_QUEUED_STATE_DIR", "/ours"}};
  EXPECT_EQ(HookDefaults(config_, ours).state_dir, "/var/lib/nix-queued");
  EXPECT_EQ(HookDefaults(config_, ours).roots_directory,
            config_.nix_state_dir + "/gcroots/arm-cache");
  ASSERT_EQ(chown(config_.real_store_dir.c_str(), 65534, 65534), 0);
  EXPECT_EQ(HookDefaults(config_, ours).state_dir, "/ours");
  ours.variables.erase("NIX_QUEUED_STATE_DIR");
  EXPECT_EQ(HookDefaults(config_, ours).state_dir, "/home/state/nix-queued");
}

}  // namespace
}  // namespace nixq
