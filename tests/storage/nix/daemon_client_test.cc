// The daemon client against a daemon that misbehaves on purpose. See
// daemon_client_nix_test.cc for the real one.
#include "storage/nix/daemon_client.h"

#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_nix_daemon.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kIsValidPath = 1;
constexpr uint64_t kAddTempRoot = 11;
constexpr uint64_t kQueryAllValidPaths = 23;
constexpr uint64_t kQueryPathInfo = 26;
constexpr uint64_t kQueryValidPaths = 31;
constexpr uint64_t kAddSignatures = 37;
constexpr uint64_t kQueryDerivationOutputMap = 41;
// A number like this in a length or count is a stream out of step.
constexpr uint64_t kAbsurd = uint64_t{1} << 60;

StorePath Path(const std::string& name) {
  return *StorePath::FromBaseName("0123456789abcdfghijklmnpqrsvwxyz-" + name);
}

std::string Full(const std::string& name) {
  return "/nix/store/" + Path(name).base_name();
}

// 64 zero bytes.
const std::string kSignature = "key-1:" + std::string(86, 'A') + "==";

// Answers QueryPathInfo for ever; anything else ends the connection.
void ServePathInfos(FakeNixPeer& peer) {
  while (peer.ReadUint() == kQueryPathInfo) {
    peer.ReadString();
    peer.WriteLast();
    peer.WritePathInfo({});
  }
}

class DaemonClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/daemon-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    base_ = std::filesystem::canonical(name).string();
  }
  void TearDown() override {
    client_.reset();
    daemon_.reset();
    std::filesystem::remove_all(base_);
  }

  DaemonClientOptions Options() {
    DaemonClientOptions options{.store_dir = *StoreDir::Parse("/nix/store")};
    options.socket_path = base_ + "/socket";
    options.reply_limit = absl::Minutes(2);
    return options;
  }
  // A client, and a daemon that does this in every connection.
  DaemonClient& Serve(FakeNixDaemon::Script script) {
    return Serve(std::move(script), Options());
  }
  DaemonClient& Serve(FakeNixDaemon::Script script,
                      DaemonClientOptions options) {
    client_.reset();
    daemon_.emplace(options.socket_path, std::move(script));
    client_.emplace(std::move(options));
    return *client_;
  }
  absl::Status QueryOne(DaemonClient& client) {
    return client.QueryPathInfos({Path("a")}).status();
  }

  std::string base_;
  std::optional<FakeNixDaemon> daemon_;
  std::optional<DaemonClient> client_;
};

TEST_F(DaemonClientTest, Announces135ToEveryDaemon) {
  struct Row {
    int minor;
    uint64_t trust;
    int negotiated;
    std::optional<bool> trusted;
    std::string version;
  };
  const std::vector<Row> rows = {
      {32, 1, 32, std::nullopt, ""},
      {34, 1, 34, std::nullopt, "2.99-fake"},
      {35, 0, 35, std::nullopt, "2.99-fake"},
      {35, 1, 35, true, "2.99-fake"},
      {35, 2, 35, false, "2.99-fake"},
      {38, 1, 35, true, "2.99-fake"},
      {200, 2, 35, false, "2.99-fake"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(absl::StrFormat("1.%d, trust %d", row.minor, row.trust));
    std::atomic<uint64_t> announced{0};
    DaemonClient& client = Serve([&](FakeNixPeer& peer) {
      peer.ShakeHands(row.minor, row.trust);
      announced = peer.client_version();
      ServePathInfos(peer);
    });
    auto info = client.Info();
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->transport, "unix:" + base_ + "/socket");
    EXPECT_EQ(info->protocol_minor, row.negotiated);
    EXPECT_EQ(info->trusted, row.trusted);
    EXPECT_EQ(info->nix_version, row.version);
    // Nothing of the handshake is left over on either side.
    EXPECT_TRUE(QueryOne(client).ok());
    EXPECT_EQ(announced, 0x123u);
    EXPECT_EQ(daemon_->connections(), 1);
  }
}

TEST_F(DaemonClientTest, RefusesWhatIsNotADaemon) {
  struct Row {
    const char* name;
    FakeNixDaemon::Script script;
  };
  const std::vector<Row> rows = {
      {"another magic", [](FakeNixPeer& peer) { peer.WriteUint(0x1234); }},
      {"HTTP",
       [](FakeNixPeer& peer) {
         peer.WriteBytes("HTTP/1.1 400 Bad Request\r\n\r\n");
       }},
      {"major 2",
       [](FakeNixPeer& peer) {
         peer.WriteUint(0x6478696f);
         peer.WriteUint(0x223);
       }},
      {"too old", [](FakeNixPeer& peer) { peer.ShakeHands(20); }},
      {"a version text without end",
       [](FakeNixPeer& peer) {
         peer.WriteUint(0x6478696f);
         peer.WriteUint(0x123);
         peer.WriteUint(kAbsurd);
       }},
      {"an impossible trust",
       [](FakeNixPeer& peer) { peer.ShakeHands(35, 3); }},
  };
  for (const Row& row : rows) {
    absl::Status status = QueryOne(Serve([&row](FakeNixPeer& peer) {
      row.script(peer);
      peer.Hang();
    }));
    EXPECT_TRUE(absl::IsDataLoss(status)) << row.name << ": " << status;
  }
}

TEST_F(DaemonClientTest, SaysWhyItWasRefused) {
  absl::Status status = QueryOne(Serve([](FakeNixPeer& peer) {
    peer.WriteUint(0x6478696f);
    peer.WriteUint(0x122);
    peer.WriteString("2.8.0");
    peer.WriteError("user '\x1b[35;1mfred\x1b[0m' is not allowed");
  }));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("user 'fred' is not allowed"));
}

TEST_F(DaemonClientTest, GivesInfosInOrderAmongLogsAndActivities) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (peer.ReadUint() == kQueryPathInfo) {
      const std::string path = peer.ReadString();
      peer.WriteUint(0x6f6c6d67);  // a log line
      peer.WriteString("thinking\n");
      peer.WriteUint(0x53545254);  // an activity starts
      for (uint64_t number : {7, 3, 101}) peer.WriteUint(number);
      peer.WriteString("querying");
      peer.WriteUint(1);
      peer.WriteUint(1);
      peer.WriteString("field");
      peer.WriteUint(0);
      peer.WriteUint(0x53544f50);  // and stops
      peer.WriteUint(7);
      peer.WriteLast();
      if (path == Full("absent")) {
        peer.WriteUint(0);
      } else {
        peer.WritePathInfo({Full("z"), Full("b"), path},
                           path == Full("b")
                               ? std::string(64, 'b')
                               : "sha256:" + std::string(64, 'a'));
      }
    }
  });
  auto infos = client.QueryPathInfos({Path("a"), Path("absent"), Path("b")});
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_THAT(*infos, SizeIs(3));
  ASSERT_TRUE((*infos)[0].has_value());
  EXPECT_FALSE((*infos)[1].has_value());
  ASSERT_TRUE((*infos)[2].has_value());
  EXPECT_EQ((*infos)[0]->path, Path("a"));
  EXPECT_EQ(ToBase16((*infos)[0]->nar_hash), std::string(64, 'a'));
  EXPECT_THAT((*infos)[0]->references,
              ElementsAre(Path("a"), Path("b"), Path("z")));
  EXPECT_EQ((*infos)[0]->nar_size_bytes, 120u);
  EXPECT_EQ((*infos)[0]->registration_time,
            absl::FromUnixSeconds(1'600'000'000));
  EXPECT_TRUE((*infos)[0]->ultimate);
  EXPECT_EQ(ToBase16((*infos)[2]->nar_hash), std::string(64, 'b'));
}

TEST_F(DaemonClientTest, TakesNothingThatIsNotAnAnswer) {
  struct Row {
    const char* name;
    FakeNixDaemon::Script answer;
  };
  const std::vector<Row> rows = {
      {"an unknown record", [](FakeNixPeer& peer) { peer.WriteUint(5); }},
      {"a path of another store",
       [](FakeNixPeer& peer) {
         peer.WriteLast();
         peer.WritePathInfo({"/gnu/store/" + Path("x").base_name()});
       }},
      {"a base name only",
       [](FakeNixPeer& peer) {
         peer.WriteLast();
         peer.WritePathInfo({Path("x").base_name()});
       }},
      {"a hash that is none",
       [](FakeNixPeer& peer) {
         peer.WriteLast();
         peer.WritePathInfo({}, "sha256:none");
       }},
      {"references without end",
       [](FakeNixPeer& peer) {
         peer.WriteLast();
         peer.WriteUint(1);
         peer.WriteString("");
         peer.WriteString(std::string(64, 'a'));
         peer.WriteUint(kAbsurd);
       }},
      {"a deriver without end",
       [](FakeNixPeer& peer) {
         peer.WriteLast();
         peer.WriteUint(1);
         peer.WriteUint(kAbsurd);
       }},
  };
  for (const Row& row : rows) {
    absl::Status status = QueryOne(Serve([&row](FakeNixPeer& peer) {
      peer.ShakeHands(34);
      row.answer(peer);
      peer.Hang();
    }));
    EXPECT_TRUE(absl::IsDataLoss(status)) << row.name << ": " << status;
    // Asking such a daemon again would not help.
    EXPECT_EQ(daemon_->connections(), 1) << row.name;
  }
}

TEST_F(DaemonClientTest, ConnectsAgainOncePerCall) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    if (peer.connection() != 1) {
      peer.ReadUint();  // and hangs up
      return;
    }
    ServePathInfos(peer);
  });
  EXPECT_TRUE(QueryOne(client).ok());
  EXPECT_EQ(daemon_->connections(), 2);

  DaemonClient& hopeless = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    peer.ReadUint();
    peer.ReadString();
    peer.WriteLast();
    peer.WriteUint(1);  // truncated
  });
  absl::Status status = QueryOne(hopeless);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(daemon_->connections(), 2);
}

TEST_F(DaemonClientTest, GoesOnAfterAnError) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (peer.ReadUint() == kQueryPathInfo) {
      if (peer.ReadString() == Full("bad")) {
        peer.WriteError("database is \x1b[31mbusy\x1b[0m");
      } else {
        peer.WriteLast();
        peer.WritePathInfo({});
      }
    }
  });
  auto infos = client.QueryPathInfos({Path("a"), Path("bad"), Path("b")});
  EXPECT_TRUE(absl::IsUnavailable(infos.status())) << infos.status();
  EXPECT_THAT(std::string(infos.status().message()),
              HasSubstr("database is busy"));
  // An error is an answer: nobody is asked again for it.
  EXPECT_EQ(daemon_->connections(), 1);
  EXPECT_TRUE(QueryOne(client).ok());
}

// What Nix does when it does not like a request: the error twice, then the
// end. The second must not be taken for the answer to the next request.
TEST_F(DaemonClientTest, DoesNotTakeASecondErrorForTheNextAnswer) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    if (peer.connection() > 0) return ServePathInfos(peer);
    peer.ReadUint();
    peer.ReadString();
    peer.WriteError("first");
    peer.WriteError("second");
  });
  absl::Status status = QueryOne(client);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("first"));
  EXPECT_EQ(daemon_->connections(), 1);
  EXPECT_TRUE(QueryOne(client).ok());
  EXPECT_EQ(daemon_->connections(), 2);
}

TEST_F(DaemonClientTest, DoesNotWaitForEver) {
  struct Row {
    const char* name;
    FakeNixDaemon::Script script;
  };
  const std::vector<Row> rows = {
      {"in the handshake", [](FakeNixPeer&) {}},
      {"before the reply", [](FakeNixPeer& peer) { peer.ShakeHands(34); }},
      {"in the reply",
       [](FakeNixPeer& peer) {
         peer.ShakeHands(34);
         peer.WriteLast();
         peer.WriteUint(1);
       }},
  };
  for (const Row& row : rows) {
    DaemonClientOptions options = Options();
    options.reply_limit = absl::Milliseconds(100);
    absl::Status status = QueryOne(Serve(
        [&row](FakeNixPeer& peer) {
          row.script(peer);
          peer.Hang();
        },
        options));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << row.name << ": " << status;
  }
}

TEST_F(DaemonClientTest, StopEndsACallInAnotherThread) {
  std::promise<void> asked;
  DaemonClient& client = Serve([&](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    peer.ReadUint();
    asked.set_value();
    peer.Hang();
  });
  std::thread stopper([&] {
    asked.get_future().wait();
    client.Stop();
  });
  EXPECT_TRUE(absl::IsCancelled(QueryOne(client)));
  stopper.join();
  EXPECT_TRUE(absl::IsCancelled(QueryOne(client)));
  EXPECT_TRUE(absl::IsCancelled(client.AddTempRoots({Path("a")})));
  EXPECT_TRUE(absl::IsCancelled(client.Info().status()));
}

TEST_F(DaemonClientTest, IsUnavailableWhenNobodyListens) {
  DaemonClientOptions options = Options();
  EXPECT_TRUE(absl::IsUnavailable(DaemonClient(options).Info().status()));
  // A socket that somebody left.
  Serve([](FakeNixPeer&) {});
  daemon_.reset();
  absl::Status status = client_->Info().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(base_));

  options.stdio_command = {"/no/such/nix-daemon", "--stdio"};
  status = DaemonClient(options).Info().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/nix-daemon"));
  // A child that says nothing at all.
  options.stdio_command = {"/bin/sh", "-c", "exit 1"};
  EXPECT_TRUE(absl::IsUnavailable(DaemonClient(options).Info().status()));
}

TEST_F(DaemonClientTest, ReachesASocketBeyondTheLengthOfAnAddress) {
  DaemonClientOptions options = Options();
  std::string directory = base_;
  for (int i = 0; i < 8; ++i) directory += "/" + std::string(60, 'd');
  std::filesystem::create_directories(directory);
  options.socket_path = directory + "/socket";
  DaemonClient& client = Serve(
      [](FakeNixPeer& peer) {
        peer.ShakeHands(34);
        ServePathInfos(peer);
      },
      options);
  EXPECT_TRUE(QueryOne(client).ok()) << client.Info().status();
  EXPECT_EQ(daemon_->connections(), 1);
}

TEST_F(DaemonClientTest, AddsTemporaryRootsAgainBeforeAnythingElse) {
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

TEST_F(DaemonClientTest, SignsOnlyWhatIsValid) {
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

TEST_F(DaemonClientTest, SignsThousandsOfPaths) {
  SigningDaemon daemon(true);
  DaemonClient& client = Serve(std::ref(daemon));
  std::vector<std::pair<StorePath, std::vector<std::string>>> signatures;
  for (int i = 0; i < 2500; ++i) {
    signatures.emplace_back(Path(absl::StrFormat("p%d", i)),
                            std::vector<std::string>(20, kSignature));
  }
  absl::Status status = client.AddSignatures(signatures);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(daemon.signed_paths(), SizeIs(2500));
}

TEST_F(DaemonClientTest, ARefusedSignatureCostsNoTemporaryRoot) {
  SigningDaemon daemon(false);
  DaemonClient& client = Serve(std::ref(daemon));
  ASSERT_TRUE(client.AddTempRoots({Path("a")}).ok());
  for (int i = 0; i < 2; ++i) {
    absl::Status status = client.AddSignatures({{Path("a"), {kSignature}}});
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  }
  ASSERT_TRUE(client.AddTempRoots({Path("b")}).ok());
  // Two, not three: the connection of the first is still the one.
  EXPECT_EQ(daemon.temp_roots(), 2);
  EXPECT_THAT(daemon.signed_paths(), IsEmpty());
}

TEST_F(DaemonClientTest, SendsNothingThatIsNotASignature) {
  DaemonClient& client = Serve([](FakeNixPeer&) {});
  for (const char* bad : {"", "key-1", "key-1:", ":AAAA", "key-1:AAAA",
                          "key-1:not base64 at all"}) {
    absl::Status status =
        client.AddSignatures({{Path("a"), {kSignature, bad}}});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad << ": " << status;
  }
  EXPECT_EQ(daemon_->connections(), 0);
}

TEST_F(DaemonClientTest, TellsOutputsThatAreNotBuilt) {
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

TEST_F(DaemonClientTest, BoundsTheListOfAllPaths) {
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
TEST_F(DaemonClientTest, PipelinesWithoutDeadlock) {
  std::vector<std::string> references;
  for (int i = 0; i < 30; ++i)
    references.push_back(Full(absl::StrFormat("r%03d", i)));
  std::atomic<int> answered{0};
  DaemonClient& client = Serve([&](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (peer.ReadUint() == kQueryPathInfo) {
      peer.ReadString();
      peer.WriteLast();
      peer.WritePathInfo(references);
      ++answered;
    }
  });
  std::vector<StorePath> paths;
  for (int i = 0; i < 5000; ++i)
    paths.push_back(Path(absl::StrFormat("p%d", i)));
  auto infos = client.QueryPathInfos(paths);
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_THAT(*infos, SizeIs(5000));
  EXPECT_EQ((*infos)[4999]->path, paths[4999]);
  EXPECT_THAT((*infos)[4999]->references, SizeIs(30));
  EXPECT_EQ(answered, 5000);
}

// The client asks ahead, but not everything at once.
TEST_F(DaemonClientTest, AsksAheadInABoundedWindow) {
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

TEST_F(DaemonClientTest, ServesManyThreads) {
  DaemonClient& client = Serve([](FakeNixPeer& peer) {
    peer.ShakeHands(34);
    while (peer.ReadUint() == kQueryPathInfo) {
      const std::string path = peer.ReadString();
      peer.WriteLast();
      peer.WritePathInfo({path});
    }
  });
  std::vector<std::thread> threads;
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
