// A daemon client and the daemon that a test scripts for it.
#pragma once

#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "storage/nix/daemon_client.h"
#include "tests/support/fake_nix_daemon.h"

namespace nixq {

inline constexpr uint64_t kIsValidPath = 1;
inline constexpr uint64_t kAddTempRoot = 11;
inline constexpr uint64_t kQueryAllValidPaths = 23;
inline constexpr uint64_t kQueryPathInfo = 26;
inline constexpr uint64_t kQueryValidPaths = 31;
inline constexpr uint64_t kAddSignatures = 37;
inline constexpr uint64_t kQueryDerivationOutputMap = 41;
// A number like this in a length or count is a stream out of step.
inline constexpr uint64_t kAbsurd = uint64_t{1} << 60;

inline StorePath Path(const std::string& name) {
  return *StorePath::FromBaseName("0123456789abcdfghijklmnpqrsvwxyz-" + name);
}

inline std::string Full(const std::string& name) {
  return "/nix/store/" + Path(name).base_name();
}

// 64 zero bytes.
inline const std::string kSignature = "key-1:" + std::string(86, 'A') + "==";

// Answers QueryPathInfo for ever; anything else ends the connection.
inline void ServePathInfos(FakeNixPeer& peer) {
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
    DaemonClientOptions options{
        *StoreDir::Parse("/nix/store"), base_ + "/socket", {}, {}};
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

}  // namespace nixq
