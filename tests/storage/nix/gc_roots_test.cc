#include "storage/nix/gc_roots.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/private_nix.h"

namespace nixq {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kHash[] = "0123456789abcdfghijklmnpqrsvwxyz";

class GcRootsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/roots-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    base_ = fs::canonical(name).string();
    directory_ = base_ + "/gcroots/arm-cache";
    fs::create_directory(base_ + "/store");
    store_dir_ = *StoreDir::Parse(base_ + "/store");
  }
  void TearDown() override { fs::remove_all(base_); }

  GcRoots Open() {
    auto roots = GcRoots::Open(directory_, *store_dir_, true);
    EXPECT_TRUE(roots.ok()) << roots.status();
    return *std::move(roots);
  }
  StorePath Path(const std::string& name) {
    return *StorePath::FromBaseName(std::string(kHash) + "-" + name);
  }
  std::string LinkOf(const StorePath& path) {
    return directory_ + "/" + path.base_name();
  }
  void SetAge(const std::string& link, absl::Duration age) {
    const timespec then = absl::ToTimespec(absl::Now() - age);
    const timespec times[2] = {then, then};
    ASSERT_EQ(utimensat(AT_FDCWD, link.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  }
  size_t EntryCount() {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(directory_), {}));
  }

  std::string base_;
  std::string directory_;
  std::optional<StoreDir> store_dir_;
};

TEST_F(GcRootsTest, CreatesTheDirectoryOnlyIfAsked) {
  EXPECT_TRUE(
      absl::IsNotFound(GcRoots::Open(directory_, *store_dir_, false).status()));
  Open();
  EXPECT_TRUE(fs::is_directory(directory_));
  EXPECT_TRUE(GcRoots::Open(directory_ + "/", *store_dir_, false).ok());
}

TEST_F(GcRootsTest, RefusesADirectoryThatIsASymlinkOrAFile) {
  const std::string real = base_ + "/real";
  fs::create_directory(real);
  fs::create_symlink(real, base_ + "/link");
  fs::create_symlink(base_ + "/nowhere", base_ + "/broken");
  std::ofstream(base_ + "/file") << "x";
  for (const char* name :
       {"/link", "/link/", "/link/.", "/link//", "/broken", "/file"}) {
    auto roots = GcRoots::Open(base_ + name, *store_dir_, true);
    EXPECT_TRUE(absl::IsFailedPrecondition(roots.status()))
        << name << ": " << roots.status();
  }
  EXPECT_TRUE(fs::is_empty(real));
  EXPECT_FALSE(fs::exists(base_ + "/nowhere"));
}

TEST_F(GcRootsTest, HoldMakesOneLinkToThePath) {
  GcRoots roots = Open();
  const StorePath path = Path("hello");
  ASSERT_TRUE(roots.Hold(path).ok());
  EXPECT_EQ(fs::read_symlink(LinkOf(path)), store_dir_->Print(path));
  ASSERT_TRUE(roots.Hold(path).ok());
  EXPECT_EQ(fs::read_symlink(LinkOf(path)), store_dir_->Print(path));
  EXPECT_EQ(EntryCount(), 1u);
}

TEST_F(GcRootsTest, HoldRenewsTheAge) {
  GcRoots roots = Open();
  const StorePath path = Path("hello");
  ASSERT_TRUE(roots.Hold(path).ok());
  SetAge(LinkOf(path), absl::Hours(24 * 40));
  auto old = roots.Find(path);
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_LT(old->made, absl::Now() - absl::Hours(24 * 39));
  ASSERT_TRUE(roots.Hold(path).ok());
  auto renewed = roots.Find(path);
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  EXPECT_GT(renewed->made, absl::Now() - absl::Hours(1));
}

TEST_F(GcRootsTest, ReadersNeverMissALinkThatIsRenewed) {
  GcRoots roots = Open();
  const StorePath path = Path("hello");
  ASSERT_TRUE(roots.Hold(path).ok());
  std::atomic<bool> done{false};
  std::atomic<int> reads{0};
  int missed = 0;
  std::thread reader([&] {
    while (!done) {
      char target[4096];
      if (readlink(LinkOf(path).c_str(), target, sizeof target) <= 0) {
        ++missed;
      }
      ++reads;
    }
  });
  int renewals = 0;
  while (renewals < 2000 || reads < 2000) {
    ASSERT_TRUE(roots.Hold(path).ok());
    ++renewals;
  }
  done = true;
  reader.join();
  EXPECT_EQ(missed, 0);
  EXPECT_EQ(EntryCount(), 1u);
}

TEST_F(GcRootsTest, HoldDoesNotClobberFilesAndDirectories) {
  GcRoots roots = Open();
  const StorePath file = Path("file");
  std::ofstream(LinkOf(file)) << "precious";
  const StorePath directory = Path("directory");
  fs::create_directory(LinkOf(directory));
  EXPECT_TRUE(absl::IsFailedPrecondition(roots.Hold(file)));
  EXPECT_TRUE(absl::IsFailedPrecondition(roots.Hold(directory)));
  EXPECT_TRUE(fs::is_regular_file(LinkOf(file)));
  EXPECT_EQ(fs::file_size(LinkOf(file)), 8u);
  EXPECT_TRUE(fs::is_directory(LinkOf(directory)));
  EXPECT_EQ(EntryCount(), 2u);
}

TEST_F(GcRootsTest, HoldMakesALinkThatPointsElsewhereRight) {
  GcRoots roots = Open();
  const StorePath path = Path("hello");
  std::ofstream(base_ + "/precious") << "precious";
  fs::create_symlink(base_ + "/precious", LinkOf(path));
  EXPECT_TRUE(roots.Hold(path).ok());
  EXPECT_EQ(fs::read_symlink(LinkOf(path)), store_dir_->Print(path));
  EXPECT_EQ(fs::file_size(base_ + "/precious"), 8u);
}

TEST_F(GcRootsTest, HoldSurvivesADirectoryThatIsReplacedByASymlink) {
  GcRoots roots = Open();
  fs::create_directory(base_ + "/elsewhere");
  fs::rename(directory_, base_ + "/moved");
  fs::create_symlink(base_ + "/elsewhere", directory_);
  EXPECT_TRUE(roots.Hold(Path("hello")).ok());
  EXPECT_TRUE(fs::is_empty(base_ + "/elsewhere"));
  EXPECT_TRUE(fs::is_symlink(base_ + "/moved/" + Path("hello").base_name()));
}

TEST_F(GcRootsTest, RemoveTakesOnlyTheLinkToThePath) {
  GcRoots roots = Open();
  const StorePath held = Path("held");
  const StorePath file = Path("file");
  const StorePath elsewhere = Path("elsewhere");
  ASSERT_TRUE(roots.Hold(held).ok());
  std::ofstream(LinkOf(file)) << "x";
  fs::create_symlink("/etc/passwd", LinkOf(elsewhere));

  EXPECT_TRUE(roots.Remove(held).ok());
  EXPECT_FALSE(fs::is_symlink(LinkOf(held)));
  EXPECT_TRUE(absl::IsNotFound(roots.Remove(held)));
  EXPECT_TRUE(absl::IsFailedPrecondition(roots.Remove(file)));
  EXPECT_TRUE(absl::IsFailedPrecondition(roots.Remove(elsewhere)));
  EXPECT_TRUE(fs::exists(LinkOf(file)));
  EXPECT_TRUE(fs::is_symlink(LinkOf(elsewhere)));
}

TEST_F(GcRootsTest, FindTellsWhatIsThere) {
  GcRoots roots = Open();
  const StorePath path = Path("hello");
  EXPECT_TRUE(absl::IsNotFound(roots.Find(path).status()));
  ASSERT_TRUE(roots.Hold(path).ok());
  auto root = roots.Find(path);
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(root->path, path);
  EXPECT_TRUE(root->dangling);
  // A store path may be a symlink that leads nowhere: it is there all the
  // same.
  fs::create_symlink("/nowhere", store_dir_->Print(path));
  EXPECT_FALSE(roots.Find(path)->dangling);
  fs::create_symlink("/etc/passwd", LinkOf(Path("strange")));
  EXPECT_TRUE(absl::IsNotFound(roots.Find(Path("strange")).status()));
}

TEST_F(GcRootsTest, ListTellsRootsFromStrangeEntries) {
  GcRoots roots = Open();
  const StorePath b = Path("b");
  const StorePath a = Path("a");
  ASSERT_TRUE(roots.Hold(b).ok());
  ASSERT_TRUE(roots.Hold(a).ok());
  std::ofstream(store_dir_->Print(a)) << "x";
  std::ofstream(directory_ + "/README") << "x";
  fs::create_symlink("/etc/passwd", LinkOf(Path("elsewhere")));
  fs::create_symlink(store_dir_->Print(a), directory_ + "/result");
  fs::create_symlink(store_dir_->Print(a) + "/bin", LinkOf(Path("inside")));
  fs::create_symlink("/etc/passwd", directory_ + "/.tmp-elsewhere");
  fs::create_directory(directory_ + "/sub");

  auto listing = roots.List();
  ASSERT_TRUE(listing.ok()) << listing.status();
  ASSERT_THAT(listing->roots, SizeIs(2));
  EXPECT_EQ(listing->roots[0].path, a);
  EXPECT_FALSE(listing->roots[0].dangling);
  EXPECT_EQ(listing->roots[1].path, b);
  EXPECT_TRUE(listing->roots[1].dangling);
  ASSERT_THAT(listing->strange, SizeIs(5));
  std::string strange;
  for (const StrangeEntry& entry : listing->strange) {
    strange += entry.name + ": " + entry.why + "\n";
    EXPECT_TRUE(fs::symlink_status(directory_ + "/" + entry.name).type() !=
                fs::file_type::not_found)
        << entry.name << " was removed";
  }
  EXPECT_THAT(strange, HasSubstr("README: not a symlink"));
  EXPECT_THAT(strange, HasSubstr("elsewhere: points to /etc/passwd"));
  EXPECT_THAT(strange, HasSubstr("result: "));
  // Where a sender keeps its own, which is none of our business.
  EXPECT_THAT(strange, Not(HasSubstr("sub")));
}

TEST_F(GcRootsTest, ListRemovesOldTemporaryLinksOnly) {
  GcRoots roots = Open();
  const std::string target = store_dir_->Print(Path("hello"));
  const std::string old_one = directory_ + "/.tmp-12345-old-0";
  const std::string new_one = directory_ + "/.tmp-12345-new-0";
  const std::string strange = directory_ + "/.tmp-strange";
  fs::create_symlink(target, old_one);
  fs::create_symlink(target, new_one);
  fs::create_symlink("/etc/passwd", strange);
  SetAge(old_one, absl::Hours(2));
  SetAge(new_one, absl::Minutes(30));
  SetAge(strange, absl::Hours(2));

  auto listing = roots.List();
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->roots, SizeIs(0));
  EXPECT_THAT(listing->strange, SizeIs(1));
  EXPECT_FALSE(fs::is_symlink(old_one));
  EXPECT_TRUE(fs::is_symlink(new_one));
  EXPECT_TRUE(fs::is_symlink(strange));
}

// 64 threads, as many as there may be builds at once, hold the same paths.
TEST_F(GcRootsTest, ManyThreadsHoldAtOnce) {
  Open();
  std::vector<std::thread> threads;
  threads.reserve(64);
  for (int i = 0; i < 64; ++i) {
    threads.emplace_back([this] {
      auto roots = GcRoots::Open(directory_, *store_dir_, true);
      ASSERT_TRUE(roots.ok()) << roots.status();
      for (int j = 0; j < 20; ++j) {
        absl::Status held = roots->Hold(Path(absl::StrFormat("path-%d", j)));
        EXPECT_TRUE(held.ok()) << held;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  auto listing = Open().List();
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->roots, SizeIs(20));
  EXPECT_EQ(EntryCount(), 20u);
}

// And 64 processes, of which each also makes the directory.
TEST_F(GcRootsTest, ManyProcessesHoldAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 64; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      auto roots = GcRoots::Open(directory_, *store_dir_, true);
      bool held = roots.ok();
      for (int j = 0; held && j < 20; ++j) {
        held = roots->Hold(Path(absl::StrFormat("path-%d", j))).ok();
      }
      _exit(held ? 0 : 1);
    }
    ASSERT_GT(pid, 0);
    children.push_back(pid);
  }
  for (pid_t pid : children) {
    int status = -1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  auto listing = Open().List();
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->roots, SizeIs(20));
  EXPECT_EQ(EntryCount(), 20u);
}

TEST_F(GcRootsTest, NixSparesWhatIsHeldAndTakesWhatIsReleased) {
  auto nix = PrivateNix::Create();
  ASSERT_TRUE(nix.ok()) << nix.status();
  auto held = (*nix)->Build(ChainExpression("held", 3));
  ASSERT_TRUE(held.ok()) << held.status();
  auto loose = (*nix)->Build(SimpleExpression("loose"));
  ASSERT_TRUE(loose.ok()) << loose.status();
  auto roots = GcRoots::Open((*nix)->roots_dir(), (*nix)->store_dir(), true);
  ASSERT_TRUE(roots.ok()) << roots.status();
  ASSERT_TRUE(roots->Hold(held->front()).ok());
  ASSERT_TRUE(roots->Hold(held->front()).ok());

  ASSERT_TRUE((*nix)->CollectGarbage().ok());
  EXPECT_TRUE((*nix)->IsValid(held->front()));
  EXPECT_FALSE((*nix)->IsValid(loose->front()));
  EXPECT_FALSE(roots->Find(held->front())->dangling);

  ASSERT_TRUE(roots->Remove(held->front()).ok());
  ASSERT_TRUE((*nix)->CollectGarbage().ok());
  EXPECT_FALSE((*nix)->IsValid(held->front()));
}

}  // namespace
}  // namespace nixq
