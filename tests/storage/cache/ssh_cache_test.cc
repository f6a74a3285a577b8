// SshCache with programs of the tests' own in place of nix and ssh. With the
// real ones: ssh_cache_real_test.cc.
#include "storage/cache/ssh_cache.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "tests/support/sshd.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Code = absl::StatusCode;

StorePath Path(int number) {
  return *StorePath::FromBaseName(absl::StrFormat("%032d-path", number));
}

std::vector<StorePath> Paths(int count) {
  std::vector<StorePath> paths;
  paths.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) paths.push_back(Path(i));
  return paths;
}

class SshCacheTest : public ::testing::Test {
 protected:
  SshOptions Options() {
    SshOptions options{.store_dir = *StoreDir::Parse("/nix/store"),
                       .url = "ssh://joe@host:2222",
                       .key_file = "",
                       .known_hosts_file = "",
                       .ssh_options = {},
                       .remote_program = "",
                       .remote_store = "",
                       .environment = {}};
    options.environment = {"PATH=" + base_.path() + ":/usr/bin:/bin",
                           "HOME=" + base_.path(), "D=" + base_.path()};
    options.remote_roots_directory = base_ / "roots";
    options.sender = "laptop-1";
    return options;
  }
  SshCache Cache(const SshOptions& options) {
    auto cache = SshCache::Make(options);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  // A program in the PATH of the children; $D is the test's directory.
  void Program(const std::string& name, const std::string& script) {
    std::ofstream(base_ / name) << "#!/bin/sh\n" << script << "\n";
    ASSERT_EQ(chmod((base_ / name).c_str(), 0755), 0);
  }
  // Writes a file that a program of ours may `cat`.
  void Text(const std::string& name, const std::string& text) {
    std::ofstream(base_ / name) << text;
  }
  std::vector<std::string> Lines(const std::string& name) {
    std::vector<std::string> lines =
        Split(ReadFile(base_ / name, 1 << 20).value_or(""), '\n');
    if (!lines.empty() && lines.back().empty()) lines.pop_back();
    return lines;
  }
  // Until all of these processes are gone.
  bool AllEnd(const std::string& pids_file) {
    const std::vector<std::string> pids = Lines(pids_file);
    EXPECT_FALSE(pids.empty());
    for (const std::string& pid : pids) {
      const std::string stat = "/proc/" + pid + "/stat";
      const auto runs = [&] {
        const auto text = ReadFile(stat, 4096);
        return text.ok() && text->find(") Z ") == std::string::npos;
      };
      for (int i = 0; i < 1000 && runs(); ++i) poll(nullptr, 0, 10);
      if (runs()) return false;
    }
    return true;
  }
  std::vector<Code> Copy(const SshOptions& options,
                         const std::vector<StorePath>& paths) {
    outcomes_ = Cache(options).Copy(
        paths, [this](uint64_t bytes) { progress_.push_back(bytes); }, cancel_);
    std::vector<Code> codes;
    for (const CopyOutcome& outcome : outcomes_) {
      codes.push_back(outcome.status.code());
    }
    return codes;
  }

  TemporaryDirectory base_;
  Cancellation cancel_;
  std::vector<CopyOutcome> outcomes_;
  std::vector<uint64_t> progress_;
};

TEST_F(SshCacheTest, CommandLine) {
  Program("nix", "for a do printf '%s\\n' \"$a\"; done > $D/argv");
  EXPECT_THAT(Copy(Options(), Paths(2)), ElementsAre(Code::kOk, Code::kOk));
  EXPECT_THAT(Lines("argv"),
              ElementsAre("--extra-experimental-features", "nix-command",
                          "copy", "--log-format", "internal-json", "-v", "--to",
                          "ssh://joe@host", "--",
                          "/nix/store/00000000000000000000000000000000-path",
                          "/nix/store/00000000000000000000000000000001-path"));
  SshOptions options = Options();
  options.closure = false;
  options.substitute_on_destination = true;
  EXPECT_THAT(Copy(options, Paths(1)), ElementsAre(Code::kOk));
  EXPECT_THAT(Lines("argv"), Contains("--no-recursive"));
  EXPECT_THAT(Lines("argv"), Contains("--substitute-on-destination"));
}

TEST_F(SshCacheTest, NothingOfOurEnvironmentLeaks) {
  ASSERT_EQ(setenv("NIX_CONFIG", "post-build-hook = /evil", 1), 0);
  ASSERT_EQ(setenv("NIXQ_TEST_SECRET", "secret", 1), 0);
  Program("nix", "env > $D/nix.env");
  Program("ssh", "env > $D/ssh.env; sh -s");
  SshOptions options = Options();
  options.environment.emplace_back("NIX_CONFIG=store = /evil");
  options.environment.emplace_back("SSH_ASKPASS=/evil");
  options.environment.emplace_back("NIX_REMOTE=daemon");
  options.pin_remote = true;
  EXPECT_THAT(Copy(options, Paths(1)), ElementsAre(Code::kOk));
  unsetenv("NIX_CONFIG");
  unsetenv("NIXQ_TEST_SECRET");
  for (const char* file : {"nix.env", "ssh.env"}) {
    const auto variables = Lines(file);
    EXPECT_THAT(variables, Contains("NIX_REMOTE=daemon"));
    EXPECT_THAT(variables, Not(Contains(HasSubstr("evil"))));
    EXPECT_THAT(variables, Not(Contains(HasSubstr("secret"))));
    for (const std::string& variable : variables) {
      const std::string name = variable.substr(0, variable.find('='));
      // The last four are the shell's own.
      EXPECT_THAT((std::vector<std::string>{"PATH", "HOME", "D", "NIX_REMOTE",
                                            "NIX_SSHOPTS", "PWD", "OLDPWD",
                                            "SHLVL", "_"}),
                  Contains(name));
    }
  }
  EXPECT_THAT(Lines("nix.env"),
              Contains(StartsWith("NIX_SSHOPTS=-oBatchMode=yes "
                                  "-oStrictHostKeyChecking=yes ")));
}

TEST_F(SshCacheTest, ErrorsBecomeCodes) {
  struct Row {
    std::string said;
    Code code;
    int processes;  // for a batch of four
  };
  const std::vector<Row> rows = {
      {"ssh: connect to host h port 22: Connection refused", Code::kUnavailable,
       1},
      {"Host key verification failed.", Code::kUnauthenticated, 1},
      {"joe@h: Permission denied (publickey).", Code::kUnauthenticated, 1},
      {"bash: line 1: nix-store: command not found", Code::kUnavailable, 1},
      {"error: writing to file: No space left on device",
       Code::kResourceExhausted, 1},
      {"error: cannot add path '/nix/store/"
       "00000000000000000000000000000009-lib' because it lacks a valid "
       "signature",
       Code::kPermissionDenied, 7},
      {"error: what?", Code::kUnknown, 7},
  };
  Program("nix", "echo x >> $D/runs; cat $D/said >&2; exit 1");
  for (const Row& row : rows) {
    SCOPED_TRACE(row.said);
    std::filesystem::remove(base_ / "runs");
    Text("said", "debug1: noise\n" + row.said +
                     "\n@nix {\"action\":\"msg\",\"level\":0,\"msg\":"
                     "\"error: unexpected end-of-file\"}\n");
    EXPECT_THAT(Copy(Options(), Paths(4)), Each(row.code));
    EXPECT_EQ(Lines("runs").size(), static_cast<size_t>(row.processes));
    for (const CopyOutcome& outcome : outcomes_) {
      EXPECT_FALSE(IsPathsFault(outcome.status));
      EXPECT_THAT(std::string(outcome.status.message()),
                  StartsWith("ssh://joe@host:2222: "));
    }
  }
}

TEST_F(SshCacheTest, OneBadPathStopsNoOther) {
  Program("nix", R"(echo x >> $D/runs
case "$*" in
  *00000000000000000000000000000017-path*)
    echo 'error: it is cursed' >&2; exit 1 ;;
esac)");
  Copy(Options(), Paths(64));
  ASSERT_EQ(outcomes_.size(), 64u);
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(outcomes_[i].path, Path(static_cast<int>(i)));
    EXPECT_EQ(outcomes_[i].status.ok(), i != 17) << i;
  }
  EXPECT_EQ(outcomes_[17].status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(IsPathsFault(outcomes_[17].status));
  EXPECT_THAT(outcomes_[17].status.ToString(), HasSubstr("cursed"));
  EXPECT_LE(Lines("runs").size(), 13u);
}

TEST_F(SshCacheTest, LonePathWithoutSignatures) {
  Program("nix", R"(case "$*" in
  *path-info*) cat $D/info ;;
  *) cat $D/said >&2; exit 1 ;;
esac)");
  Text("said", "error: cannot add path '/nix/store/" + Path(0).base_name() +
                   "' because it lacks a signature by a trusted key\n");
  const std::string path = "\"/nix/store/" + Path(0).base_name() + "\"";
  // Nix 2.8's form and the present one; then an answer that is none.
  for (const std::string& form :
       {"[{\"path\":" + path + ",\"signatures\":[%s]}]",
        "{" + path + ":{\"ca\":null,\"signatures\":[%s]}}"}) {
    const auto info = absl::ParsedFormat<'s'>::New(form);
    ASSERT_NE(info, nullptr);
    Text("info", absl::StrFormat(*info, ""));
    EXPECT_THAT(Copy(Options(), Paths(1)),
                ElementsAre(Code::kPermissionDenied));
    EXPECT_TRUE(IsPathsFault(outcomes_[0].status)) << form;
    Text("info", absl::StrFormat(*info, "\"k:sig\""));
    Copy(Options(), Paths(1));
    EXPECT_FALSE(IsPathsFault(outcomes_[0].status)) << form;
  }
  Text("info", "garbage");
  Copy(Options(), Paths(1));
  EXPECT_FALSE(IsPathsFault(outcomes_[0].status));
}

// The child, its children and theirs, none of which heed SIGTERM.
constexpr char kFamily[] = R"(trap '' TERM
echo $$ >> $D/pids.new
sh -c 'trap "" TERM; echo $$ >> $D/pids.new
  sleep 1000 & echo $! >> $D/pids.new; mv $D/pids.new $D/pids; wait' &
wait; wait; sleep 1000)";

TEST_F(SshCacheTest, SilenceHasALimitForTheWholeFamily) {
  Program("nix", kFamily);
  SshOptions options = Options();
  options.stall_limit = absl::Seconds(2);
  EXPECT_THAT(Copy(options, Paths(8)), Each(Code::kDeadlineExceeded));
  EXPECT_FALSE(IsPathsFault(outcomes_[0].status));
  EXPECT_TRUE(AllEnd("pids"));
}

TEST_F(SshCacheTest, CancellationEndsTheWholeFamily) {
  Program("nix", kFamily);
  std::thread stopper([&] {
    while (!std::filesystem::exists(base_ / "pids")) poll(nullptr, 0, 10);
    cancel_.Cancel();
  });
  EXPECT_THAT(Copy(Options(), Paths(8)), Each(Code::kCancelled));
  stopper.join();
  EXPECT_EQ(outcomes_.size(), 8u);
  EXPECT_TRUE(AllEnd("pids"));
}

TEST_F(SshCacheTest, CancellationEndsTheScriptToo) {
  Program("ssh", kFamily);
  std::thread stopper([&] {
    while (!std::filesystem::exists(base_ / "pids")) poll(nullptr, 0, 10);
    cancel_.Cancel();
  });
  const auto pruned = Cache(Options()).PruneRemote(absl::Hours(1), cancel_);
  stopper.join();
  EXPECT_TRUE(absl::IsCancelled(pruned.status())) << pruned.status();
  EXPECT_TRUE(AllEnd("pids"));
}

TEST_F(SshCacheTest, ProgressKeepsItAliveAndIsReported) {
  // Longer in all than the stall limit.
  Program("nix", R"(
echo '@nix {"action":"start","id":1,"level":3,"text":"","type":100}' >&2
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
  echo '@nix {"action":"result","fields":['$i'00,9999],"id":1,"type":105}' >&2
  sleep 0.5
done)");
  SshOptions options = Options();
  options.stall_limit = absl::Seconds(4);
  EXPECT_THAT(Copy(options, Paths(1)), ElementsAre(Code::kOk));
  ASSERT_EQ(progress_.size(), 12u);
  EXPECT_EQ(progress_.front(), 100u);
  EXPECT_EQ(progress_.back(), 1200u);
}

TEST_F(SshCacheTest, MissingProgramsAreNotThePathsFault) {
  SshOptions options = Options();
  options.nix_program = "no-such-nix";
  EXPECT_THAT(Copy(options, Paths(3)), Each(Code::kUnavailable));
  EXPECT_FALSE(IsPathsFault(outcomes_[0].status));
  EXPECT_THAT(outcomes_[0].status.ToString(), HasSubstr("no-such-nix"));
  EXPECT_TRUE(absl::IsUnavailable(Cache(options).Check(cancel_)));
  options.ssh_program = "no-such-ssh";
  options.pin_remote = true;
  EXPECT_THAT(Copy(options, Paths(3)), Each(Code::kUnavailable));
}

TEST_F(SshCacheTest, RootsAreMadeBeforeTheCopy) {
  Program("nix", "ls $D/roots/laptop-1 > $D/roots-at-copy");
  Program("ssh", "for a do printf '%s\\n' \"$a\"; done > $D/argv; sh -s");
  SshOptions options = Options();
  options.pin_remote = true;
  EXPECT_THAT(Copy(options, Paths(3)), Each(Code::kOk));
  EXPECT_THAT(Lines("roots-at-copy"),
              ElementsAre(Path(0).base_name(), Path(1).base_name(),
                          Path(2).base_name()));
  const auto argv = Lines("argv");
  EXPECT_THAT(argv, Not(Contains(HasSubstr("-path"))));
  EXPECT_THAT(argv, Contains("-oStrictHostKeyChecking=yes"));
  ASSERT_GE(argv.size(), 3u);
  EXPECT_EQ(argv[argv.size() - 3], "--");
  EXPECT_EQ(argv[argv.size() - 2], "joe@host");
  EXPECT_EQ(argv.back(), "/bin/sh -s");
}

TEST_F(SshCacheTest, RootsThatCannotBeMadeAreSaidSo) {
  Program("nix", "echo x > $D/ran");
  SshOptions options = Options();
  options.pin_remote = true;
  const auto denied = [&](const std::string& ssh, const std::string& part) {
    Program("ssh", ssh);
    EXPECT_THAT(Copy(options, Paths(2)), Each(Code::kPermissionDenied)) << ssh;
    const std::string message = outcomes_[0].status.ToString();
    EXPECT_FALSE(IsPathsFault(outcomes_[0].status));
    EXPECT_THAT(message, HasSubstr(base_ / "roots"));
    EXPECT_THAT(message, HasSubstr("pin-remote = false"));
    EXPECT_THAT(message, HasSubstr(part));
  };
  denied("cat > /dev/null; echo nonsense; exit 1", "forced command");
  denied("cat > /dev/null; exit 0", "forced command");
  denied("cat > /dev/null; echo nixq-roots denied", "not permitted");
  EXPECT_FALSE(std::filesystem::exists(base_ / "ran"));
}

TEST_F(SshCacheTest, ScriptsFailAsTheConnectionDoes) {
  struct Row {
    std::string ssh;
    Code code;
  };
  SshOptions options = Options();
  options.pin_remote = true;
  for (const Row& row : std::vector<Row>{
           {"echo 'ssh: connect to host h port 22: Connection refused' >&2; "
            "exit 255",
            Code::kUnavailable},
           {"echo 'Host key verification failed.' >&2; exit 255",
            Code::kUnauthenticated},
           {"echo 'something new' >&2; exit 255", Code::kUnavailable},
           {"echo \"ln: ./x: No space left on device\" >&2; "
            "echo nixq-roots denied",
            Code::kResourceExhausted},
           {"kill -9 $$", Code::kUnavailable}}) {
    SCOPED_TRACE(row.ssh);
    Program("ssh", row.ssh);
    EXPECT_THAT(Copy(options, Paths(2)), Each(row.code));
    EXPECT_EQ(
        Cache(options).PruneRemote(absl::Hours(1), cancel_).status().code(),
        row.code);
  }
}

TEST_F(SshCacheTest, PathWhoseRootCannotBeIsLeftOut) {
  Program("nix", "for a do printf '%s\\n' \"$a\"; done > $D/argv");
  Program("ssh", "sh -s");
  std::filesystem::create_directories(base_ / "roots/laptop-1");
  Text("roots/laptop-1/" + Path(1).base_name(), "precious");
  SshOptions options = Options();
  options.pin_remote = true;
  Copy(options, Paths(3));
  ASSERT_EQ(outcomes_.size(), 3u);
  for (const CopyOutcome& outcome : outcomes_) {
    const bool taken = outcome.path == Path(1);
    EXPECT_EQ(outcome.status.code(),
              taken ? Code::kFailedPrecondition : Code::kOk);
    EXPECT_EQ(IsPathsFault(outcome.status), taken);
  }
  EXPECT_THAT(Lines("argv"), Not(Contains(HasSubstr(Path(1).base_name()))));
}

TEST_F(SshCacheTest, PruneCountsAndRefusesNegativeAges) {
  Program("ssh", "cat > $D/script; echo nixq-roots done 12");
  const auto pruned = Cache(Options()).PruneRemote(absl::Hours(30), cancel_);
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_EQ(*pruned, 12);
  EXPECT_THAT(Lines("script"), Contains("prune 1800"));
  EXPECT_TRUE(absl::IsInvalidArgument(
      Cache(Options()).PruneRemote(-absl::Hours(1), cancel_).status()));
}

TEST_F(SshCacheTest, CheckKnowsBothNamesOfThePing) {
  Program("nix", R"(echo "$*" >> $D/runs
case "$*" in
  *'store ping'*)
    echo "error: 'ping' is not a recognised command" >&2; exit 1 ;;
esac)");
  EXPECT_TRUE(Cache(Options()).Check(cancel_).ok());
  EXPECT_THAT(Lines("runs"),
              ElementsAre(HasSubstr("store ping --store ssh://joe@host"),
                          HasSubstr("store info --store ssh://joe@host")));
}

TEST_F(SshCacheTest, CheckTriesTheRootsOnlyIfWanted) {
  Program("nix", "exit 0");
  Program("ssh", "cat > /dev/null; echo nixq-roots denied");
  SshOptions options = Options();
  EXPECT_TRUE(Cache(options).Check(cancel_).ok());
  options.pin_remote = true;
  EXPECT_TRUE(absl::IsPermissionDenied(Cache(options).Check(cancel_)));
}

}  // namespace
}  // namespace nixq
