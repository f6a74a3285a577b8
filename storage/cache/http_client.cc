#include "storage/cache/http_client.h"

#include <curl/curl.h>

#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/cache/body_pipe.h"
#include "storage/cache/http_loop.h"
#include "storage/cache/http_transfer.h"

namespace nixq {
namespace {

// libcurl's own state of the process; it lives as long as the process.
bool InitializeLibrary() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  return code == CURLE_OK;
}

class Upload : public HttpUpload {
 public:
  static absl::StatusOr<std::unique_ptr<HttpUpload>> Start(
      HttpLoop& loop, const HttpOptions& options, const HttpRequest& request,
      std::optional<uint64_t> size_bytes, const Cancellation& cancel) {
    NIXQ_ASSIGN_OR_RETURN(HttpCredentials credentials,
                          HttpCredentials::Load(options));
    std::unique_ptr<Upload> upload(new Upload(
        loop, options, request, std::move(credentials), size_bytes, cancel));
    NIXQ_ASSIGN_OR_RETURN(
        upload->transfer_,
        Transfer::Make(upload->options_, upload->credentials_, upload->request_,
                       Transfer::Upload{&upload->pipe_, size_bytes}, cancel,
                       upload->completion_));
    // An empty body is whole from the start: it waits for Finish.
    if (size_bytes != 0) upload->Submit();
    return std::unique_ptr<HttpUpload>(std::move(upload));
  }
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  ~Upload() override {
    if (submitted_) Abort();
  }

  absl::Status Append(std::string_view bytes) override {
    sent_bytes_ += bytes.size();
    if (size_bytes_.has_value() && sent_bytes_ > *size_bytes_) {
      return SizeError();
    }
    if (pipe_.Write(bytes)) return absl::OkStatus();
    failed_ = true;
    completion_.Wait();
    const absl::StatusOr<HttpResponse>& result = transfer_->result();
    if (!result.ok()) return result.status();
    return StatusFromHttp(*result, "PUT " + ShownUrl(request_.url));
  }

  absl::StatusOr<HttpResponse> Finish() override {
    if (!failed_ && size_bytes_.has_value() && sent_bytes_ != *size_bytes_) {
      return SizeError();
    }
    // The loop may not have noticed yet, and would send the end.
    if (cancel_.cancelled()) return absl::CancelledError("cancelled");
    pipe_.Finish();
    if (!submitted_) Submit();
    completion_.Wait();
    return transfer_->result();
  }

 private:
  Upload(HttpLoop& loop, HttpOptions options, HttpRequest request,
         HttpCredentials credentials, std::optional<uint64_t> size_bytes,
         const Cancellation& cancel)
      : loop_(loop),
        options_(std::move(options)),
        request_(std::move(request)),
        credentials_(std::move(credentials)),
        size_bytes_(size_bytes),
        cancel_(cancel),
        pipe_([this] {
          transfer_->AskToResume();
          loop_.Wake();
        }),
        completion_(1) {}

  void Submit() {
    submitted_ = true;
    loop_.Submit({transfer_.get()});
  }

  void Abort() {
    transfer_->AskToAbort();
    loop_.Wake();
    completion_.Wait();
  }

  absl::Status SizeError() const {
    return absl::InternalError(
        absl::StrFormat("PUT %s: %d bytes were promised, %d came",
                        ShownUrl(request_.url), *size_bytes_, sent_bytes_));
  }

  HttpLoop& loop_;
  const HttpOptions options_;
  const HttpRequest request_;
  const HttpCredentials credentials_;
  const std::optional<uint64_t> size_bytes_;
  const Cancellation& cancel_;
  uint64_t sent_bytes_ = 0;
  bool submitted_ = false;
  bool failed_ = false;
  BodyPipe pipe_;
  Completion completion_;
  std::unique_ptr<Transfer> transfer_;
};

}  // namespace

class HttpClient::Impl {
 public:
  HttpLoop& loop() { return loop_; }

 private:
  bool initialized_ = InitializeLibrary();
  HttpLoop loop_;
};

HttpClient::HttpClient() : impl_(std::make_unique<Impl>()) {}
HttpClient::~HttpClient() = default;

absl::StatusOr<HttpResponse> HttpClient::Perform(const HttpOptions& options,
                                                 const HttpRequest& request,
                                                 const Cancellation& cancel) {
  return std::move(PerformAll(options, {request}, cancel).front());
}

std::vector<absl::StatusOr<HttpResponse>> HttpClient::PerformAll(
    const HttpOptions& options, const std::vector<HttpRequest>& requests,
    const Cancellation& cancel) {
  std::vector<absl::StatusOr<HttpResponse>> results;
  results.reserve(requests.size());
  const absl::StatusOr<HttpCredentials> credentials =
      HttpCredentials::Load(options);
  if (!credentials.ok()) {
    results.assign(requests.size(), credentials.status());
    return results;
  }
  Completion completion(requests.size());
  std::vector<absl::StatusOr<std::unique_ptr<Transfer>>> transfers;
  transfers.reserve(requests.size());
  std::vector<Transfer*> submitted;
  for (const HttpRequest& request : requests) {
    transfers.push_back(Transfer::Make(options, *credentials, request,
                                       std::nullopt, cancel, completion));
    if (transfers.back().ok()) {
      submitted.push_back(transfers.back()->get());
    } else {
      completion.Done();
    }
  }
  if (!submitted.empty()) impl_->loop().Submit(submitted);
  completion.Wait();
  for (auto& transfer : transfers) {
    if (transfer.ok()) {
      results.push_back(std::move((*transfer)->result()));
    } else {
      results.emplace_back(transfer.status());
    }
  }
  return results;
}

absl::StatusOr<std::unique_ptr<HttpUpload>> HttpClient::StartUpload(
    const HttpOptions& options, const HttpRequest& request,
    std::optional<uint64_t> size_bytes, const Cancellation& cancel) {
  return Upload::Start(impl_->loop(), options, request, size_bytes, cancel);
}

}  // namespace nixq
