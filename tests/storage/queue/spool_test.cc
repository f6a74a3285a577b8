#include "storage/queue/spool.h"

#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "storage/base/io.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class SpoolTest : public testing::Test {
 protected:
  std::string State() { return dir_ / "state"; }
  std::string Spool() { return State() + "/spool"; }

  SpoolListing Read(size_t max_files = 100) {
    auto listing = ReadSpool(State(), max_files);
    EXPECT_TRUE(listing.ok()) << listing.status();
    return listing.ok() ? *listing : SpoolListing();
  }
  std::vector<std::string> NamesThere() {
    auto names = ListDirectory(Spool(), 1000);
    return names.ok() ? *names : std::vector<std::string>();
  }
  void WriteRaw(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(Spool());
    std::ofstream(Spool() + "/" + name) << text;
  }

  TemporaryDirectory dir_;
};

std::vector<InboxEntry> TwoEntries() {
  InboxEntry output = Output("hello");
  output.deriver = StorePathOf("hello.drv");
  InboxEntry derivation = Output("floating.drv");
  derivation.kind = InboxKind::kDerivation;
  derivation.named = false;
  derivation.source = "queuectl";
  return {output, derivation};
}

TEST_F(SpoolTest, NothingThere) {
  EXPECT_THAT(Read().files, IsEmpty());
  ASSERT_OK_AND_ASSIGN(int64_t count, CountSpoolFiles(State()));
  EXPECT_EQ(count, 0);
  ASSERT_OK(WriteSpool(State(), {}));
  EXPECT_FALSE(std::filesystem::exists(State()));
}

TEST_F(SpoolTest, WhatIsWrittenIsRead) {
  ASSERT_OK(WriteSpool(State(), TwoEntries()));
  ASSERT_OK_AND_ASSIGN(int64_t count, CountSpoolFiles(State()));
  EXPECT_EQ(count, 1);
  SpoolListing listing = Read();
  EXPECT_THAT(listing.unreadable, IsEmpty());
  ASSERT_THAT(listing.files, SizeIs(1));
  ASSERT_THAT(listing.files[0].entries, SizeIs(2));
  for (int i : {0, 1}) {
    const InboxEntry& entry = listing.files[0].entries[i];
    EXPECT_EQ(entry.kind, TwoEntries()[i].kind);
    EXPECT_EQ(entry.path, TwoEntries()[i].path);
    EXPECT_EQ(entry.deriver, TwoEntries()[i].deriver);
    EXPECT_EQ(entry.named, TwoEntries()[i].named);
    EXPECT_EQ(entry.source, TwoEntries()[i].source);
    EXPECT_EQ(entry.created_unix_ms, TwoEntries()[i].created_unix_ms);
  }
  ASSERT_OK(RemoveSpoolFile(listing.files[0].file));
  ASSERT_OK(RemoveSpoolFile(listing.files[0].file));
  EXPECT_THAT(NamesThere(), IsEmpty());
}

TEST_F(SpoolTest, OldestFirstUpToALimit) {
  for (int64_t when : {3, 1, 200, 20}) {
    InboxEntry entry = Output(absl::StrFormat("at-%d", when));
    entry.created_unix_ms = when;
    ASSERT_OK(WriteSpool(State(), {entry}));
  }
  std::vector<std::string> paths;
  for (const SpoolFile& file : Read(3).files) {
    paths.push_back(file.entries.at(0).path);
  }
  EXPECT_THAT(paths, ElementsAre(StorePathOf("at-1"), StorePathOf("at-3"),
                                 StorePathOf("at-20")));
}

TEST_F(SpoolTest, ManyEntriesAreSeveralFiles) {
  std::vector<InboxEntry> entries(25000, Output("x"));
  ASSERT_OK(WriteSpool(State(), entries));
  SpoolListing listing = Read();
  ASSERT_THAT(listing.files, SizeIs(3));
  size_t total = 0;
  for (const SpoolFile& file : listing.files) total += file.entries.size();
  EXPECT_EQ(total, entries.size());
}

TEST_F(SpoolTest, WhatDoesNotFitInALineIsRefused) {
  for (const std::string& bad :
       {std::string("a\tb"), std::string("a\nb"), std::string("a\0b", 3)}) {
    InboxEntry entry = Output("x");
    entry.path += bad;
    EXPECT_TRUE(absl::IsInvalidArgument(WriteSpool(State(), {entry})));
  }
  EXPECT_THAT(NamesThere(), IsEmpty());
}

// A file that was cut short is never taken for a whole one.
TEST_F(SpoolTest, TruncatedAtEveryLength) {
  ASSERT_OK(WriteSpool(State(), TwoEntries()));
  std::string file = Read().files.at(0).file;
  std::string whole = *ReadFile(file, 1 << 20);
  ASSERT_GT(whole.size(), 100u);
  for (size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    ASSERT_EQ(std::filesystem::remove_all(Spool()) > 0, true);
    WriteRaw("1-2-3.entries", whole.substr(0, size));
    SpoolListing listing = Read();
    EXPECT_THAT(listing.files, IsEmpty());
    ASSERT_THAT(listing.unreadable, SizeIs(1));
    EXPECT_THAT(NamesThere(), ElementsAre("1-2-3.entries.bad"));
    EXPECT_THAT(Read().unreadable, IsEmpty());  // told once
  }
  WriteRaw("1-2-3.entries", whole);
  EXPECT_THAT(Read().files, SizeIs(1));
}

TEST_F(SpoolTest, MalformedFilesArePutAside) {
  const std::string good = "output\t/nix/store/x\t\t1\thook\t5\n";
  const std::string cases[] = {
      "nix-queued spool 2\n" + good + "end\n",
      "nix-queued spool 1\n" + good + "end",
      "nix-queued spool 1\n" + good + "end\nmore\n",
      "nix-queued spool 1\noutput\t/nix/store/x\t\t1\thook\nend\n",
      "nix-queued spool 1\noutput\t/nix/store/x\t\t1\thook\t5\t6\nend\n",
      "nix-queued spool 1\nother\t/nix/store/x\t\t1\thook\t5\nend\n",
      "nix-queued spool 1\noutput\t\t\t1\thook\t5\nend\n",
      "nix-queued spool 1\noutput\t/nix/store/x\t\t2\thook\t5\nend\n",
      "nix-queued spool 1\noutput\t/nix/store/x\t\t1\thook\t-5\nend\n",
      "nix-queued spool 1\n\nend\n",
      std::string(1000, '\0'),
  };
  for (const std::string& text : cases) {
    SCOPED_TRACE(text);
    WriteRaw("1-2-3.entries", text);
    SpoolListing listing = Read();
    EXPECT_THAT(listing.files, IsEmpty());
    EXPECT_THAT(listing.unreadable, ElementsAre(HasSubstr("1-2-3.entries")));
  }
  WriteRaw("1-2-3.entries", "nix-queued spool 1\n" + good + "end\n");
  EXPECT_THAT(Read().files, SizeIs(1));
}

TEST_F(SpoolTest, OneBadFileStopsNoOther) {
  ASSERT_OK(WriteSpool(State(), TwoEntries()));
  WriteRaw("0000000000001-2-3.entries", "rubbish");
  ASSERT_EQ(mkfifo((Spool() + "/0000000000002-2-3.entries").c_str(), 0600), 0);
  ASSERT_EQ(
      symlink("/etc/passwd", (Spool() + "/0000000000003-2-3.entries").c_str()),
      0);
  SpoolListing listing = Read();
  EXPECT_THAT(listing.files, SizeIs(1));
  EXPECT_THAT(listing.unreadable, SizeIs(3));
}

TEST_F(SpoolTest, ForeignFilesAreLeftAlone) {
  ASSERT_OK(WriteSpool(State(), TwoEntries()));
  WriteRaw("README", "hands off");
  WriteRaw("1-2-3.entries.bad", "old");
  WriteRaw(".hidden.entries", "x");
  std::filesystem::create_directory(Spool() + "/directory");
  EXPECT_THAT(Read().files, SizeIs(1));
  EXPECT_THAT(NamesThere(),
              ElementsAre(".hidden.entries", "1-2-3.entries.bad",
                          EndsWith(".entries"), "README", "directory"));
}

TEST_F(SpoolTest, AbandonedTemporaryFilesGo) {
  WriteRaw(".tmp-young", "x");
  WriteRaw(".tmp-old", "x");
  struct timeval times[2];
  ASSERT_EQ(gettimeofday(&times[0], nullptr), 0);
  times[0].tv_sec -= 7200;
  times[1] = times[0];
  ASSERT_EQ(utimes((Spool() + "/.tmp-old").c_str(), times), 0);
  EXPECT_THAT(Read().files, IsEmpty());
  EXPECT_THAT(NamesThere(), ElementsAre(".tmp-young"));
}

TEST_F(SpoolTest, PeekingChangesNothing) {
  ASSERT_OK(WriteSpool(State(), TwoEntries()));
  WriteRaw("0000000000001-2-3.entries", "rubbish");
  ASSERT_OK_AND_ASSIGN(SpoolListing listing, PeekSpool(State(), 10));
  EXPECT_THAT(listing.files, SizeIs(1));
  EXPECT_THAT(listing.unreadable, SizeIs(1));
  EXPECT_THAT(NamesThere(), SizeIs(2));
  ASSERT_OK_AND_ASSIGN(int64_t count, CountSpoolFiles(State()));
  EXPECT_EQ(count, 2);
}

TEST_F(SpoolTest, AFileInTheWay) {
  std::filesystem::create_directory(State());
  std::ofstream(Spool()) << "x";
  EXPECT_TRUE(absl::IsFailedPrecondition(WriteSpool(State(), TwoEntries())));
  EXPECT_FALSE(ReadSpool(State(), 10).ok());
}

TEST_F(SpoolTest, RootWritesWhatTheOwnerOfTheDirectoryReads) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "NOT RUN: only root can give files away";
  }
  std::filesystem::create_directory(State());
  ASSERT_EQ(chown(State().c_str(), 1234, 4321), 0);
  ASSERT_OK(WriteSpool(State(), TwoEntries()));
  struct stat info;
  ASSERT_EQ(stat(Spool().c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 1234u);
  ASSERT_EQ(stat(Read().files.at(0).file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0644u);
}

}  // namespace
}  // namespace nixq
