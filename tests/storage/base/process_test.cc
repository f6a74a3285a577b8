#include "storage/base/process.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

TEST(ProcessTest, ALockIsForOneUntilItGoes) {
  TemporaryDirectory directory;
  const std::string file = directory.path() + "/lock";
  absl::StatusOr<UniqueFd> first = LockFile(file);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsFailedPrecondition(LockFile(file).status()));
  first->Reset();
  EXPECT_TRUE(LockFile(file).ok());
}

TEST(ProcessTest, ALockIsNotTakenThroughASymlink) {
  TemporaryDirectory directory;
  const std::string link = directory.path() + "/link";
  std::filesystem::create_symlink(directory.path() + "/elsewhere", link);
  EXPECT_FALSE(LockFile(link).ok());
  EXPECT_FALSE(std::filesystem::exists(directory.path() + "/elsewhere"));
}

TEST(ProcessTest, AnEnvironmentVariableIsTakenOnce) {
  setenv("NIXQ_TEST_VARIABLE", "a value", 1);
  EXPECT_EQ(TakeEnvironmentVariable("NIXQ_TEST_VARIABLE"), "a value");
  EXPECT_EQ(getenv("NIXQ_TEST_VARIABLE"), nullptr);
  EXPECT_EQ(TakeEnvironmentVariable("NIXQ_TEST_VARIABLE"), "");
}

TEST(ProcessTest, GroupsAreFoundByName) {
  absl::StatusOr<gid_t> root = GroupNumber(
#ifdef __APPLE__
      "wheel"
#else
      "root"
#endif
  );
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(*root, 0u);
  EXPECT_TRUE(absl::IsNotFound(GroupNumber("no such group").status()));
}

TEST(ProcessTest, UsersHaveNames) {
  EXPECT_EQ(*UserName(0), "root");
  EXPECT_TRUE(absl::IsNotFound(UserName(4'000'000'000).status()));
}

TEST(ProcessTest, WhatAnotherUserMay) {
  if (geteuid() != 0) GTEST_SKIP() << "root alone becomes somebody else";
  constexpr uid_t kNobody = 65534;
  TemporaryDirectory directory;
  std::filesystem::permissions(directory.path(), std::filesystem::perms(0755));
  const std::string file = directory.path() + "/file";
  std::ofstream(file) << "x";
  std::filesystem::permissions(file, std::filesystem::perms(0644));
  EXPECT_TRUE(*UserMay(kNobody, file, R_OK));
  EXPECT_FALSE(*UserMay(kNobody, file, W_OK));
  EXPECT_TRUE(*UserMay(0, file, W_OK));
  std::filesystem::permissions(directory.path(), std::filesystem::perms(0700));
  EXPECT_FALSE(*UserMay(kNobody, file, R_OK));
}

TEST(ProcessTest, CoreDumpsAreOff) {
  DisableCoreDumps();
  rlimit limit = {1, 1};
  ASSERT_EQ(getrlimit(RLIMIT_CORE, &limit), 0);
  EXPECT_EQ(limit.rlim_max, 0u);
}

}  // namespace
}  // namespace nixq
