#include "queued/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/queued/fakes.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

ClaimedJob Job(const std::string& name) {
  ClaimedJob job;
  job.job_id = static_cast<int64_t>(std::hash<std::string>()(name) >> 1);
  job.path = TestStoreDir().Print(TestPath(name));
  return job;
}

class UploadGraphTest : public testing::Test {
 protected:
  void Add(const std::string& name, uint64_t size,
           const std::vector<std::string>& references = {}) {
    EXPECT_TRUE(graph_.Add(Job(name), TestInfo(name, size, references)));
  }
  std::string NextNar(std::optional<uint64_t> at_most = std::nullopt) {
    std::optional<StorePath> path = graph_.NextNar(at_most, absl::UnixEpoch());
    return path.has_value() ? std::string(path->name()) : "";
  }
  std::string NextShow() {
    std::optional<StorePath> path = graph_.NextShow();
    return path.has_value() ? std::string(path->name()) : "";
  }
  void Sent(const std::string& name) {
    graph_.Sent(TestPath(name), NarInfo{.info = TestInfo(name, 1),
                                        .url = "",
                                        .compression = "",
                                        .file_hash = std::nullopt});
  }
  static std::vector<std::string> Names(
      const std::vector<UploadGraph::Node>& nodes) {
    std::vector<std::string> names;
    for (const auto& node : nodes) names.emplace_back(node.info.path.name());
    return names;
  }

  UploadGraph graph_;
};

TEST_F(UploadGraphTest, SendsTheLargestFirstAndShowsReferencesFirst) {
  Add("top", 30, {"middle", "top"});
  Add("middle", 10, {"bottom"});
  Add("bottom", 20);
  EXPECT_EQ(NextNar(), "top");
  EXPECT_EQ(NextNar(), "bottom");
  EXPECT_EQ(NextNar(), "middle");
  EXPECT_EQ(NextNar(), "");
  Sent("top");
  Sent("middle");
  EXPECT_EQ(NextShow(), "");
  Sent("bottom");
  EXPECT_EQ(NextShow(), "bottom");
  EXPECT_EQ(NextShow(), "");
  graph_.Shown(TestPath("bottom"));
  EXPECT_EQ(NextShow(), "middle");
  graph_.Shown(TestPath("middle"));
  EXPECT_EQ(NextShow(), "top");
  graph_.Shown(TestPath("top"));
  EXPECT_EQ(graph_.size(), 0u);
}

TEST_F(UploadGraphTest, AReferenceThatComesLaterIsWaitedFor) {
  Add("referrer", 1, {"late"});
  EXPECT_EQ(NextNar(), "referrer");
  Sent("referrer");
  Add("late", 1);
  EXPECT_EQ(NextShow(), "");
  EXPECT_EQ(NextNar(), "late");
  Sent("late");
  EXPECT_EQ(NextShow(), "late");
  graph_.Shown(TestPath("late"));
  EXPECT_EQ(NextShow(), "referrer");
}

TEST_F(UploadGraphTest, OnlySmallOnesWhenAskedForSmallOnes) {
  Add("large", 1000);
  Add("small", 10);
  EXPECT_EQ(NextNar(100), "small");
  EXPECT_EQ(NextNar(100), "");
  EXPECT_EQ(NextNar(), "large");
}

TEST_F(UploadGraphTest, FailingTakesWhatWaitsAlong) {
  Add("top", 1, {"middle"});
  Add("middle", 1, {"bottom"});
  Add("bottom", 1);
  Add("other", 5);
  const std::vector<UploadGraph::Node> failed = graph_.Fail(TestPath("bottom"));
  EXPECT_THAT(Names(failed), ElementsAre("bottom", "middle", "top"));
  EXPECT_EQ(graph_.size(), 1u);
  EXPECT_EQ(NextNar(), "other");
}

TEST_F(UploadGraphTest, WhatIsBeingSentBecomesAnOrphanAndIsNeverShown) {
  Add("referrer", 9, {"reference"});
  Add("reference", 1);
  EXPECT_EQ(NextNar(), "referrer");
  EXPECT_THAT(Names(graph_.Fail(TestPath("reference"))),
              ElementsAre("reference"));
  ASSERT_NE(graph_.Find(TestPath("referrer")), nullptr);
  EXPECT_TRUE(graph_.Find(TestPath("referrer"))->orphaned);
  Sent("referrer");
  EXPECT_EQ(NextShow(), "");
  EXPECT_THAT(Names(graph_.Fail(TestPath("referrer"))),
              ElementsAre("referrer"));
}

TEST_F(UploadGraphTest, DropLeavesWhatIsUnderWay) {
  Add("sending", 9);
  Add("waiting", 1, {"sending"});
  Add("sent", 5);
  EXPECT_EQ(NextNar(), "sending");
  EXPECT_EQ(NextNar(), "sent");
  Sent("sent");
  EXPECT_THAT(Names(graph_.Drop()), UnorderedElementsAre("waiting", "sent"));
  EXPECT_EQ(graph_.size(), 1u);
  Sent("sending");
  EXPECT_EQ(NextShow(), "sending");
}

TEST_F(UploadGraphTest, APathIsThereOnce) {
  Add("once", 1);
  EXPECT_FALSE(graph_.Add(Job("once"), TestInfo("once", 1)));
  EXPECT_EQ(graph_.size(), 1u);
}

}  // namespace
}  // namespace nixq
