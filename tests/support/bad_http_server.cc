#include "tests/support/bad_http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr std::chrono::seconds kWaitLimit(30);

}  // namespace

Fault Fault::Answer(int status, std::vector<std::string> headers) {
  Fault fault;
  fault.status = status;
  fault.headers = std::move(headers);
  fault.end = End::kKeep;
  return fault;
}

Fault Fault::ResetAfter(size_t body_bytes) {
  Fault fault;
  fault.after_body_bytes = body_bytes;
  fault.end = End::kReset;
  return fault;
}

Fault Fault::Hang() {
  Fault fault;
  fault.end = End::kHang;
  return fault;
}

// One client's connection, in its own thread.
class BadHttpServer::Connection {
 public:
  Connection(BadHttpServer& server, UniqueFd fd, int number)
      : server_(server), fd_(std::move(fd)), number_(number) {}

  void Run() {
    while (ServeOne()) {
    }
  }

 private:
  // Waits for more of the request. False: no more comes.
  bool Fill() {
    pollfd fds[2] = {{fd_.get(), POLLIN, 0},
                     {server_.stop_read_.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 || fds[1].revents != 0) return false;
    char bytes[64 * 1024];
    const ssize_t got = recv(fd_.get(), bytes, sizeof bytes, 0);
    if (got <= 0) return false;
    input_.append(bytes, static_cast<size_t>(got));
    return true;
  }

  std::optional<std::string> Line() {
    size_t end;
    while ((end = input_.find("\r\n")) == std::string::npos) {
      if (!Fill()) return std::nullopt;
    }
    std::string line = input_.substr(0, end);
    input_.erase(0, end + 2);
    return line;
  }

  // Up to `count` bytes into the body; fewer if the client goes.
  bool Take(size_t count, SeenRequest& request) {
    while (count > 0) {
      if (input_.empty() && !Fill()) return false;
      const size_t piece = std::min(count, input_.size());
      request.body.append(input_, 0, piece);
      input_.erase(0, piece);
      count -= piece;
    }
    return true;
  }

  // Reads the body, or only its first `limit` bytes. False: cut off.
  bool ReadBody(SeenRequest& request, size_t limit) {
    if (request.headers["transfer-encoding"] != "chunked") {
      const size_t length = static_cast<size_t>(
          ParseUint(request.headers["content-length"]).value_or(0));
      if (!Take(std::min(length, limit), request)) return false;
      request.complete = request.body.size() == length;
      return true;
    }
    while (request.body.size() < limit) {
      const std::optional<std::string> size_line = Line();
      if (!size_line.has_value()) return false;
      const size_t size = std::stoul(*size_line, nullptr, 16);
      if (!Take(std::min(size, limit - request.body.size()), request)) {
        return false;
      }
      if (request.body.size() >= limit) return true;
      if (!Line().has_value()) return false;
      if (size == 0) {
        request.complete = true;
        return true;
      }
    }
    return true;
  }

  bool ReadHead(SeenRequest& request) {
    const std::optional<std::string> line = Line();
    if (!line.has_value()) return false;
    const std::vector<std::string> words = Split(*line, ' ');
    if (words.size() < 2) return false;
    request.method = words[0];
    request.target = words[1];
    request.connection = number_;
    while (true) {
      const std::optional<std::string> header = Line();
      if (!header.has_value()) return false;
      if (header->empty()) return true;
      const size_t colon = header->find(':');
      if (colon == std::string::npos) return false;
      request.headers[Lower(header->substr(0, colon))] =
          Trim(std::string_view(*header).substr(colon + 1));
    }
  }

  bool SendAll(std::string_view bytes, std::optional<absl::Duration> drip) {
    while (!bytes.empty()) {
      const size_t piece = drip.has_value() ? 1 : bytes.size();
      const ssize_t sent = send(fd_.get(), bytes.data(), piece, MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
      if (drip.has_value()) absl::SleepFor(*drip);
    }
    return true;
  }

  bool Answer(int status, const std::vector<std::string>& headers,
              std::string_view body, bool with_body) {
    std::string head = absl::StrFormat(
        "HTTP/1.1 %d Scripted\r\nContent-Length: %d\r\n", status, body.size());
    for (const std::string& header : headers) head += header + "\r\n";
    head += "\r\n";
    return SendAll(with_body ? head + std::string(body) : head, std::nullopt);
  }

  bool Serve(const SeenRequest& request) {
    const bool with_body = request.method != "HEAD";
    if (request.method == "PUT") {
      {
        const std::lock_guard<std::mutex> lock(server_.mutex_);
        server_.blobs_[request.target] = request.body;
      }
      return Answer(201, {}, "", true);
    }
    std::string blob;
    {
      const std::lock_guard<std::mutex> lock(server_.mutex_);
      const auto found = server_.blobs_.find(request.target);
      if (found == server_.blobs_.end()) {
        blob.clear();
      } else {
        blob = found->second;
      }
    }
    if (blob.empty()) return Answer(404, {}, "not here\n", with_body);
    return Answer(200, {}, blob, with_body);
  }

  // Waits for the client to go away.
  void Hang(bool deaf) {
    if (deaf) {
      pollfd fds[2] = {{fd_.get(), POLLRDHUP, 0},
                       {server_.stop_read_.get(), POLLIN, 0}};
      poll(fds, 2, -1);
    } else {
      while (Fill()) input_.clear();
    }
    server_.NoteAbandoned();
  }

  bool Misbehave(const Fault& fault, const SeenRequest& request) {
    server_.NoteFired();
    if (fault.status != 0) {
      std::string text =
          absl::StrFormat("HTTP/1.1 %d Scripted\r\nContent-Length: %d\r\n",
                          fault.status, fault.body.size());
      for (const std::string& header : fault.headers) text += header + "\r\n";
      if (fault.end != Fault::End::kKeep) text += "Connection: close\r\n";
      text += "\r\n";
      if (request.method != "HEAD") {
        text += fault.body.substr(
            0, fault.send_body_bytes.value_or(fault.body.size()));
      }
      SendAll(text, fault.drip);
    }
    switch (fault.end) {
      case Fault::End::kKeep:
        return request.complete;
      case Fault::End::kClose: {
        // Reads on for a moment, as servers do, so that the answer is not
        // lost to a reset.
        shutdown(fd_.get(), SHUT_WR);
        while (Fill()) input_.clear();
        return false;
      }
      case Fault::End::kReset: {
        const linger now = {1, 0};
        setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
        fd_.Reset();
        return false;
      }
      case Fault::End::kHang:
        Hang(fault.deaf);
        return false;
    }
    return false;
  }

  bool ServeOne() {
    SeenRequest request;
    if (!ReadHead(request)) return false;
    Count(+1);
    const std::optional<Fault> fault =
        server_.FaultFor(request.method + " " + request.target);
    const size_t limit = fault.has_value()
                             ? fault->after_body_bytes.value_or(SIZE_MAX)
                             : SIZE_MAX;
    const bool came = ReadBody(request, limit);
    {
      const std::lock_guard<std::mutex> lock(server_.mutex_);
      server_.requests_.push_back(request);
    }
    bool go_on = false;
    if (came) {
      go_on = fault.has_value() ? Misbehave(*fault, request) : Serve(request);
    }
    Count(-1);
    return go_on;
  }

  void Count(int change) {
    const std::lock_guard<std::mutex> lock(server_.mutex_);
    server_.under_way_ += change;
    server_.max_under_way_ =
        std::max(server_.max_under_way_, server_.under_way_);
  }

  BadHttpServer& server_;
  UniqueFd fd_;
  const int number_;
  std::string input_;
};

BadHttpServer::BadHttpServer() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
  stop_read_.Reset(ends[0]);
  stop_write_.Reset(ends[1]);
  listener_.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener_.get(), generic, length) != 0 ||
      listen(listener_.get(), 512) != 0 ||
      getsockname(listener_.get(), generic, &length) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

BadHttpServer::~BadHttpServer() {
  [[maybe_unused]] const ssize_t written = write(stop_write_.get(), "x", 1);
  acceptor_.join();
  for (std::thread& connection : connections_) connection.join();
}

std::string BadHttpServer::url() const {
  return absl::StrFormat("http://127.0.0.1:%d", port_);
}

void BadHttpServer::Accept() {
  for (int number = 0;; ++number) {
    pollfd fds[2] = {{listener_.get(), POLLIN, 0},
                     {stop_read_.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 || fds[1].revents != 0) return;
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd.valid()) continue;
    const int one = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connections_.emplace_back([this, number, fd = std::move(fd)]() mutable {
      Connection(*this, std::move(fd), number).Run();
    });
  }
}

void BadHttpServer::Script(const std::string& prefix,
                           std::vector<Fault> faults) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto& script = scripts_[prefix];
  script.insert(script.end(), faults.begin(), faults.end());
}

void BadHttpServer::ScriptAlways(const std::string& prefix, Fault fault) {
  const std::lock_guard<std::mutex> lock(mutex_);
  always_[prefix] = std::move(fault);
}

std::optional<Fault> BadHttpServer::FaultFor(const std::string& request_line) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [prefix, script] : scripts_) {
    if (script.empty() || !request_line.starts_with(prefix)) continue;
    Fault fault = std::move(script.front());
    script.pop_front();
    return fault;
  }
  for (const auto& [prefix, fault] : always_) {
    if (request_line.starts_with(prefix)) return fault;
  }
  return std::nullopt;
}

void BadHttpServer::NoteFired() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++fired_;
  changed_.notify_all();
}

void BadHttpServer::NoteAbandoned() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++abandoned_;
  changed_.notify_all();
}

int BadHttpServer::fired() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return fired_;
}

bool BadHttpServer::WaitUntilFired(int count) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, kWaitLimit, [&] { return fired_ >= count; });
}

bool BadHttpServer::WaitUntilAbandoned(int count) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, kWaitLimit,
                           [&] { return abandoned_ >= count; });
}

std::vector<SeenRequest> BadHttpServer::requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

std::map<std::string, std::string> BadHttpServer::blobs() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return blobs_;
}

void BadHttpServer::SetBlob(const std::string& target,
                            const std::string& bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  blobs_[target] = bytes;
}

int BadHttpServer::max_simultaneous_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return max_under_way_;
}

}  // namespace nixq
