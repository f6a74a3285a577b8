// What only a directory has: files, modes, leftovers, mounts. The rest is in
// blob_store_test.cc.
#include "storage/cache/directory_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// The same few numbers over and over, as two machines might draw them.
class FewNumbers : public Random {
 public:
  double NextUnit() override {
    return 0.25 * static_cast<double>(next_.fetch_add(1) % 3);
  }

 private:
  std::atomic<int> next_{0};
};

class DirectoryStoreTest : public testing::Test {
 protected:
  DirectoryStoreTest() : cache_(directory_ / "cache") {}

  std::unique_ptr<BlobStore> Open() {
    auto opened = OpenDirectoryStore(cache_, SystemRandom());
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *std::move(opened) : nullptr;
  }
  std::vector<std::string> Names(const std::string& directory) {
    return ListDirectory(directory, 1000)
        .value_or(std::vector<std::string>{"?"});
  }
  static void SetAge(const std::string& file, absl::Duration age) {
    const timespec then = absl::ToTimespec(SystemClock().Now() - age);
    const timespec times[2] = {then, then};
    ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
  }

  TemporaryDirectory directory_;
  const std::string cache_;
  Cancellation cancel_;
};

TEST_F(DirectoryStoreTest, FilesLieWhereNixLooksForThem) {
  const auto store = Open();
  ASSERT_TRUE(store->Put("x.narinfo", "", "info", cancel_).ok());
  ASSERT_TRUE(store->Put("nar/y.nar.zst", "", "nar", cancel_).ok());
  EXPECT_THAT(Names(cache_), ElementsAre("nar", "x.narinfo"));
  EXPECT_THAT(Names(cache_ + "/nar"), ElementsAre("y.nar.zst"));
  EXPECT_EQ(store->Describe(), "file://" + cache_);
}

TEST_F(DirectoryStoreTest, ModesAreForReadersUnderTheUmask) {
  const mode_t old = umask(027);
  const auto store = Open();
  EXPECT_TRUE(store->Put("nar/y", "", "nar", cancel_).ok());
  umask(old);
  struct stat info;
  ASSERT_EQ(stat((cache_ + "/nar").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0750u);
  ASSERT_EQ(stat((cache_ + "/nar/y").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
}

TEST_F(DirectoryStoreTest, AWriterThatGoesLeavesNoFileAtAll) {
  const auto store = Open();
  {
    auto writer = store->StartPut("nar/y", "", std::nullopt, cancel_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append("bytes").ok());
    EXPECT_EQ(Names(cache_ + "/nar").size(), 1u);
  }
  EXPECT_THAT(Names(cache_ + "/nar"), ElementsAre());
}

TEST_F(DirectoryStoreTest, OldTemporariesGoAtOpenAndNothingElse) {
  Open();
  ASSERT_TRUE(MakeDirectories(cache_ + "/nar", 0755).ok());
  for (const std::string& folder : {cache_, cache_ + "/nar"}) {
    for (const char* name :
         {".nixq-0123.tmp", ".nixq-4567.tmp", ".other.tmp", ".nixq-8", "x"}) {
      const std::string file = folder + "/" + name;
      ASSERT_TRUE(WriteFileAtomically(file, "x", 0644).ok());
      SetAge(file, absl::Hours(25));
    }
    SetAge(folder + "/.nixq-4567.tmp", absl::Hours(23));
  }
  Open();
  for (const std::string& folder : {cache_, cache_ + "/nar"}) {
    std::vector<std::string> names = Names(folder);
    std::erase(names, "nar");
    EXPECT_THAT(names, UnorderedElementsAre(".nixq-4567.tmp", ".nixq-8",
                                            ".other.tmp", "x"));
  }
}

TEST_F(DirectoryStoreTest, OwnTemporariesGoAtOnceUnlessSomebodyWritesThem) {
  const auto open = [&](const std::string& owner) {
    auto opened = OpenDirectoryStore(cache_, SystemRandom(), owner);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  };
  const auto ours = open("laptop-1");
  const auto others = open("laptop-1-b");
  auto writer = ours->StartPut("nar/x", "", std::nullopt, cancel_);
  ASSERT_TRUE(writer.ok()) << writer.status();
  auto stranger = others->StartPut("nar/y", "", std::nullopt, cancel_);
  ASSERT_TRUE(stranger.ok()) << stranger.status();
  const std::vector<std::string> living = Names(cache_ + "/nar");
  ASSERT_EQ(living.size(), 2u);
  // What a writer that was killed leaves: the same names, and no lock.
  for (const std::string& name : living) {
    std::string left = cache_ + "/nar/" + name;
    left[left.size() - 5] = left[left.size() - 5] == '0' ? '1' : '0';
    ASSERT_TRUE(WriteFileAtomically(left, "half", 0644).ok());
  }
  open("laptop-1");
  std::vector<std::string> names = Names(cache_ + "/nar");
  EXPECT_EQ(names.size(), 3u);
  for (const std::string& name : living) EXPECT_THAT(names, Contains(name));
  EXPECT_EQ(std::count_if(names.begin(), names.end(),
                          [](const std::string& name) {
                            return name.starts_with(".nixq-laptop-1-b-");
                          }),
            2);
  EXPECT_TRUE((*writer)->Append("x").ok());
  EXPECT_TRUE((*writer)->Commit().ok());
}

TEST_F(DirectoryStoreTest, TwoWritersWhoDrawTheSameNamesDoNotMeet) {
  FewNumbers random;
  auto first = OpenDirectoryStore(cache_, random);
  ASSERT_TRUE(first.ok());
  std::vector<std::thread> threads;
  threads.reserve(2);
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 20; ++j) {
        const std::string bytes(10000, static_cast<char>('a' + i));
        EXPECT_TRUE(
            (*first)
                ->Put(absl::StrFormat("nar/%d-%d", i, j), "", bytes, cancel_)
                .ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Names(cache_ + "/nar").size(), 40u);
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 20; ++j) {
      EXPECT_EQ((*first)
                    ->Get(absl::StrFormat("nar/%d-%d", i, j), 20000, cancel_)
                    .value_or("?"),
                std::string(10000, static_cast<char>('a' + i)));
    }
  }
}

TEST_F(DirectoryStoreTest, KeysCannotLeaveTheDirectory) {
  const auto store = Open();
  for (const std::string& key :
       {std::string(""), std::string("/etc/x"), std::string("../x"),
        std::string("nar/../../x"), std::string("nar//x"), std::string("nar/"),
        std::string(".hidden"), std::string("x\0y", 3)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store->Put(key, "", "x", cancel_)));
    EXPECT_TRUE(absl::IsInvalidArgument(store->Get(key, 9, cancel_).status()));
    const auto there = store->Exist({key}, cancel_);
    ASSERT_TRUE(there.ok()) << there.status();
    EXPECT_TRUE(absl::IsInvalidArgument(there->at(0).status()));
  }
  EXPECT_THAT(Names(directory_.path()), ElementsAre("cache"));
}

TEST_F(DirectoryStoreTest, AnEmptyFileIsNotABlob) {
  const auto store = Open();
  ASSERT_TRUE(WriteFileAtomically(cache_ + "/x.narinfo", "", 0644).ok());
  const auto there = store->Exist({"x.narinfo"}, cancel_);
  ASSERT_TRUE(there.ok());
  EXPECT_FALSE(there->at(0).value_or(true));
}

TEST_F(DirectoryStoreTest, OneFileThatCannotBeLookedAtIsItsOwnTrouble) {
  const auto store = Open();
  ASSERT_TRUE(store->Put("x", "", "x", cancel_).ok());
  // As a bad block would, a loop gives an error and no answer.
  std::filesystem::create_symlink("loop", cache_ + "/loop");
  const auto there = store->Exist({"loop", "x", "y"}, cancel_);
  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_FALSE(there->at(0).ok());
  EXPECT_TRUE(IsPathsFault(there->at(0).status()));
  EXPECT_TRUE(there->at(1).value_or(false));
  EXPECT_FALSE(there->at(2).value_or(true));
}

// What is left of a mount that went away.
TEST_F(DirectoryStoreTest, AnEmptyDirectoryInThePlaceOfACacheStaysEmpty) {
  const auto store = Open();
  ASSERT_TRUE(store->Put("nix-cache-info", "", "x", cancel_).ok());
  ASSERT_TRUE(store->Put("x", "", "x", cancel_).ok());
  auto late = store->StartPut("late", "", std::nullopt, cancel_);
  ASSERT_TRUE(late.ok()) << late.status();
  std::filesystem::rename(cache_, cache_ + ".mount");
  std::filesystem::create_directory(cache_);
  for (const absl::Status& status :
       {store->Put("y", "", "y", cancel_),
        store->Put("nar/y", "", "y", cancel_), (*late)->Commit(),
        store->Exist({"x"}, cancel_).status(),
        store->Get("x", 9, cancel_).status()}) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_FALSE(IsPathsFault(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("mounted"));
  }
  EXPECT_THAT(Names(cache_), ElementsAre());
  std::filesystem::remove(cache_);
  std::filesystem::rename(cache_ + ".mount", cache_);
  EXPECT_TRUE(store->Put("y", "", "y", cancel_).ok());
}

TEST_F(DirectoryStoreTest, ADirectoryThatIsAwayIsUnavailableNotEmpty) {
  const auto store = Open();
  ASSERT_TRUE(store->Put("x", "", "x", cancel_).ok());
  std::filesystem::rename(cache_, cache_ + ".away");
  EXPECT_TRUE(absl::IsUnavailable(store->Get("x", 9, cancel_).status()));
  EXPECT_TRUE(absl::IsUnavailable(store->Exist({"x"}, cancel_).status()));
  const absl::Status put = store->Put("y", "", "y", cancel_);
  EXPECT_TRUE(absl::IsUnavailable(put)) << put;
  EXPECT_THAT(std::string(put.message()), HasSubstr("mounted"));
  EXPECT_TRUE(absl::IsUnavailable(store->Put("nar/y", "", "y", cancel_)));
  EXPECT_FALSE(std::filesystem::exists(cache_));
  std::filesystem::rename(cache_ + ".away", cache_);
  EXPECT_TRUE(store->Get("x", 9, cancel_).ok());
}

TEST_F(DirectoryStoreTest, FoldersThatVanishAreMadeAgain) {
  const auto store = Open();
  ASSERT_TRUE(store->Put("nar/x", "", "x", cancel_).ok());
  std::filesystem::remove_all(cache_ + "/nar");
  EXPECT_TRUE(store->Put("nar/x", "", "x", cancel_).ok());
  EXPECT_TRUE(store->Put("a/b/c/x", "", "x", cancel_).ok());
}

TEST_F(DirectoryStoreTest, OpenSaysWhatIsWrong) {
  EXPECT_TRUE(absl::IsNotFound(
      OpenDirectoryStore(directory_ / "no/cache", SystemRandom()).status()));
  ASSERT_TRUE(WriteFileAtomically(cache_, "a file", 0644).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(
      OpenDirectoryStore(cache_, SystemRandom()).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      OpenDirectoryStore("relative", SystemRandom()).status()));
}

TEST_F(DirectoryStoreTest, ASizeThatWasNotKeptIsNotCommitted) {
  const auto store = Open();
  auto writer = store->StartPut("nar/x", "", 3, cancel_);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append("12").ok());
  EXPECT_TRUE(absl::IsInternal((*writer)->Commit()));
  writer->reset();
  EXPECT_THAT(Names(cache_ + "/nar"), ElementsAre());
}

}  // namespace
}  // namespace nixq
