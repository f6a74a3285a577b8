// An HTTP/1.1 server on loopback that keeps blobs in memory and misbehaves on
// request, one scripted fault for one request.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "storage/base/io.h"

namespace nixq {

// What to do with one request instead of serving it.
struct Fault {
  // The answer; 0: none at all.
  int status = 0;
  std::vector<std::string> headers;  // "Name: value"
  std::string body;
  // Acts after this many bytes of the request's body; by default after all.
  std::optional<size_t> after_body_bytes;
  // Sends only this much of the answer's body, but promises all of it.
  std::optional<size_t> send_body_bytes;
  // Sends the answer byte by byte with this pause between.
  std::optional<absl::Duration> drip;
  // How it ends: keep the connection, close it, reset it (RST), or say and do
  // nothing more until the client goes away.
  enum class End { kKeep, kClose, kReset, kHang } end = End::kClose;

  // With kHang: does not read either, so that the client cannot go on sending.
  bool deaf = false;

  static Fault Answer(int status, std::vector<std::string> headers = {});
  static Fault ResetAfter(size_t body_bytes);
  static Fault Hang();
};

struct SeenRequest {
  std::string method;
  std::string target;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // what came of it
  bool complete = false;                       // all of it came
  int connection = 0;                          // which one, from 0
};

// Thread-safe. One thread for each connection; all end with the destructor.
class BadHttpServer {
 public:
  BadHttpServer();
  ~BadHttpServer();
  BadHttpServer(const BadHttpServer&) = delete;
  BadHttpServer& operator=(const BadHttpServer&) = delete;

  int port() const { return port_; }
  std::string url() const;

  // The next requests whose "METHOD target" begins with `prefix` meet these
  // faults, one each; afterwards they are served again.
  void Script(const std::string& prefix, std::vector<Fault> faults);
  // For every request with this prefix, for good.
  void ScriptAlways(const std::string& prefix, Fault fault);

  // How many faults have acted. Waits until there are `count`, at most 30 s.
  int fired() const;
  bool WaitUntilFired(int count);
  // The client has gone away from a hanging request; waits as above.
  bool WaitUntilAbandoned(int count);

  std::vector<SeenRequest> requests() const;
  // Whole bodies of PUT requests that were served, by target.
  std::map<std::string, std::string> blobs() const;
  void SetBlob(const std::string& target, const std::string& bytes);
  int max_simultaneous_requests() const;

 private:
  class Connection;

  void Accept();
  std::optional<Fault> FaultFor(const std::string& request_line);
  void NoteFired();
  void NoteAbandoned();

  UniqueFd listener_;
  UniqueFd stop_read_;
  UniqueFd stop_write_;
  int port_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::deque<Fault>> scripts_;
  std::map<std::string, Fault> always_;
  std::vector<SeenRequest> requests_;
  std::map<std::string, std::string> blobs_;
  int fired_ = 0;
  int abandoned_ = 0;
  int under_way_ = 0;
  int max_under_way_ = 0;
  std::list<std::thread> connections_;
  std::thread acceptor_;
};

}  // namespace nixq
