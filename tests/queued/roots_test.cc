// Intake and pruning: what the roots directory and the queue do to each
// other.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "queued/intake.h"
#include "queued/prune.h"
#include "queued/signer.h"
#include "storage/base/io.h"
#include "storage/queue/spool.h"
#include "tests/queued/fakes.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class RootsTest : public testing::Test {
 protected:
  RootsTest() {
    std::filesystem::create_directory(store_);
    config_.state_dir = directory_.path() + "/state";
    config_.store_dir = store_;
    config_.real_store_dir = store_;
    QueueOptions options;
    options.state_dir = config_.state_dir;
    options.clock = &clock_;
    queue_.emplace(*Queue::Open(options));
    EXPECT_TRUE(queue_->SyncTargets({{"nas", "file:///x"}}).ok());
    roots_.emplace(*GcRoots::Open(roots_directory_, store_dir_, true));
    intake_.emplace(config_, store_dir_, *queue_, *roots_, NullLog(), clock_);
  }

  // A path that is there.
  StorePath MakePath(const std::string& name) {
    StorePath path = TestPath(name);
    std::ofstream(store_dir_.Print(path)) << name;
    return path;
  }
  // Its root was made so long before the clock's now.
  void Age(const StorePath& path, absl::Duration age) {
    const timespec time = absl::ToTimespec(clock_.Now() - age);
    const timespec times[2] = {time, time};
    ASSERT_EQ(
        utimensat(AT_FDCWD, (roots_directory_ + "/" + path.base_name()).c_str(),
                  times, AT_SYMLINK_NOFOLLOW),
        0);
  }
  void PutIntoInbox(const std::vector<InboxEntry>& entries) {
    auto inbox = InboxWriter::Open(config_.state_dir, absl::Seconds(5));
    ASSERT_TRUE(inbox.ok()) << inbox.status();
    ASSERT_TRUE(inbox->Put(entries).ok());
  }
  InboxEntry Entry(const StorePath& path) {
    InboxEntry entry;
    entry.path = store_dir_.Print(path);
    return entry;
  }
  std::vector<ClaimedJob> ClaimAll() {
    return *queue_->Claim(1, 100, clock_.Now() + absl::Minutes(1));
  }
  void Finish(const std::vector<ClaimedJob>& jobs) {
    std::vector<Settlement> settlements;
    for (const ClaimedJob& job : jobs) {
      settlements.emplace_back().job_id = job.job_id;
    }
    ASSERT_TRUE(queue_->Settle(settlements).ok());
  }
  absl::StatusOr<size_t> EndHolds(const PinPolicy& policy) {
    return EndHolds(policy, holds_after_);
  }
  absl::StatusOr<size_t> EndHolds(const PinPolicy& policy, int64_t& after) {
    return EndFinishedHolds(*queue_, *roots_, store_dir_, policy, clock_.Now(),
                            after);
  }
  // Held paths of these names, that no target wants any more.
  std::vector<StorePath> MakeFinished(const std::string& prefix, int count) {
    std::vector<StorePath> paths;
    std::vector<NewPath> rows(count);
    for (int i = 0; i < count; ++i) {
      paths.push_back(MakePath(prefix + std::to_string(i)));
      rows[i].path = store_dir_.Print(paths.back());
      EXPECT_TRUE(roots_->Hold(paths.back()).ok());
    }
    EXPECT_TRUE(queue_->SyncTargets({}).ok());
    EXPECT_TRUE(queue_->Accept(rows, {}, {}).ok());
    return paths;
  }
  static size_t CountIn(const std::string& directory) {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(directory), {}));
  }
  bool HasRoot(const StorePath& path) { return roots_->Find(path).ok(); }

  TemporaryDirectory directory_;
  const std::string store_ = directory_.path() + "/store";
  const std::string roots_directory_ = directory_.path() + "/roots";
  const StoreDir store_dir_ = *StoreDir::Parse(store_);
  FakeClock clock_;
  Config config_;
  std::optional<Queue> queue_;
  std::optional<GcRoots> roots_;
  std::optional<Intake> intake_;
  int64_t holds_after_ = 0;
};

TEST_F(RootsTest, InboxBecomesJobsAndBadEntriesDoNotStopTheOthers) {
  const StorePath good = MakePath("good");
  InboxEntry bad;
  bad.path = "/etc/passwd";
  PutIntoInbox({bad, Entry(good)});
  EXPECT_EQ(*intake_->TakeInbox(), 2u);
  EXPECT_THAT(ClaimAll(), SizeIs(1));
  EXPECT_TRUE(HasRoot(good));
  EXPECT_EQ(*intake_->TakeInbox(), 0u);
}

TEST_F(RootsTest, ALargeInboxIsTakenInByPieces) {
  std::vector<InboxEntry> entries;
  for (int i = 0; i < 2500; ++i) {
    entries.push_back(Entry(TestPath("p" + std::to_string(i))));
  }
  PutIntoInbox(entries);
  int asked = 0;
  const auto one_piece = [&asked] {
    ++asked;
    return false;
  };
  const size_t piece = *intake_->TakeInbox(one_piece);
  EXPECT_LT(piece, 2500u);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(*intake_->TakeInbox(), 2500u - piece);
  // At the end there is nothing to ask.
  EXPECT_EQ(*intake_->TakeInbox(one_piece), 0u);
  EXPECT_EQ(asked, 1);
}

TEST_F(RootsTest, WhatNixDidNotNameIsLeftOutIfSoConfigured) {
  config_.outputs_named_only = true;
  const StorePath named = MakePath("named");
  const StorePath unnamed = MakePath("unnamed");
  ASSERT_TRUE(roots_->Hold(unnamed).ok());
  InboxEntry entry = Entry(unnamed);
  entry.named = false;
  PutIntoInbox({Entry(named), entry});
  EXPECT_EQ(*intake_->TakeInbox(), 2u);
  const std::vector<ClaimedJob> jobs = ClaimAll();
  ASSERT_THAT(jobs, SizeIs(1));
  EXPECT_EQ(jobs[0].path, store_dir_.Print(named));
  EXPECT_FALSE(HasRoot(unnamed));
}

TEST_F(RootsTest, SpoolIsReadOnceAndRemoved) {
  const StorePath path = MakePath("spooled");
  ASSERT_TRUE(WriteSpool(config_.state_dir, {Entry(path)}).ok());
  EXPECT_EQ(*intake_->TakeSpool(), 1u);
  EXPECT_EQ(*intake_->TakeSpool(), 0u);
  EXPECT_THAT(ClaimAll(), SizeIs(1));
}

TEST_F(RootsTest, UnknownRootsAreAdoptedOnce) {
  const StorePath path = MakePath("old-pin");
  ASSERT_TRUE(roots_->Hold(path).ok());
  EXPECT_EQ(*intake_->AdoptRoots(), 1u);
  EXPECT_EQ(*intake_->AdoptRoots(), 0u);
  EXPECT_THAT(ClaimAll(), SizeIs(1));
  config_.roots_adopt = false;
  ASSERT_TRUE(roots_->Hold(MakePath("another")).ok());
  EXPECT_EQ(*intake_->AdoptRoots(), 0u);
}

TEST_F(RootsTest, ALostRootOfAQueuedPathIsMadeAgain) {
  const StorePath path = MakePath("held");
  PutIntoInbox({Entry(path)});
  ASSERT_TRUE(intake_->TakeInbox().ok());
  ASSERT_TRUE(roots_->Remove(path).ok());
  ASSERT_TRUE(intake_->RemakeHolds().ok());
  EXPECT_TRUE(HasRoot(path));
}

TEST_F(RootsTest, TheLastJobTurnsAHoldIntoAPinOrEndsIt) {
  const StorePath arm = MakePath("arm");
  const StorePath intel = MakePath("intel");
  for (const auto& [path, system] :
       {std::pair{arm, "aarch64-linux"}, std::pair{intel, "x86_64-linux"}}) {
    NewPath fresh;
    fresh.path = store_dir_.Print(path);
    fresh.system = system;
    ASSERT_TRUE(queue_->Accept({fresh}, {}, {}).ok());
    ASSERT_TRUE(roots_->Hold(path).ok());
    Age(path, absl::Hours(1));
  }
  PinPolicy policy = {.systems = {"aarch64-linux"}};
  EXPECT_EQ(*EndHolds(policy), 0u);
  Finish(ClaimAll());
  EXPECT_EQ(*EndHolds(policy), 2u);
  EXPECT_TRUE(HasRoot(arm));
  EXPECT_FALSE(HasRoot(intel));
  EXPECT_EQ(*EndHolds(policy), 0u);
}

TEST_F(RootsTest, WithoutPinsTheLastJobEndsEveryHold) {
  const StorePath path = MakePath("x");
  PutIntoInbox({Entry(path)});
  ASSERT_TRUE(roots_->Hold(path).ok());
  Age(path, absl::Hours(1));
  ASSERT_TRUE(intake_->TakeInbox().ok());
  const PinPolicy policy = {.pins = false};
  EXPECT_EQ(*EndHolds(policy), 0u);
  EXPECT_TRUE(HasRoot(path));
  Finish(ClaimAll());
  EXPECT_EQ(*EndHolds(policy), 1u);
  EXPECT_FALSE(HasRoot(path));
}

TEST_F(RootsTest, PruneTakesOnlyWhatIsOldAndDone) {
  const StorePath old_done = MakePath("old-done");
  const StorePath old_open = MakePath("old-open");
  const StorePath young = MakePath("young");
  PutIntoInbox({Entry(old_done), Entry(young)});
  ASSERT_TRUE(intake_->TakeInbox().ok());
  Finish(ClaimAll());
  PutIntoInbox({Entry(old_open)});
  ASSERT_TRUE(intake_->TakeInbox().ok());
  Age(old_done, absl::Hours(24 * 31));
  Age(old_open, absl::Hours(24 * 31));
  Age(young, absl::Hours(24 * 29));
  const std::string outside = directory_.path() + "/outside";
  std::ofstream(outside) << "x";
  ASSERT_EQ(symlink(outside.c_str(), (roots_directory_ + "/link").c_str()), 0);
  std::ofstream(roots_directory_ + "/" + TestPath("file").base_name()) << "x";

  const absl::Duration month = absl::Hours(24 * 30);
  auto dry = PruneRoots(*queue_, *roots_, store_dir_, month, clock_.Now(),
                        /*dry_run=*/true);
  ASSERT_TRUE(dry.ok()) << dry.status();
  EXPECT_THAT(dry->removed, SizeIs(1));
  EXPECT_TRUE(HasRoot(old_done));

  auto report = PruneRoots(*queue_, *roots_, store_dir_, month, clock_.Now(),
                           /*dry_run=*/false);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->removed, SizeIs(1));
  EXPECT_EQ(report->removed[0].path, store_dir_.Print(old_done));
  EXPECT_FALSE(HasRoot(old_done));
  EXPECT_TRUE(HasRoot(old_open));
  EXPECT_TRUE(HasRoot(young));
  EXPECT_THAT(report->strange, SizeIs(2));
  EXPECT_TRUE(std::filesystem::exists(outside));
  EXPECT_TRUE(std::filesystem::is_symlink(roots_directory_ + "/link"));
  for (const PruneReport::Root& kept : report->kept) {
    EXPECT_THAT(kept.why, testing::AnyOf(HasSubstr("1 open job"),
                                         HasSubstr("younger than")));
  }
}

// A path that was built again is in the inbox or the spool while its earlier
// jobs are all done.
TEST_F(RootsTest, WhatIsNotYetTakenInKeepsItsRoot) {
  const absl::Duration month = absl::Hours(24 * 30);
  const StorePath inboxed = MakePath("inboxed");
  const StorePath spooled = MakePath("spooled");
  const StorePath output = MakePath("floating");
  const std::vector<StorePath> all = {inboxed, spooled, output};
  for (const StorePath& path : all) {
    ASSERT_TRUE(roots_->Hold(path).ok());
    PutIntoInbox({Entry(path)});
  }
  ASSERT_TRUE(intake_->TakeInbox().ok());
  Finish(ClaimAll());
  for (const StorePath& path : all) Age(path, absl::Hours(24 * 31));

  PutIntoInbox({Entry(inboxed)});
  ASSERT_TRUE(WriteSpool(config_.state_dir, {Entry(spooled)}).ok());
  InboxEntry derivation = Entry(TestPath("floating.drv"));
  derivation.kind = InboxKind::kDerivation;
  ASSERT_TRUE(queue_->Accept({}, {derivation}, {}).ok());

  const PinPolicy nobody = {.pins = false};
  EXPECT_EQ(*EndHolds(nobody), 0u);
  auto report = PruneRoots(*queue_, *roots_, store_dir_, month, clock_.Now(),
                           /*dry_run=*/false);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->removed, SizeIs(0));
  ASSERT_THAT(report->kept, SizeIs(3));
  for (const PruneReport::Root& kept : report->kept) {
    EXPECT_THAT(kept.why, HasSubstr("not yet taken in"));
  }
  for (const StorePath& path : all) EXPECT_TRUE(HasRoot(path));
}

TEST_F(RootsTest, ASpoolThatCannotBeReadKeepsEveryRoot) {
  const StorePath path = MakePath("old");
  PutIntoInbox({Entry(path)});
  ASSERT_TRUE(roots_->Hold(path).ok());
  Age(path, absl::Hours(24 * 31));
  ASSERT_TRUE(intake_->TakeInbox().ok());
  Finish(ClaimAll());
  ASSERT_TRUE(MakeDirectories(config_.state_dir + "/spool", 0700).ok());
  std::ofstream(config_.state_dir + "/spool/1-1-1.entries") << "cut sh";
  for (bool dry_run : {true, false}) {
    auto report = PruneRoots(*queue_, *roots_, store_dir_, absl::Hours(1),
                             clock_.Now(), dry_run);
    EXPECT_THAT(std::string(report.status().message()), HasSubstr("spool"));
  }
  const PinPolicy nobody = {.pins = false};
  EXPECT_FALSE(EndHolds(nobody).ok());
  EXPECT_TRUE(HasRoot(path));
}

// A hook makes the root first, and its entry follows.
TEST_F(RootsTest, AHoldThatAHookHasJustRenewedDoesNotEnd) {
  const StorePath path = MakePath("again");
  PutIntoInbox({Entry(path)});
  ASSERT_TRUE(roots_->Hold(path).ok());
  ASSERT_TRUE(intake_->TakeInbox().ok());
  Finish(ClaimAll());
  Age(path, -absl::Seconds(1));
  const PinPolicy nobody = {.pins = false};
  EXPECT_EQ(*EndHolds(nobody), 0u);
  EXPECT_TRUE(HasRoot(path));
  Age(path, absl::Seconds(1));
  EXPECT_EQ(*EndHolds(nobody), 1u);
  EXPECT_FALSE(HasRoot(path));
}

// At a start after the path was taken in, so that the root is the younger.
TEST_F(RootsTest, ARootThatWasMadeAgainGoesOnceNoEntryCanFollow) {
  const StorePath path = MakePath("made-again");
  PutIntoInbox({Entry(path)});
  ASSERT_TRUE(intake_->TakeInbox().ok());
  ASSERT_TRUE(roots_->Remove(path).ok());
  clock_.Advance(absl::Hours(24));
  ASSERT_TRUE(intake_->RemakeHolds().ok());
  Age(path, absl::ZeroDuration());
  Finish(ClaimAll());
  const PinPolicy nobody = {.pins = false};
  clock_.Advance(absl::Minutes(59));
  EXPECT_EQ(*EndHolds(nobody), 0u);
  EXPECT_TRUE(HasRoot(path));
  clock_.Advance(absl::Minutes(1));
  EXPECT_EQ(*EndHolds(nobody), 1u);
  EXPECT_FALSE(HasRoot(path));
}

TEST_F(RootsTest, ARootFromTheFutureDoesNotHoldForEver) {
  const StorePath path = MakePath("future");
  PutIntoInbox({Entry(path)});
  ASSERT_TRUE(roots_->Hold(path).ok());
  ASSERT_TRUE(intake_->TakeInbox().ok());
  Finish(ClaimAll());
  Age(path, -absl::Hours(24));
  EXPECT_EQ(*EndHolds({.pins = false}), 1u);
  EXPECT_FALSE(HasRoot(path));
}

TEST_F(RootsTest, ManyHoldsEndByPieces) {
  MakeFinished("p", 1100);
  std::filesystem::remove_all(store_);  // so all their roots may go
  int64_t after = 0;
  EXPECT_EQ(*EndHolds({}, after), 1000u);
  EXPECT_EQ(CountIn(roots_directory_), 100u);
  EXPECT_NE(after, 0);
  EXPECT_EQ(*EndHolds({}, after), 100u);
  EXPECT_EQ(CountIn(roots_directory_), 0u);
  EXPECT_EQ(after, 0);
}

TEST_F(RootsTest, HoldsThatWaitAreNotInTheWayOfOthers) {
  for (const StorePath& path : MakeFinished("renewed", 1000)) {
    Age(path, -absl::Seconds(1));
  }
  const StorePath other = MakeFinished("other", 1)[0];
  Age(other, absl::Hours(1));
  const PinPolicy nobody = {.pins = false};
  int64_t after = 0;
  EXPECT_EQ(*EndHolds(nobody, after), 0u);
  EXPECT_NE(after, 0);
  EXPECT_EQ(*EndHolds(nobody, after), 1u);
  EXPECT_EQ(after, 0);
  EXPECT_FALSE(HasRoot(other));
}

TEST_F(RootsTest, ARootThatCannotBeRemovedStopsNoOther) {
  const std::vector<StorePath> paths = MakeFinished("p", 3);
  for (const StorePath& path : paths) Age(path, absl::Hours(1));
  ASSERT_TRUE(roots_->Remove(paths[0]).ok());
  std::ofstream(roots_directory_ + "/" + paths[0].base_name()) << "x";
  EXPECT_FALSE(EndHolds({.pins = false}).ok());
  EXPECT_FALSE(HasRoot(paths[1]));
  EXPECT_FALSE(HasRoot(paths[2]));
  EXPECT_EQ(CountIn(roots_directory_), 1u);
}

TEST_F(RootsTest, APinWhoseLinkIsGoneIsNoneAnyMore) {
  const StorePath path = MakePath("unlinked");
  PutIntoInbox({Entry(path)});
  ASSERT_TRUE(intake_->TakeInbox().ok());
  Finish(ClaimAll());
  ASSERT_EQ(*EndHolds({}), 1u);
  ASSERT_TRUE(roots_->Remove(path).ok());
  for (bool dry_run : {true, false}) {
    auto report = PruneRoots(*queue_, *roots_, store_dir_, absl::Hours(1),
                             clock_.Now(), dry_run);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_THAT(report->unlinked, testing::ElementsAre(store_dir_.Print(path)));
  }
  EXPECT_THAT(*queue_->Pins(0, 10), SizeIs(0));
}

TEST(SignerTest, SignsOnceAndGoesOnWhenTheStoreRefuses) {
  FakeStore store;
  store.Add(TestInfo("a", 10));
  TemporaryDirectory directory;
  const std::string file = directory.path() + "/key";
  // Made for this test, by nix-store --generate-binary-cache-key.
  ASSERT_TRUE(
      WriteFileAtomically(file,
                          "k-1:swQqooPYSksZpnxHxRVNh4ZKyPrt3S1X249E4rI7xG"
                          "5zObk8zSjs+ALY7copFlTfS12pg2otni/YLIR3ZnMokw==",
                          0600)
          .ok());
  auto keys = Signer::LoadKeys({file});
  ASSERT_TRUE(keys.ok()) << keys.status();
  Signer signer(*std::move(keys), TestStoreDir(), store, NullLog());
  PathInfo info = TestInfo("a", 10);
  ASSERT_TRUE(signer.Sign({&info}).ok());
  ASSERT_THAT(info.signatures, SizeIs(1));
  EXPECT_THAT(info.signatures[0], HasSubstr("k-1:"));
  EXPECT_EQ(store.paths.at(info.path).signatures, info.signatures);
  ASSERT_TRUE(signer.Sign({&info}).ok());
  EXPECT_THAT(info.signatures, SizeIs(1));

  store.sign_status = absl::PermissionDeniedError("not trusted");
  PathInfo fresh = TestInfo("a", 10);
  EXPECT_TRUE(signer.Sign({&fresh}).ok());
  EXPECT_THAT(fresh.signatures, SizeIs(1));
  store.sign_status = absl::UnavailableError("away");
  PathInfo other = TestInfo("a", 10);
  EXPECT_TRUE(absl::IsUnavailable(signer.Sign({&other})));
}

TEST(SignerTest, AMissingKeyIsNamedAndNothingElse) {
  auto keys = Signer::LoadKeys({"/nonexistent/key"});
  EXPECT_FALSE(keys.ok());
  EXPECT_THAT(std::string(keys.status().message()),
              HasSubstr("/nonexistent/key"));
}

}  // namespace
}  // namespace nixq
