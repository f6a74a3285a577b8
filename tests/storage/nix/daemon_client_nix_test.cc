// The daemon client against the Nix that is installed, over its socket and
// over `nix-daemon --stdio`.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/text.h"
#include "storage/nix/closure.h"
#include "storage/nix/daemon_client.h"
#include "tests/support/private_nix.h"

namespace nixq {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

// A key of 64 zero bytes signs nothing, but has the form of a signature.
const std::string kSignature = "test-key-1:" + std::string(86, 'A') + "==";

enum class Transport { kSocket, kStdio };

class NixTest : public ::testing::Test {
 protected:
  void Start(const std::string& settings = "") {
    auto nix = PrivateNix::Create(settings);
    ASSERT_TRUE(nix.ok()) << nix.status();
    nix_ = *std::move(nix);
    absl::Status started = nix_->StartDaemon();
    ASSERT_TRUE(started.ok()) << started;
  }

  std::string Query(const std::string& what, const StorePath& path) {
    auto output = nix_->Run({"nix-store", "--query", what, nix_->Print(path)});
    EXPECT_TRUE(output.ok()) << output.status();
    return output.ok() ? std::string(Trim(*output)) : "";
  }
  std::vector<StorePath> Build(const std::string& expression) {
    auto paths = nix_->Build(expression);
    EXPECT_TRUE(paths.ok()) << paths.status();
    return paths.ok() ? *std::move(paths) : std::vector<StorePath>();
  }
  // What `nix path-info --sigs` says of a path.
  std::string Signatures(const StorePath& path) {
    auto output = nix_->Run({"nix", "path-info", "--sigs", nix_->Print(path)});
    EXPECT_TRUE(output.ok()) << output.status();
    return output.value_or("");
  }

  std::unique_ptr<PrivateNix> nix_;
};

class DaemonClientNixTest : public NixTest,
                            public ::testing::WithParamInterface<Transport> {
 protected:
  void SetUp() override { Start(); }
  DaemonClientOptions Options() {
    return GetParam() == Transport::kSocket ? nix_->SocketOptions()
                                            : nix_->StdioOptions();
  }

  // Whether what the client says of a path is what Nix says of it.
  void ExpectAsNixSays(const PathInfo& info) {
    EXPECT_EQ(ToPrefixedNix32(info.nar_hash), Query("--hash", info.path));
    EXPECT_EQ(absl::StrFormat("%d", info.nar_size_bytes),
              Query("--size", info.path));
    std::vector<std::string> references;
    for (const StorePath& reference : info.references) {
      references.push_back(nix_->Print(reference));
    }
    EXPECT_EQ(Join(references, "\n"), Query("--references", info.path));
    EXPECT_EQ(info.deriver.has_value() ? nix_->Print(*info.deriver)
                                       : "unknown-deriver",
              Query("--deriver", info.path));
  }
};

INSTANTIATE_TEST_SUITE_P(Transports, DaemonClientNixTest,
                         ::testing::Values(Transport::kSocket,
                                           Transport::kStdio),
                         [](const auto& param_info) {
                           return param_info.param == Transport::kSocket
                                      ? "Socket"
                                      : "Stdio";
                         });

TEST_P(DaemonClientNixTest, TellsWhoIsThere) {
  DaemonClient client(Options());
  auto info = client.Info();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->transport, GetParam() == Transport::kSocket
                                 ? "unix:" + nix_->socket_path()
                                 : "stdio");
  auto version = nix_->Run({"nix", "--version"});
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_THAT(*version, HasSubstr(info->nix_version));
  EXPECT_THAT(info->protocol_minor,
              ::testing::AllOf(::testing::Ge(34), ::testing::Le(35)));
}

TEST_P(DaemonClientNixTest, SaysOfPathsWhatNixSays) {
  std::vector<StorePath> paths = Build(ChainExpression("chain", 3));
  for (const auto& expression :
       {MultiOutputExpression("multi"), SelfReferenceExpression("self"),
        DiamondExpression("diamond")}) {
    const auto built = Build(expression);
    paths.insert(paths.end(), built.begin(), built.end());
  }
  auto file = nix_->AddFile("some-file", "contents");
  ASSERT_TRUE(file.ok()) << file.status();
  paths.push_back(*file);
  const StorePath absent =
      *StorePath::FromBaseName("0123456789abcdfghijklmnpqrsvwxyz-absent");
  paths.push_back(absent);

  DaemonClient client(Options());
  auto infos = client.QueryPathInfos(paths);
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_EQ(infos->size(), paths.size());
  EXPECT_FALSE(infos->back().has_value());
  for (size_t i = 0; i + 1 < paths.size(); ++i) {
    ASSERT_TRUE((*infos)[i].has_value()) << paths[i].base_name();
    const PathInfo& info = *(*infos)[i];
    EXPECT_EQ(info.path, paths[i]);
    ExpectAsNixSays(info);
    EXPECT_LT(absl::AbsDuration(absl::Now() - info.registration_time),
              absl::Hours(1));
    const bool built = info.path != *file;
    EXPECT_EQ(info.ultimate, built);
    EXPECT_EQ(info.content_address.empty(), built);
    if (info.path.name() == "self") {
      EXPECT_THAT(info.references, ElementsAre(info.path));
    }
  }
}

TEST_P(DaemonClientNixTest, KnowsTheOutputsOfDerivations) {
  const std::string expression = MultiOutputExpression("multi");
  auto derivation = nix_->Instantiate(expression);
  ASSERT_TRUE(derivation.ok()) << derivation.status();
  DaemonClient client(Options());
  auto outputs = client.QueryDerivationOutputs(*derivation);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(*outputs, SizeIs(3));
  // nix-build prints the first output alone.
  EXPECT_THAT(Build(expression), ElementsAre(outputs->at("out")));

  EXPECT_TRUE(
      absl::IsNotFound(client
                           .QueryDerivationOutputs(*StorePath::FromBaseName(
                               "0123456789abcdfghijklmnpqrsvwxyz-absent.drv"))
                           .status()));
  EXPECT_TRUE(client.Info().ok());
}

TEST_P(DaemonClientNixTest, KnowsContentAddressedOutputsOnceTheyAreBuilt) {
  const std::string expression =
      "derivation { name = \"floating\"; system = builtins.currentSystem; "
      "builder = \"/bin/sh\"; args = [ \"-c\" \"echo hi > $out\" ]; "
      "__contentAddressed = true; outputHashMode = \"recursive\"; "
      "outputHashAlgo = \"sha256\"; }";
  auto derivation = nix_->Instantiate(expression);
  ASSERT_TRUE(derivation.ok()) << derivation.status();
  DaemonClient client(Options());
  auto before = client.QueryDerivationOutputs(*derivation);
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_EQ(before->at("out"), std::nullopt);
  const auto built = Build(expression);
  auto after = client.QueryDerivationOutputs(*derivation);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_THAT(built, ElementsAre(after->at("out")));
}

TEST_P(DaemonClientNixTest, AddsSignaturesThatNixShows) {
  const auto paths = Build(SimpleExpression("signed"));
  ASSERT_THAT(paths, SizeIs(1));
  const StorePath absent =
      *StorePath::FromBaseName("0123456789abcdfghijklmnpqrsvwxyz-absent");
  DaemonClient client(Options());
  EXPECT_THAT(Signatures(paths[0]), Not(HasSubstr(kSignature)));
  absl::Status added =
      client.AddSignatures({{absent, {kSignature}}, {paths[0], {kSignature}}});
  EXPECT_TRUE(added.ok()) << added;
  EXPECT_THAT(Signatures(paths[0]), HasSubstr(kSignature));
  auto infos = client.QueryPathInfos(paths);
  ASSERT_TRUE(infos.ok()) << infos.status();
  EXPECT_THAT((*infos)[0]->signatures, Contains(kSignature));
}

TEST_P(DaemonClientNixTest, TemporaryRootsHoldUntilTheClientGoes) {
  const auto held = Build(ChainExpression("held", 3));
  const auto loose = Build(SimpleExpression("loose"));
  {
    DaemonClient client(Options());
    ASSERT_TRUE(client.AddTempRoots(held).ok());
    ASSERT_TRUE(nix_->CollectGarbage().ok());
    auto infos = client.QueryPathInfos({held[0], loose[0]});
    ASSERT_TRUE(infos.ok()) << infos.status();
    EXPECT_TRUE((*infos)[0].has_value());
    EXPECT_FALSE((*infos)[1].has_value());
  }
  if (GetParam() == Transport::kStdio) {
    // The child has ended with the client; a worker of the daemon ends when
    // it notices, which nobody tells us.
    ASSERT_TRUE(nix_->CollectGarbage().ok());
    EXPECT_FALSE(nix_->IsValid(held[0]));
  }
}

TEST_P(DaemonClientNixTest, ListsEveryValidPath) {
  Build(ChainExpression("chain", 5));
  DaemonClient client(Options());
  auto paths = client.QueryAllValidPaths();
  ASSERT_TRUE(paths.ok()) << paths.status();
  auto dump = nix_->Run({"nix", "path-info", "--all"});
  ASSERT_TRUE(dump.ok()) << dump.status();
  std::vector<std::string> expected;
  for (std::string_view word : SplitWords(*dump)) expected.emplace_back(word);
  std::vector<std::string> printed;
  for (const StorePath& path : *paths) printed.push_back(nix_->Print(path));
  std::sort(expected.begin(), expected.end());
  std::sort(printed.begin(), printed.end());
  EXPECT_EQ(printed, expected);
  EXPECT_GE(printed.size(), 10u);
}

TEST_P(DaemonClientNixTest, AnswersFiveThousandQuestionsAtOnce) {
  const auto real = Build(ChainExpression("chain", 2));
  std::vector<StorePath> paths;
  for (int i = 0; i < 2500; ++i) {
    paths.push_back(real[0]);
    paths.push_back(*StorePath::FromBaseName(
        absl::StrFormat("0123456789abcdfghijklmnpqrsvwxyz-absent-%d", i)));
  }
  DaemonClient client(Options());
  auto infos = client.QueryPathInfos(paths);
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_THAT(*infos, SizeIs(5000));
  for (size_t i = 0; i < infos->size(); ++i) {
    EXPECT_EQ((*infos)[i].has_value(), i % 2 == 0) << i;
  }
}

TEST_P(DaemonClientNixTest, ComputesTheClosureThatNixComputes) {
  const auto top = Build(DiamondExpression("diamond"));
  const auto self = Build(SelfReferenceExpression("self"));
  DaemonClient client(Options());
  auto closure = ComputeClosure(client, {top[0], self[0]}, 100,
                                [](const PathInfo&) { return true; });
  ASSERT_TRUE(closure.ok()) << closure.status();
  auto requisites = nix_->Run({"nix-store", "--query", "--requisites",
                               nix_->Print(top[0]), nix_->Print(self[0])});
  ASSERT_TRUE(requisites.ok()) << requisites.status();
  std::vector<std::string> expected;
  for (std::string_view word : SplitWords(*requisites)) {
    expected.emplace_back(word);
  }
  std::vector<std::string> printed;
  for (const PathInfo& info : closure->paths) {
    printed.push_back(nix_->Print(info.path));
  }
  EXPECT_THAT(printed, ::testing::UnorderedElementsAreArray(expected));
  EXPECT_THAT(printed, SizeIs(5));
}

class DaemonRestartTest : public NixTest {};

TEST_F(DaemonRestartTest, GoesOnWhenTheDaemonIsBack) {
  Start();
  const auto held = Build(SimpleExpression("held"));
  const auto loose = Build(SimpleExpression("loose"));
  DaemonClient client(nix_->SocketOptions());
  ASSERT_TRUE(client.AddTempRoots(held).ok());

  nix_->StopDaemon();
  absl::Status away = client.QueryPathInfos(held).status();
  EXPECT_TRUE(absl::IsUnavailable(away)) << away;

  ASSERT_TRUE(nix_->StartDaemon().ok());
  auto infos = client.QueryPathInfos(held);
  ASSERT_TRUE(infos.ok()) << infos.status();
  EXPECT_TRUE((*infos)[0].has_value());
  // The new worker holds what the old one held.
  ASSERT_TRUE(nix_->CollectGarbage().ok());
  EXPECT_TRUE(nix_->IsValid(held[0]));
  EXPECT_FALSE(nix_->IsValid(loose[0]));

  // Killed and back between two calls: nobody notices.
  nix_->StopDaemon();
  ASSERT_TRUE(nix_->StartDaemon().ok());
  EXPECT_TRUE(client.QueryPathInfos(held).ok());
}

TEST_F(DaemonRestartTest, SpeaksToAChildWhileNobodyListens) {
  Start();
  const auto paths = Build(SimpleExpression("simple"));
  DaemonClientOptions options = nix_->StdioOptions();
  options.socket_path = nix_->socket_path();
  {
    DaemonClient client(options);
    auto info = client.Info();
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->transport, "unix:" + nix_->socket_path());
    nix_->StopDaemon();
    auto infos = client.QueryPathInfos(paths);
    ASSERT_TRUE(infos.ok()) << infos.status();
    EXPECT_TRUE((*infos)[0].has_value());
    EXPECT_EQ(client.Info()->transport, "stdio");
  }
}

class UntrustedClientTest : public NixTest {};

// Before Nix 2.17 only users that the daemon trusts may add signatures.
TEST_F(UntrustedClientTest, IsRefusedOrServedButLosesNothing) {
  Start("trusted-users =\n");
  const auto held = Build(SimpleExpression("held"));
  DaemonClient client(nix_->SocketOptions());
  ASSERT_TRUE(client.AddTempRoots(held).ok());
  for (int i = 0; i < 2; ++i) {
    absl::Status added = client.AddSignatures({{held[0], {kSignature}},
                                               {held[0], {kSignature}},
                                               {held[0], {kSignature}},
                                               {held[0], {kSignature}}});
    if (client.Info()->protocol_minor < 35) {
      EXPECT_TRUE(absl::IsPermissionDenied(added)) << added;
      EXPECT_THAT(Signatures(held[0]), Not(HasSubstr(kSignature)));
    } else {
      EXPECT_TRUE(added.ok() || absl::IsPermissionDenied(added)) << added;
    }
  }
  // All that needs no trust works, and the roots are still held.
  ASSERT_TRUE(nix_->CollectGarbage().ok());
  auto infos = client.QueryPathInfos(held);
  ASSERT_TRUE(infos.ok()) << infos.status();
  EXPECT_TRUE((*infos)[0].has_value());
}

TEST_F(UntrustedClientTest, IsToldWhenItMayNotConnect) {
  Start("allowed-users = nobody-of-that-name\ntrusted-users =\n");
  DaemonClient client(nix_->SocketOptions());
  absl::Status status = client.Info().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(nix_->socket_path()));
}

}  // namespace
}  // namespace nixq
