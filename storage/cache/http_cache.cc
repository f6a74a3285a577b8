#include "storage/cache/http_cache.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/cache/http_url.h"

namespace nixq {
namespace {

// Tells a key that this server cannot store from a server that cannot store.
// Thread-safe.
class PutSuspicion {
 public:
  void Stored() {
    const std::lock_guard<std::mutex> lock(mutex_);
    suspect_.clear();
  }
  // A 500: the key's own fault, unless another key has failed alike since
  // anything was stored.
  bool IsKeysOwn(const std::string& url) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (suspect_.empty()) suspect_ = url;
    return suspect_ == url;
  }

 private:
  std::mutex mutex_;
  std::string suspect_;
};

// Which requests this server does not take, as its answers have taught us.
struct Habits {
  std::atomic<bool> refuses_head{false};
  std::atomic<bool> refuses_chunked{false};
  PutSuspicion puts;
};

bool RefusesMethod(int status) { return status == 405 || status == 501; }

// The login page of a café's network answers everything with 200.
bool IsWebPage(const HttpResponse& response) {
  const std::string type = Lower(response.content_type);
  return type.starts_with("text/html") ||
         type.starts_with("application/xhtml+xml");
}

// Servers that have stored something say so with a page, too (Apache: 201), or
// with a few words that they call one. A portal says 200 and means it.
bool IsPortalInsteadOfPut(const HttpResponse& response) {
  return response.status == 200 && IsWebPage(response) &&
         response.body.find('<') != std::string::npos;
}

absl::Status WebPageError(const std::string& doing) {
  return absl::UnavailableError(absl::StrFormat(
      "%s: answered with a web page; is this network's login page in between?",
      doing));
}

// An answer that tells of the one key that was asked for, as long as the server
// answers for others. 502, 503 and 504 are what stands before a server says
// when that is away.
bool MayBeTheKeysOwn(const HttpResponse& response) {
  return response.status == 500 || response.status < 400;
}

// What is wrong with a request concerns the path that it is for.
absl::Status BlameIfWrong(absl::Status status) {
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status)
             ? BlamePath(std::move(status))
             : status;
}

std::string PutOf(const std::string& url, std::optional<uint64_t> size_bytes) {
  if (!size_bytes.has_value()) return "PUT " + url;
  return absl::StrFormat("PUT %s (%d bytes)", url, *size_bytes);
}

absl::Status StatusOfPut(const HttpResponse& response, const std::string& url,
                         const std::string& doing, Habits& habits) {
  absl::Status status = StatusFromHttp(response, doing);
  if (status.ok() && IsPortalInsteadOfPut(response)) {
    return WebPageError(doing);
  }
  if (status.ok()) habits.puts.Stored();
  if (response.status == 500 && habits.puts.IsKeysOwn(url)) {
    return BlamePath(std::move(status));
  }
  if (absl::IsNotFound(status)) {
    // For readers this means "no such blob"; for us, a wrong URL.
    status = absl::InvalidArgumentError(std::string(status.message()));
  }
  return BlameIfWrong(std::move(status));
}

class HttpBlobWriter : public BlobWriter {
 public:
  HttpBlobWriter(std::unique_ptr<HttpUpload> upload, std::string url,
                 std::string doing, bool chunked, Habits& habits)
      : upload_(std::move(upload)),
        url_(std::move(url)),
        doing_(std::move(doing)),
        chunked_(chunked),
        habits_(habits) {}

  absl::Status Append(std::string_view bytes) override {
    absl::Status appended = upload_->Append(bytes);
    if (appended.ok() || absl::IsInternal(appended)) return appended;
    absl::Status early = Commit();
    // A server that has answered without hearing us out has not got it.
    return early.ok() ? absl::UnavailableError(
                            doing_ + ": answered before it had the whole body")
                      : early;
  }

  absl::Status Commit() override {
    const absl::StatusOr<HttpResponse> response = upload_->Finish();
    if (!response.ok()) return BlameIfWrong(response.status());
    if (chunked_ && (response->status == 411 || response->status == 501)) {
      habits_.refuses_chunked.store(true);
      return absl::UnimplementedError(
          absl::StrFormat("%s: the server takes no body of unknown size (%d)",
                          doing_, response->status));
    }
    return StatusOfPut(*response, url_, doing_, habits_);
  }

 private:
  std::unique_ptr<HttpUpload> upload_;
  const std::string url_;
  const std::string doing_;
  const bool chunked_;
  Habits& habits_;
};

class HttpStore : public BlobStore {
 public:
  HttpStore(std::string base_url, HttpOptions options, HttpClient& client)
      : base_url_(std::move(base_url)),
        options_(std::move(options)),
        client_(client) {}

  absl::StatusOr<std::string> Get(const std::string& key, size_t max_bytes,
                                  const Cancellation& cancel) override;
  absl::StatusOr<KeyAnswers> Exist(const std::vector<std::string>& keys,
                                   const Cancellation& cancel) override;
  absl::Status Put(const std::string& key, std::string_view content_type,
                   std::string_view bytes, const Cancellation& cancel) override;
  absl::StatusOr<std::unique_ptr<BlobWriter>> StartPut(
      const std::string& key, std::string_view content_type,
      std::optional<uint64_t> size_bytes, const Cancellation& cancel) override;
  std::string Describe() const override { return base_url_; }

 private:
  enum class Presence { kThere, kNotThere, kRefusesMethod };

  HttpRequest RequestFor(std::string_view method, const std::string& key) const;
  HttpRequest PutRequest(const std::string& key,
                         std::string_view content_type) const;
  // One wave of HEAD or GET requests for the keys at `indices`; those that the
  // server refuses because of the method are returned.
  absl::StatusOr<std::vector<size_t>> Ask(std::string_view method,
                                          const std::vector<std::string>& keys,
                                          const std::vector<size_t>& indices,
                                          KeyAnswers& there,
                                          const Cancellation& cancel);
  // `doubt`, unless the server answers for a file that every cache has.
  absl::Status UnlessTheServerIsWell(const absl::Status& doubt,
                                     const Cancellation& cancel);
  static absl::StatusOr<Presence> PresenceFrom(
      const absl::StatusOr<HttpResponse>& response, const HttpRequest& request);

  const std::string base_url_;  // without a slash at the end
  const HttpOptions options_;
  HttpClient& client_;
  Habits habits_;
};

HttpRequest HttpStore::RequestFor(std::string_view method,
                                  const std::string& key) const {
  HttpRequest request;
  request.method = method;
  request.url = base_url_ + "/" + key;
  return request;
}

HttpRequest HttpStore::PutRequest(const std::string& key,
                                  std::string_view content_type) const {
  HttpRequest request = RequestFor("PUT", key);
  request.headers.push_back("Content-Type: " + std::string(content_type));
  return request;
}

absl::StatusOr<std::string> HttpStore::Get(const std::string& key,
                                           size_t max_bytes,
                                           const Cancellation& cancel) {
  HttpRequest request = RequestFor("GET", key);
  request.max_response_bytes = max_bytes;
  const std::string doing = "GET " + request.url;
  absl::StatusOr<HttpResponse> response =
      client_.Perform(options_, request, cancel);
  if (!response.ok()) return BlameIfWrong(response.status());
  NIXQ_RETURN_IF_ERROR(BlameIfWrong(StatusFromHttp(*response, doing)));
  if (IsWebPage(*response)) return WebPageError(doing);
  if (response->status != 200) {
    return absl::UnavailableError(absl::StrFormat(
        "%s: answered %d instead of the file", doing, response->status));
  }
  return std::move(response->body);
}

absl::StatusOr<HttpStore::Presence> HttpStore::PresenceFrom(
    const absl::StatusOr<HttpResponse>& response, const HttpRequest& request) {
  // Longer than anybody wants to read, so it is there.
  if (absl::IsOutOfRange(response.status())) return Presence::kThere;
  if (!response.ok()) return BlameIfWrong(response.status());
  if (response->status == 403) return Presence::kNotThere;
  if (request.method == "HEAD" && RefusesMethod(response->status)) {
    return Presence::kRefusesMethod;
  }
  const std::string doing = request.method + " " + request.url;
  const absl::Status status = StatusFromHttp(*response, doing);
  if (absl::IsNotFound(status)) return Presence::kNotThere;
  if (!status.ok()) return BlameIfWrong(status);
  if (IsWebPage(*response)) return WebPageError(doing);
  return Presence::kThere;
}

absl::StatusOr<std::vector<size_t>> HttpStore::Ask(
    std::string_view method, const std::vector<std::string>& keys,
    const std::vector<size_t>& indices, KeyAnswers& there,
    const Cancellation& cancel) {
  constexpr size_t kMaxGetBytes = 64 << 10;
  std::vector<HttpRequest> requests;
  requests.reserve(indices.size());
  for (size_t index : indices) {
    requests.push_back(RequestFor(method, keys[index]));
    requests.back().max_response_bytes = kMaxGetBytes;
  }
  const std::vector<absl::StatusOr<HttpResponse>> responses =
      client_.PerformAll(options_, requests, cancel);
  std::vector<size_t> refused;
  bool answered = false;
  absl::Status doubt;
  for (size_t i = 0; i < indices.size(); ++i) {
    const absl::StatusOr<Presence> presence =
        PresenceFrom(responses[i], requests[i]);
    absl::StatusOr<bool>& answer = there[indices[i]];
    if (presence.ok()) {
      answered = true;
      if (*presence == Presence::kRefusesMethod) refused.push_back(indices[i]);
      answer = *presence == Presence::kThere;
    } else if (IsPathsFault(presence.status())) {
      answer = presence.status();
    } else if (responses[i].ok() && MayBeTheKeysOwn(*responses[i])) {
      doubt = presence.status();
      answer = BlamePath(doubt);
    } else {
      return presence.status();
    }
  }
  if (!doubt.ok() && !answered) {
    NIXQ_RETURN_IF_ERROR(UnlessTheServerIsWell(doubt, cancel));
  }
  return refused;
}

absl::Status HttpStore::UnlessTheServerIsWell(const absl::Status& doubt,
                                              const Cancellation& cancel) {
  constexpr size_t kMaxBytes = 64 << 10;
  const absl::Status well = Get("nix-cache-info", kMaxBytes, cancel).status();
  return well.ok() ? well : doubt;
}

absl::StatusOr<KeyAnswers> HttpStore::Exist(
    const std::vector<std::string>& keys, const Cancellation& cancel) {
  // A wave bounds the memory for requests and answers.
  constexpr size_t kWave = 1024;
  KeyAnswers there(keys.size(), false);
  for (size_t begin = 0; begin < keys.size(); begin += kWave) {
    std::vector<size_t> open;
    for (size_t i = begin; i < keys.size() && i < begin + kWave; ++i) {
      open.push_back(i);
    }
    if (!habits_.refuses_head.load()) {
      NIXQ_ASSIGN_OR_RETURN(open, Ask("HEAD", keys, open, there, cancel));
      if (open.empty()) continue;
      habits_.refuses_head.store(true);
    }
    NIXQ_RETURN_IF_ERROR(Ask("GET", keys, open, there, cancel).status());
  }
  return there;
}

absl::Status HttpStore::Put(const std::string& key,
                            std::string_view content_type,
                            std::string_view bytes,
                            const Cancellation& cancel) {
  HttpRequest request = PutRequest(key, content_type);
  request.body = bytes;
  const absl::StatusOr<HttpResponse> response =
      client_.Perform(options_, request, cancel);
  if (!response.ok()) return BlameIfWrong(response.status());
  return StatusOfPut(*response, request.url, PutOf(request.url, bytes.size()),
                     habits_);
}

absl::StatusOr<std::unique_ptr<BlobWriter>> HttpStore::StartPut(
    const std::string& key, std::string_view content_type,
    std::optional<uint64_t> size_bytes, const Cancellation& cancel) {
  const HttpRequest request = PutRequest(key, content_type);
  const bool chunked = !size_bytes.has_value();
  if (chunked && habits_.refuses_chunked.load()) {
    return absl::UnimplementedError(absl::StrFormat(
        "PUT %s: the server takes no body of unknown size", request.url));
  }
  absl::StatusOr<std::unique_ptr<HttpUpload>> upload =
      client_.StartUpload(options_, request, size_bytes, cancel);
  if (!upload.ok()) return BlameIfWrong(upload.status());
  return std::make_unique<HttpBlobWriter>(*std::move(upload), request.url,
                                          PutOf(request.url, size_bytes),
                                          chunked, habits_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlobStore>> MakeHttpStore(
    const std::string& base_url, const HttpOptions& options,
    HttpClient& client) {
  NIXQ_ASSIGN_OR_RETURN(const HttpUrl url, ParseHttpUrl(base_url));
  NIXQ_RETURN_IF_ERROR(CheckProxyUrl(options.proxy));
  if (url.has_query_or_fragment) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "URL \"%s\": a cache has no query or fragment", ShownUrl(base_url)));
  }
  std::string base = base_url;
  while (base.ends_with('/')) base.pop_back();
  return std::make_unique<HttpStore>(std::move(base), options, client);
}

}  // namespace nixq
