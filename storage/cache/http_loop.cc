#include "storage/cache/http_loop.h"

#include <signal.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr size_t kMaxSpareHandles = 16;
constexpr long kMaxIdleConnections = 64;
constexpr std::chrono::seconds kIdleLimit(60);
constexpr std::chrono::milliseconds kForever(24 * 60 * 60 * 1000);

// Signals are for the thread that the daemon wants to have them; SIGPIPE, which
// TLS libraries can raise, is for nobody.
void BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace

HttpLoop::Multi HttpLoop::MakeMulti() {
  Multi multi(curl_multi_init());
  if (multi != nullptr) {
    curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, kMaxIdleConnections);
    curl_multi_setopt(multi.get(), CURLMOPT_PIPELINING,
                      static_cast<long>(CURLPIPE_MULTIPLEX));
  }
  return multi;
}

absl::Status HttpLoop::StartLocked() {
  if (thread_.joinable()) return absl::OkStatus();
  multi_ = MakeMulti();
  if (multi_ == nullptr) {
    return absl::ResourceExhaustedError("libcurl: out of memory");
  }
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("start the network thread: %s", error.what()));
  }
  return absl::OkStatus();
}

void HttpLoop::Submit(const std::vector<Transfer*>& transfers) {
  absl::Status started;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    started = StartLocked();
    if (started.ok()) {
      submitted_.insert(submitted_.end(), transfers.begin(), transfers.end());
      curl_multi_wakeup(multi_.get());
    }
  }
  if (started.ok()) return;
  for (Transfer* transfer : transfers) transfer->Complete(started);
}

void HttpLoop::Wake() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (multi_ != nullptr) curl_multi_wakeup(multi_.get());
}

HttpLoop::~HttpLoop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    if (multi_ != nullptr) curl_multi_wakeup(multi_.get());
  }
  if (thread_.joinable()) thread_.join();
}

bool HttpLoop::Stopping() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stopping_;
}

void HttpLoop::Run() {
  BlockSignals();
  idle_since_ = std::chrono::steady_clock::now();
  while (!Stopping()) {
    TakeSubmitted();
    SweepGivenUp();
    TimePoint now = std::chrono::steady_clock::now();
    StartWaiting(now);
    int running = 0;
    const CURLMcode performed = curl_multi_perform(multi_.get(), &running);
    if (performed != CURLM_OK) {
      CompleteAll(absl::InternalError(
          absl::StrFormat("libcurl: %s", curl_multi_strerror(performed))));
    }
    now = std::chrono::steady_clock::now();
    TakeConcluded(now);
    AfterPerform(now);
    SweepStalled(now);
    // What has just become free serves what waits before anybody sleeps.
    StartWaiting(now);
    Poll(now);
  }
  TakeSubmitted();
  CompleteAll(absl::CancelledError("the HTTP client is going away"));
  spare_.clear();
}

void HttpLoop::TakeSubmitted() {
  std::vector<Transfer*> submitted;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    submitted.swap(submitted_);
  }
  for (Transfer* transfer : submitted) {
    servers_[transfer->origin()].waiting.push_back(transfer);
    ++cancellations_[&transfer->cancel()];
    used_ = true;
  }
}

void HttpLoop::StartWaiting(TimePoint now) {
  for (auto& [origin, server] : servers_) StartOn(server, now);
  std::erase_if(servers_, [](const auto& entry) {
    return entry.second.under_way == 0 && entry.second.waiting.empty();
  });
}

void HttpLoop::StartOn(Server& server, TimePoint now) {
  while (!server.waiting.empty()) {
    Transfer* transfer = server.waiting.front();
    if (const absl::Status doom = transfer->completion().doom(); !doom.ok()) {
      server.waiting.pop_front();
      Release(transfer);
      transfer->Complete(doom);
      continue;
    }
    const bool alone = transfer->over_tls() && !server.probed;
    const int limit = alone ? 1 : std::max(1, transfer->max_connections());
    if (server.under_way >= limit) return;
    server.waiting.pop_front();
    ++server.under_way;
    Easy easy;
    if (!spare_.empty()) {
      easy = std::move(spare_.back());
      spare_.pop_back();
    } else {
      easy.reset(curl_easy_init());
    }
    flights_.push_back({transfer, std::move(easy)});
    absl::Status begun = absl::ResourceExhaustedError("libcurl: out of memory");
    if (CURL* handle = flights_.back().easy.get(); handle != nullptr) {
      begun = transfer->Begin(handle, now);
      if (begun.ok()) curl_multi_add_handle(multi_.get(), handle);
    }
    if (!begun.ok()) Finish(flights_.size() - 1, begun);
  }
}

void HttpLoop::TakeConcluded(TimePoint now) {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    CURL* easy = message->easy_handle;
    const CURLcode code = message->data.result;
    const auto flight =
        std::find_if(flights_.begin(), flights_.end(),
                     [&](const Flight& f) { return f.easy.get() == easy; });
    if (flight == flights_.end()) continue;
    Transfer* transfer = flight->transfer;
    const size_t index = static_cast<size_t>(flight - flights_.begin());
    if (transfer->Conclude(code) == Transfer::Next::kDone) {
      Finish(index, std::move(transfer->result()));
      continue;
    }
    curl_multi_remove_handle(multi_.get(), easy);
    const absl::Status begun = transfer->Begin(easy, now);
    if (begun.ok()) {
      curl_multi_add_handle(multi_.get(), easy);
    } else {
      Finish(index, begun);
    }
  }
}

void HttpLoop::AfterPerform(TimePoint now) {
  for (const Flight& flight : flights_) {
    flight.transfer->ResumeIfAsked(now);
    if (flight.transfer->connected()) {
      servers_[flight.transfer->origin()].probed = true;
    }
  }
}

void HttpLoop::SweepGivenUp() {
  for (size_t i = flights_.size(); i-- > 0;) {
    if (flights_[i].transfer->given_up()) {
      Finish(i, absl::CancelledError("cancelled"));
    }
  }
  for (auto& [origin, server] : servers_) {
    std::deque<Transfer*> staying;
    std::vector<Transfer*> leaving;
    for (Transfer* transfer : server.waiting) {
      if (transfer->given_up()) {
        leaving.push_back(transfer);
      } else {
        staying.push_back(transfer);
      }
    }
    if (leaving.empty()) continue;
    server.waiting.swap(staying);
    for (Transfer* transfer : leaving) {
      Release(transfer);
      transfer->Complete(absl::CancelledError("cancelled"));
    }
  }
}

void HttpLoop::SweepStalled(TimePoint now) {
  for (size_t i = flights_.size(); i-- > 0;) {
    const auto deadline = flights_[i].transfer->Deadline();
    if (deadline.has_value() && *deadline <= now) {
      Finish(i, flights_[i].transfer->DeadlineError());
    }
  }
}

void HttpLoop::Release(Transfer* transfer) {
  const auto watched = cancellations_.find(&transfer->cancel());
  if (--watched->second == 0) cancellations_.erase(watched);
}

void HttpLoop::Finish(size_t index, absl::StatusOr<HttpResponse> result) {
  Flight flight = std::move(flights_[index]);
  flights_[index] = std::move(flights_.back());
  flights_.pop_back();
  // Cuts the connection if the request is not through.
  if (flight.easy != nullptr) {
    curl_multi_remove_handle(multi_.get(), flight.easy.get());
    curl_easy_reset(flight.easy.get());
    if (spare_.size() < kMaxSpareHandles) {
      spare_.push_back(std::move(flight.easy));
    }
  }
  Server& server = servers_[flight.transfer->origin()];
  --server.under_way;
  server.probed = true;
  if (absl::IsUnavailable(result.status()) ||
      absl::IsDeadlineExceeded(result.status())) {
    flight.transfer->completion().Doom(result.status());
  }
  Release(flight.transfer);
  flight.transfer->Complete(std::move(result));
}

void HttpLoop::CompleteAll(const absl::Status& status) {
  while (!flights_.empty()) Finish(flights_.size() - 1, status);
  for (auto& [origin, server] : servers_) {
    for (Transfer* transfer : server.waiting) {
      Release(transfer);
      transfer->Complete(status);
    }
  }
  servers_.clear();
}

void HttpLoop::Poll(TimePoint now) {
  const bool idle = flights_.empty() && servers_.empty();
  if (!idle) {
    idle_since_ = now;
  } else if (used_ && now - idle_since_ >= kIdleLimit) {
    ForgetIdle(now);
  }
  TimePoint until = now + kForever;
  if (idle && used_) until = idle_since_ + kIdleLimit;
  for (const Flight& flight : flights_) {
    until = std::min(until, flight.transfer->Deadline().value_or(until));
  }
  std::vector<curl_waitfd> watched;
  for (const auto& [cancellation, count] : cancellations_) {
    if (cancellation->fd() >= 0) {
      watched.push_back({cancellation->fd(), CURL_WAIT_POLLIN, 0});
    } else {
      // Out of descriptors when it was made: look again soon.
      until = std::min(until, now + std::chrono::milliseconds(100));
    }
  }
  // Rounded up, so as not to wake just before the deadline.
  const auto wait =
      std::chrono::duration_cast<std::chrono::milliseconds>(until - now) +
      std::chrono::milliseconds(1);
  const CURLMcode polled = curl_multi_poll(
      multi_.get(), watched.empty() ? nullptr : watched.data(),
      static_cast<unsigned>(watched.size()),
      static_cast<int>(
          std::clamp(wait, std::chrono::milliseconds(0), kForever).count()),
      nullptr);
  if (polled != CURLM_OK) {
    CompleteAll(absl::ResourceExhaustedError(
        absl::StrFormat("libcurl: %s", curl_multi_strerror(polled))));
  }
}

// An idle daemon holds no connections, buffers and TLS sessions.
void HttpLoop::ForgetIdle(TimePoint now) {
  used_ = false;
  idle_since_ = now;
  spare_.clear();
  Multi fresh = MakeMulti();
  if (fresh == nullptr) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  multi_.swap(fresh);
}

}  // namespace nixq
