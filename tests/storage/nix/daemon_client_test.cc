// The daemon client against a daemon that misbehaves on purpose. See
// daemon_client_nix_test.cc for the real one.
#include "storage/nix/daemon_client.h"

#include <atomic>
#include <filesystem>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/status.h"
#include "tests/support/daemon_client_fixture.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

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
  // Others may well be told.
  EXPECT_TRUE(IsPathsFault(infos.status()));
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

}  // namespace
}  // namespace nixq
