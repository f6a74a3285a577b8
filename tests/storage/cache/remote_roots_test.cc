#include "storage/cache/remote_roots.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

StorePath Path(int number) {
  return *StorePath::FromBaseName(absl::StrFormat("%032d-p+._?=-x", number));
}

std::vector<StorePath> Paths(int count) {
  std::vector<StorePath> paths;
  paths.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) paths.push_back(Path(i));
  return paths;
}

// Runs the scripts as sshd would, by each shell that is here.
class RemoteRootsTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::string RunRaw(const std::string& script) {
    SubprocessOptions run;
    run.argv = {"/bin/" + GetParam(), "-s"};
    run.environment = {"PATH=" + tools_ + "/usr/bin:/bin"};
    run.standard_input = script;
    const auto result = RunSubprocess(run, never_);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return "";
    error_ = result->standard_error;
    return result->standard_output;
  }
  absl::StatusOr<RootsAnswer> Run(const std::string& script) {
    return ParseRootsAnswer("motd\n" + RunRaw(script), roots_);
  }
  absl::StatusOr<RootsAnswer> Pin(const std::vector<StorePath>& paths) {
    return Run(PinScript(roots_, paths));
  }
  absl::StatusOr<RootsAnswer> Prune(absl::Duration age) {
    return Run(PruneScript(roots_, age));
  }
  std::string Own() { return roots_.directory + "/" + roots_.sender; }
  std::string Link(const StorePath& path) {
    return Own() + "/" + path.base_name();
  }
  std::string Target(const std::string& link) {
    std::error_code error;
    return std::filesystem::read_symlink(link, error).string();
  }
  bool Exists(const std::string& file) {
    return std::filesystem::exists(std::filesystem::symlink_status(file));
  }
  void MakeOld(const std::string& file) {
    const timespec times[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  }
  bool IsOld(const std::string& file) {
    struct stat st;
    EXPECT_EQ(lstat(file.c_str(), &st), 0) << file;
    return st.st_mtime == 1'000'000'000;
  }
  size_t Count() {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(Own()), {}));
  }

  TemporaryDirectory base_;
  RemoteRoots roots_{base_ / "gc roots/it's $(here)", "laptop-1",
                     *StoreDir::Parse("/nix/store")};
  std::string tools_;  // searched first; ends in ':'
  std::string error_;
  Cancellation never_;
};

TEST_P(RemoteRootsTest, PinsAndRenews) {
  ASSERT_TRUE(Pin(Paths(250)).ok()) << error_;
  EXPECT_EQ(Count(), 250u);
  for (const StorePath& path : Paths(250)) {
    EXPECT_EQ(Target(Link(path)), "/nix/store/" + path.base_name());
  }
  MakeOld(Link(Path(1)));
  MakeOld(Link(Path(2)));
  ASSERT_TRUE(Pin({Path(2), Path(300)}).ok()) << error_;
  EXPECT_TRUE(IsOld(Link(Path(1))));
  EXPECT_FALSE(IsOld(Link(Path(2))));
  EXPECT_EQ(Count(), 251u);
}

TEST_P(RemoteRootsTest, RenewsWithoutTouch) {
  const std::string tools = base_ / "tools";
  std::filesystem::create_directory(tools);
  std::ofstream(tools + "/touch") << "#!/bin/sh\nexit 1\n";
  ASSERT_EQ(chmod((tools + "/touch").c_str(), 0755), 0);
  ASSERT_TRUE(Pin({Path(1)}).ok()) << error_;
  MakeOld(Link(Path(1)));
  tools_ = tools + ":";
  ASSERT_TRUE(Pin({Path(1)}).ok()) << error_;
  EXPECT_FALSE(IsOld(Link(Path(1))));
  EXPECT_EQ(Target(Link(Path(1))), "/nix/store/" + Path(1).base_name());
  EXPECT_EQ(Count(), 1u);
}

TEST_P(RemoteRootsTest, LinkThatPointsElsewhereIsMadeRight) {
  std::filesystem::create_directories(Own());
  std::filesystem::create_directory(base_ / "victim");
  std::filesystem::create_symlink(base_ / "victim", Link(Path(1)));
  ASSERT_TRUE(Pin({Path(1)}).ok()) << error_;
  EXPECT_EQ(Target(Link(Path(1))), "/nix/store/" + Path(1).base_name());
  EXPECT_TRUE(std::filesystem::is_empty(base_ / "victim"));
}

TEST_P(RemoteRootsTest, FilesAndDirectoriesAreLeftAlone) {
  std::filesystem::create_directories(Own());
  std::ofstream(Link(Path(1))) << "precious";
  std::filesystem::create_directory(Link(Path(2)));
  const auto answer = Pin(Paths(4));
  ASSERT_TRUE(answer.ok()) << answer.status() << error_;
  EXPECT_THAT(answer->taken,
              ElementsAre(Path(1).base_name(), Path(2).base_name()));
  EXPECT_EQ(Target(Link(Path(3))), "/nix/store/" + Path(3).base_name());
  EXPECT_EQ(std::filesystem::file_size(Link(Path(1))), 8u);
  EXPECT_TRUE(std::filesystem::is_empty(Link(Path(2))));
}

TEST_P(RemoteRootsTest, SymlinkedDirectoryIsRefused) {
  std::filesystem::create_directories(base_ / "elsewhere");
  std::filesystem::create_directories(base_ / "gc roots");
  std::filesystem::create_symlink(base_ / "elsewhere", roots_.directory);
  const std::string link = base_ / "elsewhere/" + Path(1).base_name();
  std::filesystem::create_symlink("/nix/store/" + Path(1).base_name(), link);
  MakeOld(link);
  for (const auto& answer : {Pin({Path(2)}), Prune(absl::Hours(1))}) {
    EXPECT_TRUE(absl::IsPermissionDenied(answer.status())) << answer.status();
    EXPECT_THAT(answer.status().ToString(), HasSubstr("symlink"));
  }
  EXPECT_TRUE(Exists(link));
  EXPECT_FALSE(Exists(base_ / "elsewhere/" + Path(2).base_name()));
}

TEST_P(RemoteRootsTest, SymlinkAboveTheDirectoryIsFine) {
  std::filesystem::create_directories(base_ / "real");
  std::filesystem::create_symlink(base_ / "real", base_ / "gc roots");
  ASSERT_TRUE(Pin({Path(1)}).ok()) << error_;
  EXPECT_TRUE(Exists(Link(Path(1))));
}

TEST_P(RemoteRootsTest, FileInsteadOfTheDirectoryIsRefused) {
  std::filesystem::create_directories(base_ / "gc roots");
  std::ofstream(roots_.directory) << "precious";
  for (const auto& answer : {Pin({Path(2)}), Prune(absl::Hours(1))}) {
    EXPECT_TRUE(absl::IsPermissionDenied(answer.status())) << answer.status();
  }
  EXPECT_EQ(std::filesystem::file_size(roots_.directory), 8u);
}

TEST_P(RemoteRootsTest, SaysWhenItMayNotWrite) {
  // A file where a parent should be: nobody, not even root, can go on.
  std::ofstream(base_ / "gc roots") << "x";
  const auto answer = Pin({Path(1)});
  EXPECT_TRUE(absl::IsPermissionDenied(answer.status())) << answer.status();
  EXPECT_THAT(answer.status().ToString(), HasSubstr(roots_.directory));
}

TEST_P(RemoteRootsTest, SymlinkInPlaceOfOurDirectoryIsRefused) {
  std::filesystem::create_directories(roots_.directory);
  std::filesystem::create_directories(base_ / "elsewhere");
  std::filesystem::create_symlink(base_ / "elsewhere", Own());
  const std::string link = base_ / "elsewhere/" + Path(1).base_name();
  std::filesystem::create_symlink("/nix/store/" + Path(1).base_name(), link);
  MakeOld(link);
  for (const auto& answer : {Pin({Path(2)}), Prune(absl::Hours(1))}) {
    EXPECT_TRUE(absl::IsPermissionDenied(answer.status())) << answer.status();
  }
  EXPECT_TRUE(Exists(link));
  EXPECT_FALSE(Exists(base_ / "elsewhere/" + Path(2).base_name()));
}

// The receiver's own roots are holds of its own queue, perhaps, and another
// sender has an age of its own.
TEST_P(RemoteRootsTest, PruneLeavesTheReceiversAndOtherSendersRoots) {
  const RemoteRoots other{roots_.directory, "laptop-2", roots_.store_dir};
  ASSERT_TRUE(Run(PinScript(other, {Path(1)})).ok());
  ASSERT_TRUE(Pin({Path(1)}).ok());
  const std::string own = roots_.directory + "/" + Path(1).base_name();
  const std::string others =
      roots_.directory + "/laptop-2/" + Path(1).base_name();
  std::filesystem::create_symlink("/nix/store/" + Path(1).base_name(), own);
  for (const std::string& link : {own, others, Link(Path(1))}) MakeOld(link);
  const auto answer = Prune(absl::Hours(1));
  ASSERT_TRUE(answer.ok()) << answer.status() << error_;
  EXPECT_EQ(answer->count, 1);
  EXPECT_TRUE(Exists(own));
  EXPECT_TRUE(Exists(others));
  EXPECT_FALSE(Exists(Link(Path(1))));
}

// A name that is missing must not make all roots ours.
TEST_P(RemoteRootsTest, WithoutASenderNothingIsDone) {
  std::filesystem::create_directories(roots_.directory);
  const std::string link = roots_.directory + "/" + Path(1).base_name();
  std::filesystem::create_symlink("/nix/store/" + Path(1).base_name(), link);
  MakeOld(link);
  roots_.sender = "";
  EXPECT_FALSE(Prune(absl::Hours(1)).ok());
  EXPECT_FALSE(Pin({Path(2)}).ok());
  EXPECT_TRUE(Exists(link));
}

TEST_P(RemoteRootsTest, PruneRemovesOldRootsOnly) {
  ASSERT_TRUE(Pin(Paths(5)).ok());
  const auto add = [&](const std::string& name, const std::string& target) {
    std::string link = Own() + "/" + name;
    std::filesystem::create_symlink(target, link);
    MakeOld(link);
    return link;
  };
  MakeOld(Link(Path(1)));
  MakeOld(Link(Path(3)));
  const std::string alias =
      add("any name", "/nix/store/" + Path(7).base_name());
  const std::string file_in_path =
      add("bin", "/nix/store/" + Path(7).base_name() + "/bin");
  const std::string elsewhere = add("passwd", "/etc/passwd");
  const std::string store = add("store", "/nix/store");
  const std::string up = add("up", "/nix/store/..");
  std::ofstream(Own() + "/file") << "x";
  MakeOld(Own() + "/file");
  const std::string below = Own() + "/below";
  std::filesystem::create_directory(below);
  std::filesystem::create_symlink("/nix/store/" + Path(8).base_name(),
                                  below + "/" + Path(8).base_name());
  MakeOld(below + "/" + Path(8).base_name());
  MakeOld(below);

  const auto answer = Prune(absl::Hours(24 * 30));
  ASSERT_TRUE(answer.ok()) << answer.status() << error_;
  EXPECT_EQ(answer->count, 3);
  EXPECT_FALSE(Exists(Link(Path(1))));
  EXPECT_FALSE(Exists(Link(Path(3))));
  EXPECT_FALSE(Exists(alias));
  for (const std::string& kept :
       {Link(Path(0)), Link(Path(2)), Link(Path(4)), file_in_path, elsewhere,
        store, up, Own() + "/file", below + "/" + Path(8).base_name()}) {
    EXPECT_TRUE(Exists(kept)) << kept;
  }
}

// Names that `find` prints on several lines must not pass for other names.
TEST_P(RemoteRootsTest, PruneIsNotFooledByNewlines) {
  ASSERT_TRUE(Pin({Path(1)}).ok());
  const std::string odd = Own() + "/x\n" + Path(1).base_name();
  std::filesystem::create_symlink("/nix/store/" + Path(1).base_name(), odd);
  MakeOld(odd);
  const auto answer = Prune(absl::Hours(1));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->count, 0);
  EXPECT_TRUE(Exists(Link(Path(1))));
}

TEST_P(RemoteRootsTest, PruneWithoutADirectoryIsNothing) {
  const auto answer = Prune(absl::Hours(1));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->count, 0);
  EXPECT_FALSE(Exists(base_ / "gc roots"));
}

// A connection that breaks must not leave half a script running.
TEST_P(RemoteRootsTest, AScriptCutShortDoesNothing) {
  ASSERT_TRUE(Pin({Path(1)}).ok());
  MakeOld(Link(Path(1)));
  const std::string script = PruneScript(roots_, absl::Hours(1));
  const size_t last_line = script.rfind("main");
  for (size_t length = 0; length <= last_line + 3; length += 7) {
    const std::string output = RunRaw(script.substr(0, length));
    EXPECT_FALSE(ParseRootsAnswer(output, roots_).ok()) << length;
    ASSERT_TRUE(Exists(Link(Path(1)))) << length;
  }
}

TEST_P(RemoteRootsTest, WithoutPathsItTellsWhetherItCould) {
  ASSERT_TRUE(Pin({}).ok()) << error_;
  EXPECT_TRUE(std::filesystem::is_directory(Own()));
  EXPECT_THAT(error_, IsEmpty());
}

// Not every machine has every shell.
std::vector<std::string> Shells() {
  std::vector<std::string> shells;
  for (const char* shell : {"sh", "bash", "dash", "zsh", "ksh", "mksh"}) {
    if (std::filesystem::exists(std::string("/bin/") + shell)) {
      shells.emplace_back(shell);
    }
  }
  return shells;
}
INSTANTIATE_TEST_SUITE_P(Shells, RemoteRootsTest, ::testing::ValuesIn(Shells()),
                         [](const auto& shell) { return shell.param; });

}  // namespace
}  // namespace nixq
