#include <map>
#include <string>
#include <vector>

#include "storage/base/io.h"
#include "storage/queue/queue.h"
#include "storage/queue/spool.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class QueueRootsTest : public QueueFixture {
 protected:
  Settlement Park(const std::string& text = "") {
    Settlement settlement;
    settlement.verb = Settlement::Verb::kPark;
    settlement.error_code = "data_loss";
    settlement.error_text = text;
    return settlement;
  }
};

TEST_F(QueueRootsTest, HoldsFinishWithTheirLastOpenJob) {
  Configure({"nas", "s3"});
  Accept({"hello"});
  ASSERT_OK_AND_ASSIGN(auto finished, queue_->FinishedHolds(0, 10));
  EXPECT_THAT(finished, IsEmpty());
  Settlement done;
  done.job_id = Claim(1, 0).at(0).job_id;
  ASSERT_OK(queue_->Settle({done}));
  ASSERT_OK_AND_ASSIGN(finished, queue_->FinishedHolds(0, 10));
  EXPECT_THAT(finished, IsEmpty());
  Settlement parked = Park();
  parked.job_id = Claim(1, 1).at(0).job_id;
  ASSERT_OK(queue_->Settle({parked}));
  ASSERT_OK_AND_ASSIGN(finished, queue_->FinishedHolds(0, 10));
  EXPECT_THAT(finished, IsEmpty());  // parked is open
  JobSelection s3;
  s3.target = "s3";
  ASSERT_OK_AND_ASSIGN(auto forgotten, queue_->Forget(s3));
  EXPECT_EQ(forgotten.jobs, 1);
  ASSERT_OK_AND_ASSIGN(finished, queue_->FinishedHolds(0, 10));
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0].path, StorePathOf("hello"));
  EXPECT_EQ(finished[0].system, "x86_64-linux");
  EXPECT_EQ(finished[0].root, RootState::kHold);
  ASSERT_OK(queue_->SetRoots({finished[0].id}, RootState::kPin));
  ASSERT_OK_AND_ASSIGN(finished, queue_->FinishedHolds(0, 10));
  EXPECT_THAT(finished, IsEmpty());
}

TEST_F(QueueRootsTest, WithoutTargetsAHoldIsFinishedAtOnce) {
  Configure({});
  Accept({"hello"});
  ASSERT_OK_AND_ASSIGN(auto finished, queue_->FinishedHolds(0, 10));
  EXPECT_EQ(finished.size(), 1u);
}

TEST_F(QueueRootsTest, HoldsArePagedById) {
  Accept({"a", "b", "c"});
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("b"), RootState::kPin));
  ASSERT_OK_AND_ASSIGN(auto page, queue_->Holds(0, 1));
  ASSERT_EQ(page.size(), 1u);
  EXPECT_EQ(page[0].path, StorePathOf("a"));
  ASSERT_OK_AND_ASSIGN(page, queue_->Holds(page[0].id, 10));
  ASSERT_EQ(page.size(), 1u);
  EXPECT_EQ(page[0].path, StorePathOf("c"));
}

TEST_F(QueueRootsTest, RootsAreSetInOneTransaction) {
  Accept({"a", "b", "c"});
  ASSERT_OK_AND_ASSIGN(auto holds, queue_->Holds(0, 10));
  ASSERT_EQ(holds.size(), 3u);
  const std::vector<int64_t> ids = {holds[0].id, holds[2].id};
  Execute(
      "CREATE TRIGGER refuse BEFORE UPDATE ON paths WHEN NEW.name = 'c' "
      "BEGIN SELECT RAISE(ABORT, 'not that one'); END");
  EXPECT_FALSE(queue_->SetRoots(ids, RootState::kNone).ok());
  ASSERT_OK_AND_ASSIGN(holds, queue_->Holds(0, 10));
  EXPECT_EQ(holds.size(), 3u);
  Execute("DROP TRIGGER refuse");
  ASSERT_OK(queue_->SetRoots(ids, RootState::kNone));
  ASSERT_OK_AND_ASSIGN(holds, queue_->Holds(0, 10));
  ASSERT_EQ(holds.size(), 1u);
  EXPECT_EQ(holds[0].path, StorePathOf("b"));
  EXPECT_OK(queue_->SetRoots({}, RootState::kPin));
}

TEST_F(QueueRootsTest, RootsAreNeededForWhatIsNotYetTakenIn) {
  InboxEntry floating = Output("floating-1.drv");
  floating.kind = InboxKind::kDerivation;
  InboxEntry spooled_floating = Output("spooled-float.drv");
  spooled_floating.kind = InboxKind::kDerivation;
  {
    auto writer = InboxWriter::Open(Options().state_dir, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({Output("inboxed"), floating}));
  }
  ASSERT_OK(
      WriteSpool(Options().state_dir, {Output("spooled"), spooled_floating}));
  ASSERT_OK(queue_->Accept({}, {Output("pending.drv")}, {}));
  const std::map<std::string, bool> kCases = {
      {"inboxed", true},        {"spooled", true},
      {"floating-1.drv", true}, {"floating-1", true},
      {"floating-1-dev", true}, {"floating-12", false},
      {"floating", false},      {"spooled-float-a-b", true},
      {"pending", true},        {"pending-lib", true},
      {"other", false},         {"lib-pending", false}};
  for (const auto& [name, needed] : kCases) {
    ASSERT_OK_AND_ASSIGN(auto needs, queue_->RootNeeds({StorePathOf(name)}));
    EXPECT_EQ(needs.at(0).not_taken_in, needed) << name;
    EXPECT_EQ(needs.at(0).open_jobs, 0);
  }
}

TEST_F(QueueRootsTest, RootNeedsAreUnknownWithASpoolThatCannotBeRead) {
  ASSERT_OK(WriteSpool(Options().state_dir, {Output("spooled")}));
  const std::string bad = Options().state_dir + "/spool/1-1-1.entries";
  ASSERT_OK(WriteFileAtomically(bad, "cut sh", 0600));
  absl::Status status = queue_->RootNeeds({StorePathOf("x")}).status();
  // Not as if the queue were locked: this does not pass by itself.
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(bad));
}

TEST_F(QueueRootsTest, OpenForRootsTakesWhatOnlyHooksHaveWritten) {
  QueueOptions options = Options();
  options.state_dir = dir_ / "hooks-only";
  {
    auto writer = InboxWriter::Open(options.state_dir, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({Output("inboxed")}));
  }
  for (bool read_only : {false, true}) {
    ASSERT_OK_AND_ASSIGN(Queue queue, Queue::OpenForRoots(options, read_only));
    ASSERT_OK_AND_ASSIGN(auto needs, queue.RootNeeds({StorePathOf("inboxed"),
                                                      StorePathOf("old")}));
    EXPECT_TRUE(needs.at(0).not_taken_in);
    EXPECT_FALSE(needs.at(1).not_taken_in);
    EXPECT_OK(queue.SetRootByPath(StorePathOf("old"), RootState::kNone));
    ASSERT_OK_AND_ASSIGN(auto pins, queue.Pins(0, 10));
    EXPECT_THAT(pins, IsEmpty());
  }
  options.state_dir = dir_ / "nowhere";
  EXPECT_TRUE(absl::IsNotFound(Queue::OpenForRoots(options, false).status()));
  Execute("PRAGMA user_version = 99");
  EXPECT_TRUE(absl::IsFailedPrecondition(
      Queue::OpenForRoots(Options(), true).status()));
}

TEST_F(QueueRootsTest, AHoldIsNeverWeakenedByAccepting) {
  Accept({"hello"});
  for (RootState root : {RootState::kNone, RootState::kPin}) {
    NewPath path = Path("hello");
    path.root = root;
    ASSERT_OK(queue_->Accept({path}, {}, {}));
    ASSERT_OK_AND_ASSIGN(auto holds, queue_->Holds(0, 10));
    EXPECT_EQ(holds.size(), 1u);
  }
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("hello"), RootState::kPin));
  Accept({"hello"});
  ASSERT_OK_AND_ASSIGN(auto holds, queue_->Holds(0, 10));
  EXPECT_EQ(holds.size(), 1u);
}

}  // namespace
}  // namespace nixq
