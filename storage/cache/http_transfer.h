// One HTTP request from its caller's hands through libcurl and back.
//
// The caller makes a Transfer, gives it to HttpLoop and waits for its
// Completion; in between the loop's thread alone touches it, except for what
// is marked "any thread". The caller keeps everything that the Transfer
// points to alive until then.
#pragma once

#include <curl/curl.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "storage/base/cancel.h"
#include "storage/cache/body_pipe.h"
#include "storage/cache/http_client.h"
#include "storage/cache/http_url.h"
#include "storage/cache/secrets.h"

namespace nixq {

class EasyOptions;  // in http_transfer_setup.cc

// Counts the transfers of one caller that are not done yet.
class Completion {
 public:
  explicit Completion(size_t open) : open_(open) {}
  void Done();
  void Wait();
  // Loop thread: the server is not there for us; what this caller has waiting
  // need not find out one by one. The first error stays.
  void Doom(const absl::Status& error) { doom_.Update(error); }
  const absl::Status& doom() const { return doom_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t open_;
  absl::Status doom_;
};

// What a request shows to the server that it was meant for, and to no other.
struct HttpCredentials {
  std::string bearer_token;
  // These and the proxy's, to be left out of every message.
  Secrets secrets;

  // Reads the bearer token; sees that the netrc file can be read.
  // UNAUTHENTICATED names the file that is missing or malformed.
  static absl::StatusOr<HttpCredentials> Load(const HttpOptions& options);
};

class Transfer {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Upload {
    BodyPipe* pipe = nullptr;
    std::optional<uint64_t> size_bytes;
  };

  // Errors: INVALID_ARGUMENT for a URL or header that cannot be sent.
  static absl::StatusOr<std::unique_ptr<Transfer>> Make(
      const HttpOptions& options, const HttpCredentials& credentials,
      const HttpRequest& request, std::optional<Upload> upload,
      const Cancellation& cancel, Completion& completion);
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Any thread: asks the loop, once woken, to go on reading the pipe, or to
  // give up with CANCELLED.
  void AskToResume() { resume_.store(true); }
  void AskToAbort() { abort_.store(true); }

  // The server whose connections are counted.
  const std::string& origin() const { return origin_; }
  int max_connections() const { return options_.max_connections; }
  bool over_tls() const { return origin_.starts_with("https:"); }
  // Loop thread: the request is on a connection.
  bool connected() const { return connected_; }
  Completion& completion() { return completion_; }
  const Cancellation& cancel() const { return cancel_; }
  bool given_up() const { return abort_.load() || cancel_.cancelled(); }

  // Sets `easy` up for the request or, after kAgain, for where it was
  // redirected to. `easy` must outlive the transfer's time in the loop.
  absl::Status Begin(CURL* easy, TimePoint now);
  CURL* easy() const { return easy_; }

  enum class Next { kDone, kAgain };
  // libcurl is through with it: a result, or a redirect to follow.
  Next Conclude(CURLcode code);

  // Goes on after AskToResume.
  void ResumeIfAsked(TimePoint now);
  // When it counts as stalled unless enough moves; nullopt while the waiting
  // is for our own producer.
  std::optional<TimePoint> Deadline() const;
  // What to fail with at the deadline.
  absl::Status DeadlineError() const;

  // Last touch: gives the result to the caller, without secrets in errors and
  // error pages.
  void Complete(absl::StatusOr<HttpResponse> result);
  void CompleteWithResult() { Complete(std::move(result_)); }
  // Caller, after the completion.
  absl::StatusOr<HttpResponse>& result() { return result_; }

 private:
  Transfer(const HttpOptions& options, const HttpCredentials& credentials,
           const HttpRequest& request, std::optional<Upload> upload,
           const Cancellation& cancel, Completion& completion);

  // In http_transfer_setup.cc.
  void SetUpServer(EasyOptions& set);
  void SetUpIdentity(EasyOptions& set);
  void SetUpRequest(EasyOptions& set);
  void SetUpCallbacks(EasyOptions& set);

  size_t OnRead(char* buffer, size_t size);
  size_t OnWrite(const char* bytes, size_t size);
  // False: there are too many.
  bool OnHeader(std::string_view line);
  void OnCounters(curl_off_t down, curl_off_t up);

  absl::Status FollowRedirect(const std::string& location);
  absl::Status ErrorOf(CURLcode code) const;
  HttpResponse TakeResponse();
  std::string Doing() const;
  void NoteProgress() {
    last_progress_ = std::chrono::steady_clock::now();
    moved_bytes_ = 0;
  }

  const HttpOptions& options_;
  const HttpCredentials& credentials_;
  const HttpRequest& request_;
  const std::optional<Upload> upload_;
  const Cancellation& cancel_;
  Completion& completion_;
  std::atomic<bool> resume_{false};
  std::atomic<bool> abort_{false};

  std::string origin_;
  std::string url_;
  bool same_origin_ = true;  // of url_ and what the caller asked for
  int redirects_ = 0;

  struct FreeList {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };
  CURL* easy_ = nullptr;
  std::unique_ptr<curl_slist, FreeList> headers_;
  char error_text_[CURL_ERROR_SIZE] = {};
  TimePoint last_progress_;
  curl_off_t last_down_ = 0;
  curl_off_t last_up_ = 0;
  curl_off_t moved_bytes_ = 0;  // since last_progress_
  size_t header_bytes_ = 0;
  bool connected_ = false;
  bool waiting_for_producer_ = false;
  int status_ = 0;  // of the final header block
  bool answered_early_ = false;
  bool too_long_ = false;
  std::string body_;
  absl::StatusOr<HttpResponse> result_;
};

}  // namespace nixq
