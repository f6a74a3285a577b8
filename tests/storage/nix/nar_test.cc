#include "storage/nix/nar.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/nix/hash.h"
#include "tests/support/private_nix.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBufferBytes = size_t{256} * 1024;

void Put(const std::string& path, const std::string& contents,
         mode_t mode = 0644) {
  std::ofstream(path, std::ios::binary) << contents;
  ASSERT_EQ(chmod(path.c_str(), mode), 0) << path;
}

absl::StatusOr<std::string> Dump(const std::string& path,
                                 const NarOptions& options = {}) {
  std::string bytes;
  absl::Status written = WriteNar(path, options, [&](std::string_view piece) {
    EXPECT_FALSE(piece.empty());
    EXPECT_LE(piece.size(), kBufferBytes);
    bytes += piece;
    return absl::OkStatus();
  });
  if (!written.ok()) return written;
  return bytes;
}

// Dumps while `disturb` runs once, at the first piece of the archive.
absl::Status DumpDisturbed(const std::string& path,
                           const std::function<void()>& disturb) {
  bool disturbed = false;
  absl::Status written = WriteNar(path, {}, [&](std::string_view) {
    if (!disturbed) disturb();
    disturbed = true;
    return absl::OkStatus();
  });
  EXPECT_TRUE(disturbed) << "the archive had no piece before its end";
  return written;
}

// --- A second, simple writer to compare with --------------------------------

void AppendString(const std::string& text, std::string* nar) {
  const uint64_t length = text.size();
  for (int i = 0; i < 8; ++i) *nar += static_cast<char>(length >> (8 * i));
  *nar += text;
  nar->append((8 - length % 8) % 8, '\0');
}

void AppendNode(const fs::path& path, std::string* nar) {
  const auto append = [nar](const std::string& text) {
    AppendString(text, nar);
  };
  append("(");
  append("type");
  if (fs::is_symlink(path)) {
    append("symlink");
    append("target");
    append(fs::read_symlink(path).string());
  } else if (fs::is_directory(path)) {
    append("directory");
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      append("entry");
      append("(");
      append("name");
      append(name);
      append("node");
      AppendNode(path / name, nar);
      append(")");
    }
  } else {
    append("regular");
    if ((fs::status(path).permissions() & fs::perms::owner_exec) !=
        fs::perms::none) {
      append("executable");
      append("");
    }
    append("contents");
    append(*ReadFile(path.string(), size_t{1} << 30));
  }
  append(")");
}

std::string Reference(const std::string& path) {
  std::string nar;
  AppendString("nix-archive-1", &nar);
  AppendNode(path, &nar);
  return nar;
}

// --- Against the Nix that is installed --------------------------------------

class NarGoldenTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto nix = PrivateNix::Create();
    ASSERT_TRUE(nix.ok()) << nix.status();
    nix_ = *std::move(nix);
  }
  static void TearDownTestSuite() { nix_.reset(); }

  static void ExpectSameAsNix(const std::string& path) {
    SCOPED_TRACE(path);
    const auto theirs = nix_->Run({"nix-store", "--dump", path});
    ASSERT_TRUE(theirs.ok()) << theirs.status();
    const auto ours = Dump(path);
    ASSERT_TRUE(ours.ok()) << ours.status();
    // Not EXPECT_EQ: nobody wants to read megabytes.
    EXPECT_TRUE(*ours == *theirs) << ours->size() << " " << theirs->size();
    EXPECT_TRUE(Reference(path) == *theirs) << "the test's own writer";
  }

  static std::unique_ptr<PrivateNix> nix_;
  TemporaryDirectory dir_;
};

std::unique_ptr<PrivateNix> NarGoldenTest::nix_;

TEST_F(NarGoldenTest, SingleObjects) {
  Put(dir_ / "file", "contents");
  Put(dir_ / "empty", "");
  Put(dir_ / "script", "#!/bin/sh\n", 0755);
  Put(dir_ / "empty-script", "", 0755);
  Put(dir_ / "group-executable", "x", 0654);
  Put(dir_ / "read-only", "x", 0444);
  Put(dir_ / "only-executable", "x", 0555);
  fs::create_symlink("file", dir_ / "link");
  fs::create_symlink("/nowhere/at/all", dir_ / "dangling");
  fs::create_symlink(std::string(4000, 'x'), dir_ / "long-link");
  fs::create_directory(dir_ / "directory");
  fs::create_symlink("directory", dir_ / "link-to-directory");
  fs::create_hard_link(dir_ / "file", dir_ / "hard-link");
  const auto names = ListDirectory(dir_.path(), 100);
  ASSERT_TRUE(names.ok()) << names.status();
  for (const std::string& name : *names) {
    ExpectSameAsNix(dir_ / name);
  }
  ExpectSameAsNix(dir_.path());
}

TEST_F(NarGoldenTest, SizesAroundPaddingAndBuffer) {
  for (size_t size = 0; size <= 17; ++size) {
    Put(dir_ / std::to_string(size), std::string(size, 'x'));
  }
  for (const size_t size : {kBufferBytes - 1, kBufferBytes, kBufferBytes + 1,
                            3 * kBufferBytes + 5, 5 * kBufferBytes}) {
    Put(dir_ / std::to_string(size), std::string(size, 'y'));
  }
  ExpectSameAsNix(dir_.path());
}

TEST_F(NarGoldenTest, NamesAreSortedByTheirBytes) {
  for (const char* name :
       {"a",        "A",         "aa",        "a-b",   "a.b",
        "a b",      "b",         "\xff",      "\x01",  "~",
        "\xc3\xa9", "e\xcc\x81", "new\nline", "tab\t", "-",
        "--help",   "...",       ".x",        "(",     ")",
        "entry",    "*",         "\\",        "\"",    "x~nix~case~hack~1"}) {
    Put(dir_ / name, name);
  }
  // "d/x" would sort before "d-" if it were compared as a path.
  fs::create_directory(dir_ / "d");
  Put(dir_ / "d/x", "");
  Put(dir_ / "d-", "");
  Put(dir_ / std::string(255, 'n'), "");
  ExpectSameAsNix(dir_.path());
}

// A chain of `nodes` nodes: directories with a file in the innermost.
std::string MakeChain(const TemporaryDirectory& dir, int nodes) {
  std::string root = dir / ("chain-" + std::to_string(nodes));
  std::string path = root;
  for (int i = 0; i < nodes - 1; ++i) {
    fs::create_directory(path);
    path += "/d";
  }
  Put(path, "deep");
  return root;
}

TEST_F(NarGoldenTest, NestsAsDeeplyAsNix) {
  ExpectSameAsNix(MakeChain(dir_, 2));
  ExpectSameAsNix(MakeChain(dir_, 63));
  ExpectSameAsNix(MakeChain(dir_, 64));
  EXPECT_EQ(Dump(MakeChain(dir_, 65)).status().code(),
            absl::StatusCode::kOutOfRange);
}

// Grows a random tree below `directory`.
void GrowTree(const std::string& directory, int depth, std::mt19937* random) {
  const auto below = [random](unsigned limit) { return (*random)() % limit; };
  fs::create_directory(directory);
  const unsigned entries = below(8);
  for (unsigned i = 0; i < entries; ++i) {
    std::string name;
    const unsigned length = below(20) == 0 ? 255 : 1 + below(12);
    while (name.size() < length) {
      const char c =
          static_cast<char>(below(2) == 0 ? 'a' + below(4) : 1 + below(255));
      if (c != '/') name += c;
    }
    if (name == "." || name == "..") continue;
    const std::string path = fs::path(directory) / name;
    if (fs::exists(fs::symlink_status(path))) continue;
    switch (below(depth > 0 ? 6 : 4)) {
      case 0:
        fs::create_symlink(std::string(1 + below(100), 't'), path);
        break;
      case 1:
        Put(path, "", below(2) == 0 ? 0644 : 0755);
        break;
      case 2:
      case 3: {
        const unsigned size = below(10) == 0 ? below(600000) : below(300);
        std::string contents(size, '\0');
        for (char& c : contents) c = static_cast<char>((*random)());
        Put(path, contents, below(3) == 0 ? 0555 : 0644);
        break;
      }
      default:
        GrowTree(path, depth - 1, random);
    }
  }
}

TEST_F(NarGoldenTest, RandomTrees) {
  const unsigned seed = std::random_device()();
  std::mt19937 random(seed);
  for (int i = 0; i < 25; ++i) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", tree " +
                 std::to_string(i));
    const std::string root = dir_ / std::to_string(i);
    GrowTree(root, 5, &random);
    ExpectSameAsNix(root);
  }
}

TEST_F(NarGoldenTest, TheHashIsTheOneThatNixComputes) {
  std::mt19937 random(1);
  GrowTree(dir_ / "tree", 3, &random);
  Sha256 hash;
  ASSERT_TRUE(WriteNar(dir_ / "tree", {}, [&](std::string_view piece) {
                hash.Update(piece);
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(
      nix_->Run({"nix-hash", "--type", "sha256", "--base32", dir_ / "tree"})
          .value_or(""),
      ToNix32(hash.Finish()) + "\n");
}

TEST_F(NarGoldenTest, UndoesTheCaseHackAsNixDoes) {
  fs::create_directory(dir_ / "t");
  Put(dir_ / "t/FOO", "1");
  Put(dir_ / "t/foo~nix~case~hack~1", "2");
  Put(dir_ / "t/foo-bar", "3");  // "foo" sorts before it, "foo~..." does not
  Put(dir_ / "t/Foo~nix~case~hack~2~nix~case~hack~1", "4");
  fs::create_directory(dir_ / "t/dir~nix~case~hack~1");
  Put(dir_ / "t/dir~nix~case~hack~1/x~nix~case~hack~7", "5");
  const auto theirs = nix_->Run(
      {"nix-store", "--option", "use-case-hack", "true", "--dump", dir_ / "t"});
  ASSERT_TRUE(theirs.ok()) << theirs.status();
  const auto ours = Dump(dir_ / "t", {.case_hack = true});
  ASSERT_TRUE(ours.ok()) << ours.status();
  EXPECT_TRUE(*ours == *theirs);
  EXPECT_EQ(ours->find("hack"), std::string::npos);
  EXPECT_NE(Dump(dir_ / "t", {.case_hack = false})->find("hack"),
            std::string::npos);
}

// --- By itself --------------------------------------------------------------

TEST(NarTest, EveryBoundaryOfTheBufferIsSeamless) {
  const TemporaryDirectory dir;
  fs::create_directory(dir / "t");
  Put(dir / "t/b", "second", 0755);
  fs::create_symlink("target", dir / "t/c");
  // The first file's end walks over the end of the buffer, and with it
  // everything that follows.
  for (size_t less = 0; less < 900; less += 7) {
    SCOPED_TRACE(less);
    Put(dir / "t/a", std::string(kBufferBytes - less, 'a'));
    EXPECT_TRUE(*Dump(dir / "t") == Reference(dir / "t"));
  }
}

TEST(NarTest, ManySmallFilesMakeFewPieces) {
  const TemporaryDirectory dir;
  for (int i = 0; i < 3000; ++i) Put(dir / std::to_string(i), "small");
  size_t pieces = 0;
  std::string bytes;
  ASSERT_TRUE(WriteNar(dir.path(), {}, [&](std::string_view piece) {
                ++pieces;
                bytes += piece;
                return absl::OkStatus();
              }).ok());
  EXPECT_TRUE(bytes == Reference(dir.path()));
  EXPECT_LE(pieces, bytes.size() / kBufferBytes + 2);
}

TEST(NarTest, FollowsNoSymlink) {
  const TemporaryDirectory dir;
  fs::create_directory(dir / "secret");
  Put(dir / "secret/file", "not for you");
  fs::create_symlink("secret", dir / "link");
  const auto link = Dump(dir / "link");
  ASSERT_TRUE(link.ok());
  EXPECT_NE(link->find("symlink"), std::string::npos);
  EXPECT_EQ(link->find("not for you"), std::string::npos);
  EXPECT_EQ(*Dump(dir / "link/"), *link);
  EXPECT_EQ(*Dump(dir / "link//"), *link);
}

TEST(NarTest, RefusesWhatIsNoFile) {
  const TemporaryDirectory dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  const UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (dir / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address),
                 sizeof address),
            0);
  for (const std::string& path :
       {dir / "fifo", dir / "socket", std::string("/dev/null"), dir.path()}) {
    const absl::Status status = Dump(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << path;
    EXPECT_TRUE(IsPathsFault(status)) << path;
    if (path == dir.path()) {  // names the entry inside
      EXPECT_NE(std::string(status.message()).find(dir / "fifo"),
                std::string::npos);
    }
  }
}

TEST(NarTest, WhatIsNotThereIsNotFound) {
  const TemporaryDirectory dir;
  Put(dir / "file", "");
  for (const std::string& path : {dir / "none", dir / "file/below"}) {
    const absl::Status status = Dump(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << path;
    EXPECT_TRUE(IsPathsFault(status)) << path;
  }
  EXPECT_FALSE(Dump("").ok());
}

TEST(NarTest, WhatIsUnreadableIsDenied) {
  const TemporaryDirectory dir;
  ASSERT_EQ(chmod(dir.path().c_str(), 0755), 0);
  for (const char* name : {"readable", "file", "list"}) {
    fs::create_directory(dir / name);
    ASSERT_EQ(chmod((dir / name).c_str(), 0755), 0);
    Put(dir / name + "/x", "x");
  }
  ASSERT_EQ(chmod((dir / "file/x").c_str(), 0), 0);
  ASSERT_EQ(chmod((dir / "list").c_str(), 0311), 0);
  // Root may read everything, so it becomes somebody else for a moment.
  const uid_t self = geteuid();
  if (self == 0) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  const auto readable = Dump(dir / "readable");
  const absl::Status file = Dump(dir / "file").status();
  const absl::Status list = Dump(dir / "list").status();
  ASSERT_EQ(seteuid(self), 0);
  EXPECT_TRUE(readable.ok()) << readable.status();
  EXPECT_EQ(file.code(), absl::StatusCode::kPermissionDenied) << file;
  EXPECT_EQ(list.code(), absl::StatusCode::kPermissionDenied) << list;
  EXPECT_TRUE(IsPathsFault(file));
}

// What changes while it is read, at the first piece of the archive: "big" is
// being read then, the others are yet to come.
class NarDisturbedTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(root_);
    Put(root_ + "/big", std::string(4 * kBufferBytes, 'b'));
    Put(root_ + "/small", "small");
    fs::create_directory(root_ + "/tree");
    Put(root_ + "/tree/leaf", "leaf");
    fs::create_symlink("target", root_ + "/zlink");
  }

  void Expect(absl::StatusCode code, const std::function<void()>& disturb) {
    const absl::Status status = DumpDisturbed(root_, disturb);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_TRUE(IsPathsFault(status)) << status;
  }

  TemporaryDirectory dir_;
  std::string root_ = dir_ / "root";
};

TEST_F(NarDisturbedTest, NothingChanged) {
  EXPECT_TRUE(DumpDisturbed(root_, [] {}).ok());
}

TEST_F(NarDisturbedTest, FilesVanish) {
  Expect(absl::StatusCode::kNotFound, [&] { fs::remove(root_ + "/small"); });
}

TEST_F(NarDisturbedTest, DirectoriesVanish) {
  Expect(absl::StatusCode::kNotFound, [&] { fs::remove_all(root_ + "/tree"); });
}

TEST_F(NarDisturbedTest, SymlinksVanish) {
  Expect(absl::StatusCode::kNotFound, [&] { fs::remove(root_ + "/zlink"); });
}

TEST_F(NarDisturbedTest, AFileShrinks) {
  Expect(absl::StatusCode::kFailedPrecondition,
         [&] { fs::resize_file(root_ + "/big", 10); });
}

TEST_F(NarDisturbedTest, AFileLosesItsLastByte) {
  Expect(absl::StatusCode::kFailedPrecondition,
         [&] { fs::resize_file(root_ + "/big", 4 * kBufferBytes - 1); });
}

TEST_F(NarDisturbedTest, AFileGrowsByOneByte) {
  Expect(absl::StatusCode::kFailedPrecondition,
         [&] { fs::resize_file(root_ + "/big", 4 * kBufferBytes + 1); });
}

TEST_F(NarDisturbedTest, AFileBecomesASymlink) {
  Put(dir_ / "secret", "not for you");
  std::string bytes;
  const absl::Status status = WriteNar(root_, {}, [&](std::string_view piece) {
    if (bytes.empty()) {
      fs::remove(root_ + "/small");
      fs::create_symlink(dir_ / "secret", root_ + "/small");
    }
    bytes += piece;
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(bytes.find("not for you"), std::string::npos);
}

TEST_F(NarDisturbedTest, AFileBecomesAFifo) {
  Expect(absl::StatusCode::kFailedPrecondition, [&] {
    fs::remove(root_ + "/small");
    ASSERT_EQ(mkfifo((root_ + "/small").c_str(), 0600), 0);
  });
}

TEST_F(NarDisturbedTest, AFileBecomesADirectory) {
  Expect(absl::StatusCode::kFailedPrecondition, [&] {
    fs::remove(root_ + "/small");
    fs::create_directory(root_ + "/small");
  });
}

TEST_F(NarDisturbedTest, ADirectoryBecomesASymlink) {
  Expect(absl::StatusCode::kFailedPrecondition, [&] {
    fs::rename(root_ + "/tree", dir_ / "moved");
    fs::create_symlink(dir_ / "moved", root_ + "/tree");
  });
}

TEST_F(NarDisturbedTest, ASymlinkBecomesAFile) {
  Expect(absl::StatusCode::kFailedPrecondition, [&] {
    fs::remove(root_ + "/zlink");
    Put(root_ + "/zlink", "x");
  });
}

TEST_F(NarDisturbedTest, TheSinksErrorStopsTheWriterAndIsReturned) {
  absl::Status error =
      WithRetryAfter(absl::AbortedError("full"), absl::Seconds(3));
  for (int good = 0; good < 3; ++good) {
    int calls = 0;
    const absl::Status status = WriteNar(root_, {}, [&](std::string_view) {
      return ++calls > good ? error : absl::OkStatus();
    });
    EXPECT_EQ(status, error);
    EXPECT_FALSE(IsPathsFault(status));
    EXPECT_EQ(calls, good + 1);
  }
}

#ifdef __linux__
TEST_F(NarDisturbedTest, LeavesNoDescriptorOpen) {
  const auto count = [] {
    return ListDirectory("/proc/self/fd", 10000)->size();
  };
  const size_t before = count();
  EXPECT_TRUE(Dump(root_).ok());
  EXPECT_FALSE(WriteNar(root_, {}, [](std::string_view) {
                 return absl::AbortedError("full");
               }).ok());
  fs::remove(root_ + "/tree/leaf");
  ASSERT_EQ(mkfifo((root_ + "/tree/leaf").c_str(), 0600), 0);
  EXPECT_FALSE(Dump(root_).ok());
  EXPECT_EQ(count(), before);
}
#endif

TEST(NarCaseHackTest, RefusesNamesThatItMakesEqual) {
  const TemporaryDirectory dir;
  Put(dir / "foo", "1");
  Put(dir / "foo~nix~case~hack~1", "2");
  const absl::Status status = Dump(dir.path(), {.case_hack = true}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_TRUE(IsPathsFault(status));
  EXPECT_TRUE(Dump(dir.path(), {.case_hack = false}).ok());
}

TEST(NarCaseHackTest, RefusesANameThatItMakesEmpty) {
  const TemporaryDirectory dir;
  Put(dir / "~nix~case~hack~1", "1");
  EXPECT_EQ(Dump(dir.path(), {.case_hack = true}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace nixq
