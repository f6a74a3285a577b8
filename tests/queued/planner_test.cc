#include "queued/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "storage/nix/closure.h"
#include "tests/queued/fakes.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A cache that remembers what it was asked.
class AskedCache {
 public:
  explicit AskedCache(const std::vector<std::string>& names) {
    for (const std::string& name : names) shown_.insert(TestPath(name));
  }
  std::vector<std::string> Missing(const std::vector<PathInfo>& closure,
                                   const std::vector<std::string>& roots) {
    std::vector<StorePath> paths;
    for (const std::string& root : roots) paths.push_back(TestPath(root));
    auto missing = FindMissing(TopologicallySorted(closure), paths,
                               [&](const std::vector<StorePath>& asked)
                                   -> absl::StatusOr<std::vector<bool>> {
                                 ++rounds;
                                 std::vector<bool> answer;
                                 for (const StorePath& path : asked) {
                                   EXPECT_TRUE(asked_.insert(path).second)
                                       << "asked twice";
                                   answer.push_back(shown_.contains(path));
                                 }
                                 return answer;
                               });
    EXPECT_TRUE(missing.ok());
    std::vector<std::string> names;
    for (const PathInfo& info : *missing) names.emplace_back(info.path.name());
    return names;
  }
  size_t asked() const { return asked_.size(); }
  int rounds = 0;

 private:
  std::set<StorePath> shown_;
  std::set<StorePath> asked_;
};

TEST(FindMissingTest, AsksOnlyForTheRootWhenItIsThere) {
  AskedCache cache({"top", "bottom"});
  EXPECT_THAT(
      cache.Missing({TestInfo("top", 1, {"bottom"}), TestInfo("bottom", 1)},
                    {"top"}),
      IsEmpty());
  EXPECT_EQ(cache.asked(), 1u);
}

TEST(FindMissingTest, FindsReferencesFirst) {
  AskedCache cache({"libc"});
  EXPECT_THAT(cache.Missing({TestInfo("app", 1, {"lib", "libc", "app"}),
                             TestInfo("lib", 1, {"libc"}), TestInfo("libc", 1)},
                            {"app"}),
              ElementsAre("lib", "app"));
}

TEST(FindMissingTest, ALongChainTakesFewRounds) {
  std::vector<PathInfo> chain;
  for (int i = 0; i < 1000; ++i) {
    std::vector<std::string> references;
    if (i > 0) references.push_back("p" + std::to_string(i - 1));
    chain.push_back(TestInfo("p" + std::to_string(i), 1, references));
  }
  AskedCache cache({});
  EXPECT_EQ(cache.Missing(chain, {"p999"}).size(), 1000u);
  EXPECT_LE(cache.rounds, 12);
}

TEST(FindMissingTest, APresentPathDoesNotVouchForARootThatIsMissing) {
  // The cache has lost "middle" and what only it leads to.
  AskedCache cache({"top"});
  EXPECT_THAT(
      cache.Missing({TestInfo("top", 1, {"middle"}),
                     TestInfo("middle", 1, {"bottom"}), TestInfo("bottom", 1)},
                    {"top", "middle"}),
      ElementsAre("bottom", "middle"));
}

TEST(FindMissingTest, AnErrorEndsTheSearch) {
  auto missing = FindMissing(
      {TestInfo("a", 1)}, {TestPath("a")},
      [](const std::vector<StorePath>&) -> absl::StatusOr<std::vector<bool>> {
        return absl::UnavailableError("down");
      });
  EXPECT_TRUE(absl::IsUnavailable(missing.status()));
}

}  // namespace
}  // namespace nixq
