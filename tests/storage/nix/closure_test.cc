#include "storage/nix/closure.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

StorePath Path(const std::string& name) {
  return *StorePath::FromBaseName("0123456789abcdfghijklmnpqrsvwxyz-" + name);
}

PathInfo Info(const std::string& name, std::vector<std::string> references) {
  PathInfo info{Path(name), {}, 0, {}, {}, {}, false, {}, {}};
  for (const std::string& reference : references) {
    info.references.push_back(Path(reference));
  }
  return info;
}

// A store that has what it is told, and counts the waves of questions.
class FakeStore : public Store {
 public:
  void Add(const std::string& name, std::vector<std::string> references) {
    infos_.emplace(Path(name), Info(name, std::move(references)));
  }
  void Fail(absl::Status status) { failure_ = std::move(status); }
  int waves() const { return waves_; }
  size_t questions() const { return questions_; }

  absl::StatusOr<std::vector<std::optional<PathInfo>>> QueryPathInfos(
      const std::vector<StorePath>& paths) override {
    ++waves_;
    questions_ += paths.size();
    if (!failure_.ok()) return failure_;
    std::vector<std::optional<PathInfo>> found;
    for (const StorePath& path : paths) {
      auto info = infos_.find(path);
      found.push_back(info == infos_.end()
                          ? std::nullopt
                          : std::optional<PathInfo>(info->second));
    }
    return found;
  }
  absl::StatusOr<std::map<std::string, std::optional<StorePath>>>
  QueryDerivationOutputs(const StorePath&) override {
    return absl::UnimplementedError("not asked");
  }
  absl::Status AddSignatures(
      const std::vector<std::pair<StorePath, std::vector<std::string>>>&)
      override {
    return absl::UnimplementedError("not asked");
  }
  absl::Status AddTempRoots(const std::vector<StorePath>&) override {
    return absl::UnimplementedError("not asked");
  }
  absl::StatusOr<std::vector<StorePath>> QueryAllValidPaths() override {
    return absl::UnimplementedError("not asked");
  }

 private:
  std::map<StorePath, PathInfo> infos_;
  absl::Status failure_;
  int waves_ = 0;
  size_t questions_ = 0;
};

std::vector<std::string> Names(const std::vector<PathInfo>& infos) {
  std::vector<std::string> names;
  for (const PathInfo& info : infos) names.emplace_back(info.path.name());
  return names;
}

// Every reference that is among the paths comes before its referrer.
void ExpectOrdered(const std::vector<PathInfo>& infos) {
  std::map<StorePath, size_t> position;
  for (size_t i = 0; i < infos.size(); ++i) position[infos[i].path] = i;
  for (size_t i = 0; i < infos.size(); ++i) {
    for (const StorePath& reference : infos[i].references) {
      auto found = position.find(reference);
      if (found == position.end() || found->second == i) continue;
      EXPECT_LT(found->second, i)
          << reference.name() << " after " << infos[i].path.name();
    }
  }
}

bool Everything(const PathInfo&) { return true; }

TEST(ClosureTest, PutsReferencesFirst) {
  FakeStore store;
  store.Add("top", {"left", "right", "top"});
  store.Add("left", {"bottom"});
  store.Add("right", {"bottom"});
  store.Add("bottom", {});
  store.Add("unrelated", {});
  auto closure = ComputeClosure(store, {Path("top")}, 100, Everything);
  ASSERT_TRUE(closure.ok()) << closure.status();
  EXPECT_THAT(closure->paths, SizeIs(4));
  ExpectOrdered(closure->paths);
  EXPECT_EQ(closure->paths.back().path, Path("top"));
  EXPECT_THAT(closure->missing_roots, IsEmpty());
  // One wave for each level, and each path asked about once.
  EXPECT_EQ(store.waves(), 3);
  EXPECT_EQ(store.questions(), 4u);
}

TEST(ClosureTest, TakesSelfReferencesAndRepeatedRoots) {
  FakeStore store;
  store.Add("self", {"self"});
  store.Add("user", {"self"});
  auto closure = ComputeClosure(
      store, {Path("user"), Path("self"), Path("user")}, 2, Everything);
  ASSERT_TRUE(closure.ok()) << closure.status();
  EXPECT_THAT(Names(closure->paths), ElementsAre("self", "user"));
}

TEST(ClosureTest, IsEmptyForNoRoots) {
  FakeStore store;
  auto closure = ComputeClosure(store, {}, 0, Everything);
  ASSERT_TRUE(closure.ok()) << closure.status();
  EXPECT_THAT(closure->paths, IsEmpty());
  EXPECT_EQ(store.waves(), 0);
}

TEST(ClosureTest, NamesTheRootsThatAreMissing) {
  FakeStore store;
  store.Add("here", {});
  auto closure =
      ComputeClosure(store, {Path("gone"), Path("here")}, 100, Everything);
  ASSERT_TRUE(closure.ok()) << closure.status();
  EXPECT_THAT(closure->missing_roots, ElementsAre(Path("gone")));
  EXPECT_THAT(Names(closure->paths), ElementsAre("here"));
}

TEST(ClosureTest, FailsForThePathWhoseReferenceIsGone) {
  FakeStore store;
  store.Add("top", {"gone"});
  auto closure = ComputeClosure(store, {Path("top")}, 100, Everything);
  EXPECT_TRUE(absl::IsNotFound(closure.status())) << closure.status();
  EXPECT_TRUE(IsPathsFault(closure.status()));
}

TEST(ClosureTest, LeavesOutWhatIsNotDescendedInto) {
  FakeStore store;
  store.Add("top", {"there", "new"});
  store.Add("there", {"below"});
  store.Add("below", {});
  store.Add("new", {});
  auto closure = ComputeClosure(
      store, {Path("top")}, 100,
      [](const PathInfo& info) { return info.path.name() != "there"; });
  ASSERT_TRUE(closure.ok()) << closure.status();
  EXPECT_THAT(Names(closure->paths), ElementsAre("new", "top"));
  EXPECT_EQ(store.questions(), 3u);
}

TEST(ClosureTest, WhatIsBelowTwoIsKeptIfOneIsDescendedInto) {
  FakeStore store;
  store.Add("top", {"there", "new"});
  store.Add("there", {"below"});
  store.Add("new", {"below"});
  store.Add("below", {});
  auto closure = ComputeClosure(
      store, {Path("top")}, 100,
      [](const PathInfo& info) { return info.path.name() != "there"; });
  ASSERT_TRUE(closure.ok()) << closure.status();
  EXPECT_THAT(Names(closure->paths), ElementsAre("below", "new", "top"));
}

TEST(ClosureTest, IsBounded) {
  FakeStore store;
  store.Add("a", {"b"});
  store.Add("b", {"c"});
  store.Add("c", {});
  EXPECT_TRUE(ComputeClosure(store, {Path("a")}, 3, Everything).ok());
  EXPECT_TRUE(absl::IsOutOfRange(
      ComputeClosure(store, {Path("a")}, 2, Everything).status()));
}

TEST(ClosureTest, PassesOnWhatTheStoreSays) {
  FakeStore store;
  store.Fail(absl::UnavailableError("away"));
  EXPECT_TRUE(absl::IsUnavailable(
      ComputeClosure(store, {Path("a")}, 3, Everything).status()));
}

TEST(TopologicallySortedTest, KeepsWhatIsSortedAsItIs) {
  EXPECT_THAT(
      Names(TopologicallySorted({Info("c", {}), Info("a", {"c", "elsewhere"}),
                                 Info("b", {}), Info("d", {"a", "d"})})),
      ElementsAre("c", "a", "b", "d"));
}

TEST(TopologicallySortedTest, MovesOnlyWhatMustWait) {
  EXPECT_THAT(Names(TopologicallySorted({Info("needs-z", {"z"}), Info("b", {}),
                                         Info("z", {}), Info("a", {})})),
              ElementsAre("b", "z", "needs-z", "a"));
}

TEST(TopologicallySortedTest, DropsNothingOfACycleThatCannotBe) {
  EXPECT_THAT(Names(TopologicallySorted(
                  {Info("a", {"b"}), Info("b", {"a"}), Info("c", {})})),
              ElementsAre("c", "a", "b"));
}

TEST(TopologicallySortedTest, SortsDeepChainsAndRandomGraphs) {
  std::vector<PathInfo> chain;
  for (int i = 50'000; i > 0; --i) {
    chain.push_back(
        Info(absl::StrFormat("p%d", i), {absl::StrFormat("p%d", i - 1)}));
  }
  chain = TopologicallySorted(std::move(chain));
  EXPECT_EQ(chain.front().path, Path("p1"));
  EXPECT_EQ(chain.back().path, Path("p50000"));

  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrFormat("seed %d", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 20; ++round) {
    std::vector<PathInfo> infos;
    for (unsigned i = 0; i < 200; ++i) {
      std::vector<std::string> references;
      for (unsigned j = 0; i > 0 && j < random() % 5; ++j) {
        references.push_back(absl::StrFormat("p%d", random() % i));
      }
      infos.push_back(Info(absl::StrFormat("p%d", i), references));
    }
    std::shuffle(infos.begin(), infos.end(), random);
    infos = TopologicallySorted(std::move(infos));
    EXPECT_THAT(infos, SizeIs(200));
    ExpectOrdered(infos);
  }
}

}  // namespace
}  // namespace nixq
