// A Nix daemon that does as a test says, right or wrong.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "storage/base/io.h"

namespace nixq {

// The daemon's end of one connection. Reads and writes block; after the client
// has hung up, reads give 0 and "", writes go nowhere, and hung_up() is true.
class FakeNixPeer {
 public:
  FakeNixPeer(int fd, int connection) : fd_(fd), connection_(connection) {}

  uint64_t ReadUint();
  std::string ReadString();
  std::vector<std::string> ReadStrings();
  void WriteUint(uint64_t number);
  void WriteString(std::string_view text);
  void WriteStrings(const std::vector<std::string>& texts);
  void WriteBytes(std::string_view bytes);

  // The daemon's part of the handshake, as protocol 1.`minor` has it.
  void ShakeHands(int minor, uint64_t trust = 1);
  // The record that a reply follows.
  void WriteLast();
  void WriteError(std::string_view message);
  // An answer to QueryPathInfo: valid, with these references.
  void WritePathInfo(const std::vector<std::string>& references,
                     std::string_view nar_hash = std::string(64, 'a'));

  // True if the client has sent something that was not read yet.
  bool HasMoreToRead() const;
  // Waits until the client hangs up, dropping what it sends.
  void Hang();
  void HangUp();

  bool hung_up() const { return hung_up_; }
  // Which connection this is, from 0.
  int connection() const { return connection_; }
  // What the client said in the handshake.
  uint64_t client_version() const { return client_version_; }

 private:
  int fd_;
  int connection_;
  bool hung_up_ = false;
  uint64_t client_version_ = 0;
};

// Listens on a socket; each connection runs the script in a thread of its own.
class FakeNixDaemon {
 public:
  using Script = std::function<void(FakeNixPeer&)>;

  FakeNixDaemon(const std::string& socket_path, Script script);
  // Hangs up on everybody.
  ~FakeNixDaemon();

  int connections() const { return connections_; }

 private:
  void Accept();

  Script script_;
  UniqueFd listener_;
  std::atomic<int> connections_{0};
  std::mutex mutex_;
  std::list<UniqueFd> accepted_;  // guarded by mutex_
  std::list<std::thread> peers_;  // guarded by mutex_
  std::thread acceptor_;
};

}  // namespace nixq
