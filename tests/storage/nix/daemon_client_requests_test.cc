// What the daemon client asks, in which order and how far ahead, as a scripted
// daemon sees it.
#include <atomic>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/nix/daemon_client.h"
#include "tests/support/daemon_client_fixture.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using DaemonClientRequestsTest = DaemonClientTest;

TEST_F(DaemonClientRequestsTest, AddsTemporaryRootsAgainBeforeAnythingElse) {
  std::mutex mutex;
  std::vector<std::string> events;
  DaemonClient& client = Serve([&](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (true) {
      const uint64_t operation = peer.ReadUint();
      if (peer.hung_up()) return;
      const std::string path = peer.ReadString();
      {
        std::lock_guard<std::mutex> lock(mutex);
        events.push_back(
            absl::StrFormat("%d %s %s", peer.connection(),
                            operation == kAddTempRoot ? "root" : "query",
                            path.substr(path.rfind('-') + 1)));
      }
      // The first connection ends at the query, without an answer.
      if (operation != kAddTempRoot && peer.connection() == 0) return;
      peer.WriteLast();
      if (operation == kAddTempRoot) {
        peer.WriteUint(1);
      } else {
        peer.WritePathInfo({});
      }
    }
  });
  ASSERT_TRUE(client.AddTempRoots({Path("a"), Path("b")}).ok());
  ASSERT_TRUE(client.AddTempRoots({Path("b"), Path("c")}).ok());
  ASSERT_TRUE(client.QueryPathInfos({Path("q")}).ok());
  client_.reset();
  EXPECT_THAT(events,
              ElementsAre("0 root a", "0 root b", "0 root c", "0 query q",
                          "1 root a", "1 root b", "1 root c", "1 query q"));
}

TEST_F(DaemonClientRequestsTest, DropsTemporaryRootsWithTheirConnection) {
  std::mutex mutex;
  std::vector<std::string> roots;
  std::promise<void> ended;
  DaemonClient& client = Serve([&](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (true) {
      const uint64_t operation = peer.ReadUint();
      if (peer.hung_up()) {
        if (peer.connection() == 0) ended.set_value();
        return;
      }
      const std::string path = peer.ReadString();
      if (operation == kAddTempRoot) {
        std::lock_guard<std::mutex> lock(mutex);
        roots.push_back(absl::StrFormat("%d %s", peer.connection(),
                                        path.substr(path.rfind('-') + 1)));
      }
      // What the test ends with comes after the last use of what is its own.
      peer.WriteLast();
      if (operation == kAddTempRoot) {
        peer.WriteUint(1);
      } else {
        peer.WritePathInfo({});
      }
    }
  });
  ASSERT_TRUE(client.AddTempRoots({Path("a")}).ok());
  client.DropTempRoots();
  ended.get_future().wait();
  ASSERT_TRUE(client.QueryPathInfos({Path("q")}).ok());
  ASSERT_TRUE(client.AddTempRoots({Path("a"), Path("b")}).ok());
  client_.reset();
  EXPECT_THAT(roots, ElementsAre("0 a", "1 a", "1 b"));
}

// Serves AddSignatures as Nix 2.8 does for those that it trusts (or not), and
// temporary roots.
class SigningDaemon {
 public:
  explicit SigningDaemon(bool trusts) : trusts_(trusts) {}

  void operator()(FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (true) {
      const uint64_t operation = peer.ReadUint();
      if (peer.hung_up()) return;
      if (operation == kQueryValidPaths) {
        AnswerValidPaths(peer);
      } else if (operation == kAddTempRoot) {
        peer.ReadString();
        ++temp_roots_;
        peer.WriteLast();
        peer.WriteUint(1);
      } else if (operation == kAddSignatures) {
        const std::string path = peer.ReadString();
        const auto signatures = peer.ReadStrings();
        if (!trusts_) {
          peer.WriteError("you are not privileged to add signatures");
          peer.WriteError("you are not privileged to add signatures");
          return;
        }
        if (path == Full("absent")) return;  // crashes
        std::lock_guard<std::mutex> lock(mutex_);
        signed_.push_back(absl::StrFormat("%s %d", path, signatures.size()));
        peer.WriteLast();
        peer.WriteUint(1);
      } else {
        return;
      }
    }
  }

  std::vector<std::string> signed_paths() {
    std::lock_guard<std::mutex> lock(mutex_);
    return signed_;
  }
  int temp_roots() const { return temp_roots_; }

 private:
  void AnswerValidPaths(FakeNixPeer& peer) {
    std::vector<std::string> valid;
    for (const std::string& path : peer.ReadStrings()) {
      if (path != Full("absent")) valid.push_back(path);
    }
    EXPECT_EQ(peer.ReadUint(), 0u) << "asked to substitute";
    peer.WriteLast();
    peer.WriteStrings(valid);
  }

  const bool trusts_;
  std::atomic<int> temp_roots_{0};
  std::mutex mutex_;
  std::vector<std::string> signed_;
};

TEST_F(DaemonClientRequestsTest, SignsOnlyWhatIsValid) {
  SigningDaemon daemon(true);
  DaemonClient& client = Serve(std::ref(daemon));
  absl::Status status =
      client.AddSignatures({{Path("a"), {kSignature}},
                            {Path("absent"), {kSignature}},
                            {Path("b"), {kSignature, kSignature}}});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(daemon.signed_paths(),
              ElementsAre(Full("a") + " 1", Full("b") + " 2"));
  EXPECT_TRUE(client.AddSignatures({}).ok());
}

TEST_F(DaemonClientRequestsTest, SignsThousandsOfPaths) {
  SigningDaemon daemon(true);
  DaemonClient& client = Serve(std::ref(daemon));
  std::vector<std::pair<StorePath, std::vector<std::string>>> signatures;
  signatures.reserve(2500);
  for (int i = 0; i < 2500; ++i) {
    signatures.emplace_back(Path(absl::StrFormat("p%d", i)),
                            std::vector<std::string>(20, kSignature));
  }
  absl::Status status = client.AddSignatures(signatures);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(daemon.signed_paths(), SizeIs(2500));
}

TEST_F(DaemonClientRequestsTest, ARefusedSignatureCostsNoTemporaryRoot) {
  SigningDaemon daemon(false);
  DaemonClient& client = Serve(std::ref(daemon));
  ASSERT_TRUE(client.AddTempRoots({Path("a")}).ok());
  for (int i = 0; i < 2; ++i) {
    // More than the two errors that come before the end.
    absl::Status status = client.AddSignatures({{Path("a"), {kSignature}},
                                                {Path("b"), {kSignature}},
                                                {Path("c"), {kSignature}},
                                                {Path("d"), {kSignature}}});
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  }
  ASSERT_TRUE(client.AddTempRoots({Path("b")}).ok());
  // Two, not three: the connection of the first is still the one. And a
  // refusal is not asked for twice.
  EXPECT_EQ(daemon.temp_roots(), 2);
  EXPECT_EQ(daemon_->connections(), 3);
  EXPECT_THAT(daemon.signed_paths(), IsEmpty());
}

TEST_F(DaemonClientRequestsTest, SendsNothingThatIsNotASignature) {
  DaemonClient& client = Serve([](FakeNixPeer&) {});
  for (const char* bad : {"", "key-1", "key-1:", ":AAAA", "key-1:AAAA",
                          "key-1:not base64 at all"}) {
    absl::Status status =
        client.AddSignatures({{Path("a"), {kSignature, bad}}});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad << ": " << status;
  }
  EXPECT_EQ(daemon_->connections(), 0);
}

TEST_F(DaemonClientRequestsTest, TellsOutputsThatAreNotBuilt) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(38);
    while (true) {
      const uint64_t operation = peer.ReadUint();
      const std::string path = peer.ReadString();
      if (peer.hung_up()) return;
      peer.WriteLast();
      if (operation == kIsValidPath) {
        peer.WriteUint(path == Full("a.drv") ? 1 : 0);
      } else if (operation == kQueryDerivationOutputMap) {
        peer.WriteUint(2);
        peer.WriteString("out");
        peer.WriteString(Full("a"));
        peer.WriteString("dev");
        peer.WriteString("");
      }
    }
  });
  auto outputs = client.QueryDerivationOutputs(Path("a.drv"));
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(*outputs, SizeIs(2));
  EXPECT_EQ(outputs->at("out"), Path("a"));
  EXPECT_EQ(outputs->at("dev"), std::nullopt);
  EXPECT_TRUE(
      absl::IsNotFound(client.QueryDerivationOutputs(Path("b.drv")).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      client.QueryDerivationOutputs(Path("a")).status()));
}

TEST_F(DaemonClientRequestsTest, BoundsTheListOfAllPaths) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    EXPECT_EQ(peer.ReadUint(), kQueryAllValidPaths);
    peer.WriteLast();
    peer.WriteUint(kAbsurd);
    peer.Hang();
  });
  EXPECT_TRUE(absl::IsDataLoss(client.QueryAllValidPaths().status()));
}

// 5000 questions whose answers are more than the kernel buffers, to a daemon
// that writes each answer before it reads on.
TEST_F(DaemonClientRequestsTest, PipelinesWithoutDeadlock) {
  std::vector<std::string> references;
  references.reserve(30);
  for (int i = 0; i < 30; ++i) {
    references.push_back(Full(absl::StrFormat("r%03d", i)));
  }
  std::atomic<int> asked{0};
  DaemonClient& client = Serve([&](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (peer.ReadUint() == kQueryPathInfo) {
      peer.ReadString();
      ++asked;
      peer.WriteLast();
      peer.WritePathInfo(references);
    }
  });
  std::vector<StorePath> paths;
  paths.reserve(5000);
  for (int i = 0; i < 5000; ++i) {
    paths.push_back(Path(absl::StrFormat("p%d", i)));
  }
  auto infos = client.QueryPathInfos(paths);
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_THAT(*infos, SizeIs(5000));
  EXPECT_EQ((*infos)[4999]->path, paths[4999]);
  EXPECT_THAT((*infos)[4999]->references, SizeIs(30));
  EXPECT_EQ(asked, 5000);
}

// The client asks ahead, but not everything at once.
TEST_F(DaemonClientRequestsTest, AsksAheadInABoundedWindow) {
  std::atomic<size_t> most_ahead{0};
  std::atomic<bool> more{false};
  DaemonClient& client = Serve([&](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    // Nothing is answered until no more questions come.
    size_t ahead = 0;
    while (ahead < 256 && peer.ReadUint() == kQueryPathInfo) {
      peer.ReadString();
      ++ahead;
    }
    most_ahead = ahead;
    more = peer.HasMoreToRead();
    for (; ahead > 0; --ahead) {
      peer.WriteLast();
      peer.WritePathInfo({});
    }
    ServePathInfos(peer);
  });
  auto infos = client.QueryPathInfos(std::vector<StorePath>(1000, Path("a")));
  EXPECT_TRUE(infos.ok()) << infos.status();
  EXPECT_EQ(most_ahead, 256u);
  EXPECT_FALSE(more);
}

TEST_F(DaemonClientRequestsTest, ServesManyThreads) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (peer.ReadUint() == kQueryPathInfo) {
      const std::string path = peer.ReadString();
      peer.WriteLast();
      peer.WritePathInfo({path});
    }
  });
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&client, i] {
      const StorePath path = Path(absl::StrFormat("thread-%d", i));
      for (int j = 0; j < 50; ++j) {
        auto infos = client.QueryPathInfos({path});
        ASSERT_TRUE(infos.ok()) << infos.status();
        EXPECT_THAT((*infos)[0]->references, ElementsAre(path));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(daemon_->connections(), 1);
}

}  // namespace
}  // namespace nixq
