// The network thread: one libcurl multi handle, all transfers of all servers.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "storage/cache/http_transfer.h"

namespace nixq {

// Submit and Wake are for any thread; the rest is the loop's own. At most
// max_connections transfers of one server are under way, first come first
// served; the others wait. Every submitted transfer is completed, by the
// destructor at the latest (CANCELLED).
class HttpLoop {
 public:
  HttpLoop() = default;
  HttpLoop(const HttpLoop&) = delete;
  HttpLoop& operator=(const HttpLoop&) = delete;
  ~HttpLoop();

  // Starts the thread with the first call.
  void Submit(const std::vector<Transfer*>& transfers);
  // After AskToResume or AskToAbort.
  void Wake();

 private:
  using TimePoint = Transfer::TimePoint;
  struct Server {
    int under_way = 0;
    // Over TLS the first transfer goes alone until its connection is there
    // (or failed), so that the others can be streams on it.
    bool probed = false;
    std::deque<Transfer*> waiting;
  };
  struct CleanEasy {
    void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
  };
  struct CleanMulti {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
  };
  using Easy = std::unique_ptr<CURL, CleanEasy>;
  using Multi = std::unique_ptr<CURLM, CleanMulti>;
  struct Flight {
    Transfer* transfer;
    Easy easy;
  };

  static Multi MakeMulti();
  absl::Status StartLocked();
  void Run();
  bool Stopping();

  void TakeSubmitted();
  void StartWaiting(TimePoint now);
  void StartOn(Server& server, TimePoint now);
  bool Begin(Transfer* transfer, TimePoint now);
  void TakeConcluded(TimePoint now);
  void AfterPerform(TimePoint now);
  void SweepGivenUp();
  void SweepStalled(TimePoint now);
  void Finish(size_t flight, absl::StatusOr<HttpResponse> result);
  void Release(Transfer* transfer);
  void CompleteAll(const absl::Status& status);
  void Poll(TimePoint now);
  void ForgetIdle(TimePoint now);

  std::mutex mutex_;
  bool stopping_ = false;  // guarded by mutex_, as the next two
  std::vector<Transfer*> submitted_;
  Multi multi_;  // replaced under mutex_, used by the loop without
  std::thread thread_;

  std::map<std::string, Server> servers_;
  std::vector<Flight> flights_;
  std::vector<Easy> spare_;
  // Distinct cancellations of all that waits or is under way.
  std::map<const Cancellation*, size_t> cancellations_;
  TimePoint idle_since_;
  bool used_ = false;  // there may be something to forget
};

}  // namespace nixq
