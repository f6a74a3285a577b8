#include "tests/support/fake_nix_daemon.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "storage/base/subprocess.h"

namespace nixq {
namespace {

constexpr uint64_t kDaemonMagic = 0x6478696f;
constexpr uint64_t kLast = 0x616c7473;
constexpr uint64_t kError = 0x63787470;
constexpr int kBacklog = 16;

void Require(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::abort();
}

}  // namespace

uint64_t FakeNixPeer::ReadUint() {
  unsigned char bytes[8] = {};
  size_t have = 0;
  while (have < sizeof bytes && !hung_up_) {
    const ssize_t got = read(fd_, bytes + have, sizeof bytes - have);
    if (got <= 0) {
      hung_up_ = true;
      return 0;
    }
    have += static_cast<size_t>(got);
  }
  uint64_t number = 0;
  for (int i = 7; i >= 0; --i) number = number << 8 | bytes[i];
  return number;
}

std::string FakeNixPeer::ReadString() {
  const uint64_t size = ReadUint();
  std::string text((size + 7) / 8 * 8, '\0');
  size_t have = 0;
  while (have < text.size() && !hung_up_) {
    const ssize_t got = read(fd_, text.data() + have, text.size() - have);
    if (got <= 0) {
      hung_up_ = true;
      return "";
    }
    have += static_cast<size_t>(got);
  }
  text.resize(size);
  return text;
}

std::vector<std::string> FakeNixPeer::ReadStrings() {
  std::vector<std::string> texts;
  for (uint64_t count = ReadUint(); count > 0 && !hung_up_; --count) {
    texts.push_back(ReadString());
  }
  return texts;
}

void FakeNixPeer::WriteBytes(std::string_view bytes) {
  while (!bytes.empty() && !hung_up_) {
    const ssize_t sent = WriteWithoutSigpipe(fd_, bytes.data(), bytes.size());
    if (sent <= 0) {
      hung_up_ = true;
      return;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

void FakeNixPeer::WriteUint(uint64_t number) {
  char bytes[8];
  for (size_t i = 0; i < sizeof bytes; ++i) {
    bytes[i] = static_cast<char>(number >> (8 * i) & 0xff);
  }
  WriteBytes(std::string_view(bytes, sizeof bytes));
}

void FakeNixPeer::WriteString(std::string_view text) {
  WriteUint(text.size());
  std::string padded(text);
  padded.resize((text.size() + 7) / 8 * 8, '\0');
  WriteBytes(padded);
}

void FakeNixPeer::WriteStrings(const std::vector<std::string>& texts) {
  WriteUint(texts.size());
  for (const std::string& text : texts) WriteString(text);
}

void FakeNixPeer::ShakeHands(int minor, uint64_t trust) {
  ReadUint();
  WriteUint(kDaemonMagic);
  WriteUint(1u << 8 | static_cast<uint64_t>(minor));
  client_version_ = ReadUint();
  const int negotiated =
      std::min(minor, static_cast<int>(client_version_ & 0xff));
  if (negotiated >= 38) {
    ReadStrings();
    WriteStrings({"a-feature"});
  }
  ReadUint();
  ReadUint();
  if (negotiated >= 33) WriteString("2.99-fake");
  if (negotiated >= 35) WriteUint(trust);
  WriteLast();
}

void FakeNixPeer::WriteLast() { WriteUint(kLast); }

void FakeNixPeer::WriteError(std::string_view message) {
  WriteUint(kError);
  WriteString("Error");
  WriteUint(0);
  WriteString("Error");
  WriteString(message);
  WriteUint(0);
  WriteUint(1);
  WriteUint(0);
  WriteString("while doing as it was told");
}

void FakeNixPeer::WritePathInfo(const std::vector<std::string>& references,
                                std::string_view nar_hash) {
  WriteUint(1);
  WriteString("");  // deriver
  WriteString(nar_hash);
  WriteStrings(references);
  WriteUint(1'600'000'000);
  WriteUint(120);
  WriteUint(1);
  WriteStrings({});
  WriteString("");
}

bool FakeNixPeer::HasMoreToRead() const {
  char byte = 0;
  return recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void FakeNixPeer::Hang() {
  while (!hung_up_) ReadUint();
}

void FakeNixPeer::HangUp() {
  shutdown(fd_, SHUT_RDWR);
  hung_up_ = true;
}

FakeNixDaemon::FakeNixDaemon(const std::string& socket_path, Script script)
    : script_(std::move(script)),
      listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  Require(listener_.valid(), "socket");
  // Through the directory, so that any length will do.
  const size_t slash = socket_path.rfind('/');
  const UniqueFd directory(open(socket_path.substr(0, slash).c_str(),
                                O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Require(directory.valid(), "open the socket's directory");
  const std::string text = "/proc/self/fd/" + std::to_string(directory.get()) +
                           socket_path.substr(slash);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  Require(text.size() < sizeof address.sun_path, "socket name");
  std::memcpy(address.sun_path, text.c_str(), text.size() + 1);
  unlink(socket_path.c_str());
  Require(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address),
               sizeof address) == 0,
          "bind");
  Require(listen(listener_.get(), kBacklog) == 0, "listen");
  acceptor_ = std::thread([this] { Accept(); });
}

void FakeNixDaemon::Accept() {
  while (true) {
    UniqueFd fd(accept(listener_.get(), nullptr, nullptr));
    if (!fd.valid()) return;
    const int raw_fd = fd.get();
    const int connection = connections_++;
    std::lock_guard<std::mutex> lock(mutex_);
    accepted_.push_back(std::move(fd));
    peers_.emplace_back([this, raw_fd, connection] {
      FakeNixPeer peer(raw_fd, connection);
      script_(peer);
      peer.HangUp();
    });
  }
}

FakeNixDaemon::~FakeNixDaemon() {
  shutdown(listener_.get(), SHUT_RDWR);
  acceptor_.join();
  for (const UniqueFd& fd : accepted_) shutdown(fd.get(), SHUT_RDWR);
  for (std::thread& peer : peers_) peer.join();
}

}  // namespace nixq
