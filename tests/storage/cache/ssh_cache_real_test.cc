// SshCache with the real nix, ssh and sshd, and a second store that requires
// signatures.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/cache/ssh_cache.h"
#include "tests/support/private_nix.h"
#include "tests/support/remote_store.h"
#include "tests/support/sshd.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

// The parameter is the scheme.
class SshCacheRealTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto nix = PrivateNix::Create();
    ASSERT_TRUE(nix.ok()) << nix.status();
    nix_ = *std::move(nix);
    MakeKey("good");
    MakeKey("strange");
    auto store = RemoteStore::Start(
        base_ / "r", nix_->store_dir(),
        {.trusted_public_keys = {ReadKey("good.public")},
         .substituters = {"file://" + base_.path() + "/cache"}});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto sshd = Sshd::Start(base_ / "sshd", store_->session_environment());
    ASSERT_TRUE(sshd.ok()) << sshd.status();
    sshd_ = *std::move(sshd);
  }

  void MakeKey(const std::string& name) {
    const auto made =
        nix_->Run({"nix-store", "--generate-binary-cache-key", name,
                   base_ / (name + ".secret"), base_ / (name + ".public")});
    ASSERT_TRUE(made.ok()) << made.status();
  }
  std::string ReadKey(const std::string& name) {
    std::string key;
    std::ifstream(base_ / name) >> key;
    return key;
  }
  StorePath Build(const std::string& expression) {
    const auto built = nix_->Build(expression);
    EXPECT_TRUE(built.ok()) << built.status();
    return built->front();
  }
  void Sign(const StorePath& path, const std::string& key = "good") {
    const auto done =
        nix_->Run({"nix", "store", "sign", "--recursive", "--key-file",
                   base_ / (key + ".secret"), nix_->Print(path)});
    ASSERT_TRUE(done.ok()) << done.status();
  }
  StorePath BuildSigned(const std::string& expression) {
    StorePath path = Build(expression);
    Sign(path);
    return path;
  }
  std::vector<StorePath> Closure(const StorePath& path) {
    std::vector<StorePath> paths;
    const auto lines =
        nix_->Run({"nix-store", "--query", "--requisites", nix_->Print(path)});
    EXPECT_TRUE(lines.ok()) << lines.status();
    const std::string text = lines.value_or("");
    for (std::string_view line : SplitWords(text)) {
      paths.push_back(*nix_->store_dir().ParsePath(line));
    }
    return paths;
  }
  StorePath BigFile(size_t bytes) {
    std::mt19937_64 random(bytes);
    std::string text;
    while (text.size() < bytes) {
      const uint64_t number = random();
      text.append(reinterpret_cast<const char*>(&number), sizeof number);
    }
    const auto path = nix_->AddFile("big", text);
    EXPECT_TRUE(path.ok()) << path.status();
    return *path;
  }

  SshOptions Options() {
    SshOptions options{.store_dir = nix_->store_dir(),
                       .url = sshd_->Url(GetParam()),
                       .key_file = sshd_->key_file(),
                       .known_hosts_file = sshd_->known_hosts_file(),
                       .ssh_options = {},
                       .remote_program = "",
                       .remote_store = "",
                       .environment = nix_->environment()};
    options.remote_roots_directory = store_->roots_dir();
    options.sender = "laptop-1";
    return options;
  }
  SshCache Cache(const SshOptions& options) {
    auto cache = SshCache::Make(options);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  std::vector<Code> Copy(const SshOptions& options,
                         const std::vector<StorePath>& paths) {
    outcomes_ = Cache(options).Copy(
        paths,
        [this](uint64_t bytes) {
          bytes_ = bytes;
          if (on_progress_) on_progress_();
        },
        never_);
    std::vector<Code> codes;
    for (const CopyOutcome& outcome : outcomes_) {
      codes.push_back(outcome.status.code());
    }
    return codes;
  }
  std::string Said() { return outcomes_.front().status.ToString(); }
  bool Blamed() { return IsPathsFault(outcomes_.front().status); }

  TemporaryDirectory base_;
  std::unique_ptr<PrivateNix> nix_;
  std::unique_ptr<RemoteStore> store_;
  std::unique_ptr<Sshd> sshd_;
  Cancellation never_;
  std::vector<CopyOutcome> outcomes_;
  uint64_t bytes_ = 0;
  std::function<void()> on_progress_;
};

TEST_P(SshCacheRealTest, SignedClosureArrives) {
  const StorePath top = BuildSigned(DiamondExpression("arrives"));
  const auto closure = Closure(top);
  ASSERT_EQ(closure.size(), 4u);
  ASSERT_TRUE(Cache(Options()).Check(never_).ok());
  EXPECT_THAT(Copy(Options(), {top}), ElementsAre(Code::kOk)) << Said();
  for (const StorePath& path : closure) EXPECT_TRUE(store_->IsValid(path));
  const absl::Status verified = store_->Verify(top);
  EXPECT_TRUE(verified.ok()) << verified;
  // What is there already is there.
  EXPECT_THAT(Copy(Options(), closure), Each(Code::kOk)) << Said();
}

TEST_P(SshCacheRealTest, ThroughTheNixDaemonHere) {
  ASSERT_TRUE(nix_->StartDaemon().ok());
  const StorePath path = BuildSigned(SimpleExpression("by-daemon"));
  SshOptions options = Options();
  options.environment.emplace_back("NIX_REMOTE=daemon");
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kOk)) << Said();
  EXPECT_TRUE(store_->IsValid(path));
}

TEST_P(SshCacheRealTest, WithoutClosureReferencesMustBeThere) {
  const StorePath top = BuildSigned(ChainExpression("bare", 2));
  const auto closure = Closure(top);
  ASSERT_EQ(closure.size(), 2u);
  SshOptions options = Options();
  options.closure = false;
  EXPECT_THAT(Copy(options, {top}), Each(::testing::Ne(Code::kOk)));
  EXPECT_TRUE(Blamed()) << Said();
  EXPECT_FALSE(store_->IsValid(top));
  // The closure is in order, references first.
  for (const StorePath& path : closure) {
    EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kOk)) << Said();
  }
  EXPECT_TRUE(store_->IsValid(top));
}

TEST_P(SshCacheRealTest, UnsignedPathIsRefusedAndNoOther) {
  std::vector<StorePath> paths;
  for (int i = 0; i < 5; ++i) {
    paths.push_back(Build(SimpleExpression(absl::StrFormat("some-%d", i))));
    if (i != 3) Sign(paths.back());
  }
  Copy(Options(), paths);
  ASSERT_EQ(outcomes_.size(), paths.size());
  for (size_t i = 0; i < paths.size(); ++i) {
    const absl::Status& status = outcomes_[i].status;
    EXPECT_EQ(outcomes_[i].path, paths[i]);
    EXPECT_EQ(status.code(), i == 3 ? Code::kPermissionDenied : Code::kOk)
        << status;
    EXPECT_EQ(IsPathsFault(status), i == 3);
    EXPECT_EQ(store_->IsValid(paths[i]), i != 3);
  }
  EXPECT_THAT(outcomes_[3].status.ToString(), HasSubstr(paths[3].base_name()));
}

TEST_P(SshCacheRealTest, WhoseFaultAMissingSignatureIs) {
  const StorePath unsigned_path = Build(SimpleExpression("unsigned"));
  EXPECT_THAT(Copy(Options(), {unsigned_path}),
              ElementsAre(Code::kPermissionDenied));
  EXPECT_TRUE(Blamed()) << Said();

  const StorePath strange = Build(SimpleExpression("strange"));
  Sign(strange, "strange");
  EXPECT_THAT(Copy(Options(), {strange}), ElementsAre(Code::kPermissionDenied));
  EXPECT_FALSE(Blamed()) << Said();
  EXPECT_THAT(Said(), HasSubstr("trusted-public-keys"));

  EXPECT_THAT(Copy(Options(), {strange, unsigned_path}),
              Each(Code::kPermissionDenied));
  EXPECT_FALSE(Blamed()) << Said();
}

TEST_P(SshCacheRealTest, FlippedByteIsRefusedAsCorrupt) {
  const StorePath good = BuildSigned(SimpleExpression("good"));
  const StorePath bad = BuildSigned(SimpleExpression("bad"));
  const std::string file = nix_->Print(bad);
  ASSERT_EQ(chmod(file.c_str(), 0644), 0);
  {
    std::fstream stream(file, std::ios::in | std::ios::out);
    const char first = static_cast<char>(stream.get());
    stream.seekp(0);
    stream.put(static_cast<char>(first ^ 1));
  }
  ASSERT_EQ(chmod(file.c_str(), 0444), 0);
  EXPECT_THAT(Copy(Options(), {bad, good}),
              ElementsAre(Code::kDataLoss, Code::kOk))
      << Said();
  EXPECT_TRUE(Blamed());
  EXPECT_FALSE(store_->IsValid(bad));
  EXPECT_TRUE(store_->IsValid(good));
}

TEST_P(SshCacheRealTest, PathThatIsNotHere) {
  const StorePath good = BuildSigned(SimpleExpression("here"));
  const StorePath gone =
      *StorePath::FromBaseName("00000000000000000000000000000000-gone");
  EXPECT_THAT(Copy(Options(), {gone, good}),
              ElementsAre(Code::kNotFound, Code::kOk))
      << Said();
  EXPECT_TRUE(Blamed());
  EXPECT_TRUE(store_->IsValid(good));
}

TEST_P(SshCacheRealTest, PinsOutliveTheReceiversCollector) {
  const StorePath pinned = BuildSigned(ChainExpression("pinned", 3));
  const StorePath loose = BuildSigned(SimpleExpression("loose"));
  SshOptions options = Options();
  EXPECT_THAT(Copy(options, {loose}), ElementsAre(Code::kOk)) << Said();
  options.pin_remote = true;
  ASSERT_TRUE(Cache(options).Check(never_).ok());
  EXPECT_THAT(Copy(options, {pinned}), ElementsAre(Code::kOk)) << Said();
  ASSERT_TRUE(store_->IsValid(loose));
  const absl::Status collected = store_->CollectGarbage();
  ASSERT_TRUE(collected.ok()) << collected;
  EXPECT_FALSE(store_->IsValid(loose));
  for (const StorePath& path : Closure(pinned)) {
    EXPECT_TRUE(store_->IsValid(path)) << path.base_name();
  }
}

TEST_P(SshCacheRealTest, PruneLetsOldPinsGo) {
  const StorePath old = BuildSigned(SimpleExpression("old"));
  const StorePath young = BuildSigned(SimpleExpression("young"));
  SshOptions options = Options();
  options.pin_remote = true;
  EXPECT_THAT(Copy(options, {old, young}), Each(Code::kOk)) << Said();
  const std::string link = store_->roots_dir() + "/laptop-1/" + old.base_name();
  const auto aged = nix_->Run({"touch", "-h", "-d", "2020-01-01", link});
  ASSERT_TRUE(aged.ok()) << aged.status();
  const auto pruned = Cache(options).PruneRemote(absl::Hours(720), never_);
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_EQ(*pruned, 1);
  ASSERT_TRUE(store_->CollectGarbage().ok());
  EXPECT_FALSE(store_->IsValid(old));
  EXPECT_TRUE(store_->IsValid(young));
}

TEST_P(SshCacheRealTest, SendingAgainRenewsThePin) {
  const StorePath path = BuildSigned(SimpleExpression("again"));
  SshOptions options = Options();
  options.pin_remote = true;
  EXPECT_THAT(Copy(options, {path}), Each(Code::kOk)) << Said();
  const std::string link =
      store_->roots_dir() + "/laptop-1/" + path.base_name();
  ASSERT_TRUE(nix_->Run({"touch", "-h", "-d", "2020-01-01", link}).ok());
  EXPECT_THAT(Copy(options, {path}), Each(Code::kOk)) << Said();
  const auto pruned = Cache(options).PruneRemote(absl::Hours(720), never_);
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_EQ(*pruned, 0);
}

// The signature is in the cache only, so that what arrives came from there.
TEST_P(SshCacheRealTest, ReceiverFetchesWhatItCan) {
  const StorePath path = Build(SimpleExpression("substitute"));
  const auto uploaded =
      nix_->Run({"nix", "copy", "--to",
                 "file://" + base_.path() +
                     "/cache?secret-key=" + base_.path() + "/good.secret",
                 nix_->Print(path)});
  ASSERT_TRUE(uploaded.ok()) << uploaded.status();
  EXPECT_THAT(Copy(Options(), {path}), ElementsAre(Code::kPermissionDenied));
  SshOptions options = Options();
  options.substitute_on_destination = true;
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kOk)) << Said();
  EXPECT_TRUE(store_->IsValid(path));
}

TEST_P(SshCacheRealTest, MachineThatIsAwayAndComesBack) {
  const StorePath path = BuildSigned(SimpleExpression("away"));
  SshOptions options = Options();
  sshd_->Stop();
  const SshCache cache = Cache(options);
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kUnavailable));
  EXPECT_FALSE(Blamed());
  EXPECT_TRUE(absl::IsUnavailable(cache.Check(never_)));
  EXPECT_TRUE(
      absl::IsUnavailable(cache.PruneRemote(absl::Hours(1), never_).status()));
  options.pin_remote = true;
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kUnavailable));

  const absl::Status restarted = sshd_->Restart();
  ASSERT_TRUE(restarted.ok()) << restarted;
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kOk)) << Said();
}

TEST_P(SshCacheRealTest, NixDaemonThereIsAway) {
  const StorePath path = BuildSigned(SimpleExpression("no-daemon"));
  const StorePath other = BuildSigned(SimpleExpression("no-daemon-either"));
  store_->StopDaemon();
  EXPECT_THAT(Copy(Options(), {path, other}), Each(Code::kUnavailable));
  EXPECT_FALSE(Blamed()) << Said();
  ASSERT_TRUE(store_->StartDaemon().ok());
  EXPECT_THAT(Copy(Options(), {path, other}), Each(Code::kOk)) << Said();
}

TEST_P(SshCacheRealTest, HostWithAnotherKeyIsNotSpokenTo) {
  const StorePath path = BuildSigned(SimpleExpression("imposter"));
  std::ofstream(base_ / "nobody-known").flush();
  for (const std::string& known :
       {sshd_->wrong_known_hosts_file(), base_ / "nobody-known"}) {
    SshOptions options = Options();
    options.known_hosts_file = known;
    const SshCache cache = Cache(options);
    EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kUnauthenticated));
    EXPECT_FALSE(Blamed());
    EXPECT_TRUE(absl::IsUnauthenticated(cache.Check(never_)));
    EXPECT_TRUE(absl::IsUnauthenticated(
        cache.PruneRemote(absl::Hours(1), never_).status()));
    // Nothing was learnt.
    EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kUnauthenticated));
  }
  EXPECT_FALSE(store_->IsValid(path));
}

TEST_P(SshCacheRealTest, KeyThatTheHostDoesNotKnow) {
  const StorePath path = BuildSigned(SimpleExpression("stranger"));
  SshOptions options = Options();
  for (const std::string& key :
       {sshd_->strangers_key_file(), base_ / "no-such-key"}) {
    options.key_file = key;
    EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kUnauthenticated))
        << Said();
    EXPECT_TRUE(absl::IsUnauthenticated(Cache(options).Check(never_)));
  }
}

TEST_P(SshCacheRealTest, NoNixThere) {
  const StorePath path = BuildSigned(SimpleExpression("no-nix"));
  SshOptions options = Options();
  for (const char* program : {"no-such-nix", "/no/such/nix"}) {
    options.remote_program = program;
    EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kUnavailable));
    EXPECT_THAT(Said(), HasSubstr("remote program"));
  }
}

TEST_P(SshCacheRealTest, StoreElsewhereOnThatMachine) {
  const StorePath path = BuildSigned(SimpleExpression("elsewhere"));
  SshOptions options = Options();
  options.remote_store = "local?root=" + base_.path() + "/third";
  // That is a store, not a daemon: it trusts whoever is let in.
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kOk)) << Said();
  EXPECT_TRUE(std::filesystem::exists(base_.path() + "/third/nix/store/" +
                                      path.base_name()));
  EXPECT_FALSE(store_->IsValid(path));
}

TEST_P(SshCacheRealTest, ConnectionThatBreaksInTheMiddle) {
  const StorePath big = BigFile(64 << 20);
  SshOptions options = Options();
  options.stall_limit = absl::Seconds(30);  // a sign of life every 2 MB
  int broken = 0;
  on_progress_ = [&] {
    if (bytes_ > 4 << 20 && ++broken == 1) sshd_->KillSessions();
  };
  EXPECT_THAT(Copy(options, {big}), ElementsAre(Code::kUnavailable)) << Said();
  ASSERT_GE(broken, 1);
  EXPECT_FALSE(store_->IsValid(big));
  on_progress_ = nullptr;
  EXPECT_THAT(Copy(options, {big}), ElementsAre(Code::kOk)) << Said();
  EXPECT_TRUE(store_->IsValid(big));
}

TEST_P(SshCacheRealTest, ReceiverThatHangsInTheMiddle) {
  const StorePath big = BigFile(64 << 20);
  SshOptions options = Options();
  options.stall_limit = absl::Seconds(6);
  int stopped = 0;
  on_progress_ = [&] {
    if (bytes_ < 4 << 20 || ++stopped > 1) return;
    for (int pid : sshd_->Processes()) kill(pid, SIGSTOP);
  };
  EXPECT_THAT(Copy(options, {big}), ElementsAre(Code::kDeadlineExceeded))
      << Said();
  ASSERT_GE(stopped, 1);
  EXPECT_FALSE(Blamed());
}

TEST_P(SshCacheRealTest, CancelledInTheMiddle) {
  const StorePath big = BigFile(64 << 20);
  SshOptions options = Options();
  options.stall_limit = absl::Seconds(30);
  Cancellation cancel;
  const auto outcomes = Cache(options).Copy(
      {big}, [&](uint64_t) { cancel.Cancel(); }, cancel);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].status.code(), Code::kCancelled) << outcomes[0].status;
  EXPECT_FALSE(store_->IsValid(big));
}

TEST_P(SshCacheRealTest, AccountThatMayOnlyServeItsStore) {
  const StorePath path = BuildSigned(SimpleExpression("restricted"));
  sshd_->set_more_configuration(GetParam() == "ssh"
                                    ? "ForceCommand nix-store --serve --write\n"
                                    : "ForceCommand nix-daemon --stdio\n");
  ASSERT_TRUE(sshd_->Restart().ok());
  SshOptions options = Options();
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kOk)) << Said();
  options.pin_remote = true;
  EXPECT_THAT(Copy(options, {path}), ElementsAre(Code::kPermissionDenied));
  EXPECT_THAT(Said(), HasSubstr(store_->roots_dir()));
  EXPECT_THAT(Said(), HasSubstr("pin-remote = false"));
  EXPECT_FALSE(Blamed());
}

INSTANTIATE_TEST_SUITE_P(Schemes, SshCacheRealTest,
                         ::testing::Values("ssh", "ssh-ng"),
                         [](const auto& scheme) {
                           return scheme.param == "ssh" ? "ssh" : "ssh_ng";
                         });

}  // namespace
}  // namespace nixq
