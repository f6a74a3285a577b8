#include "storage/base/process.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdlib>

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

TEST(ProcessTest, CoreDumpsAreOff) {
  DisableCoreDumps();
  rlimit limit = {1, 1};
  ASSERT_EQ(getrlimit(RLIMIT_CORE, &limit), 0);
  EXPECT_EQ(limit.rlim_max, 0u);
}

}  // namespace
}  // namespace nixq
