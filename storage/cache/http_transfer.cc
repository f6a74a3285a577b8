#include "storage/cache/http_transfer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/clock.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/cache/http_answer.h"

namespace nixq {
namespace {

// An error page is for people: its beginning is kept, and a server that goes
// on and on is hung up on.
constexpr size_t kKeptErrorBytes = 16 << 10;
constexpr size_t kMaxErrorBytes = 1 << 20;

// Answers have some hundred bytes of headers; interim ones (100, 102, 103)
// count, too.
constexpr size_t kMaxHeaderBytes = 256 << 10;

// Fewer bytes of a body in a stall limit are a drip.
constexpr curl_off_t kLeastBytes = 1024;

constexpr int kFirstError = 300;

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 ||
         status == 308;
}

std::chrono::milliseconds Milliseconds(absl::Duration duration) {
  return absl::ToChronoMilliseconds(
      std::clamp(duration, absl::Milliseconds(1), absl::Hours(24 * 365)));
}

std::string HeaderOf(CURL* easy, const char* name) {
  curl_header* header = nullptr;
  if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK) {
    return "";
  }
  return header->value;
}

// What libcurl's codes mean, in one place. What is not listed cannot come from
// HTTP, or is a bug of ours.
absl::StatusCode CodeOf(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_NO_CONNECTION_AVAILABLE:
    case CURLE_AGAIN:
    case CURLE_PROXY:
      return absl::StatusCode::kUnavailable;
    case CURLE_OPERATION_TIMEDOUT:
      return absl::StatusCode::kDeadlineExceeded;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
      return absl::StatusCode::kPermissionDenied;
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_LOGIN_DENIED:
    case CURLE_AUTH_ERROR:
      return absl::StatusCode::kUnauthenticated;
    case CURLE_URL_MALFORMAT:
    case CURLE_TOO_MANY_REDIRECTS:
      return absl::StatusCode::kInvalidArgument;
    case CURLE_OUT_OF_MEMORY:
      return absl::StatusCode::kResourceExhausted;
    case CURLE_ABORTED_BY_CALLBACK:
      return absl::StatusCode::kCancelled;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

void Completion::Done() {
  // Notified under the lock: the waiter may destroy this as soon as it can.
  const std::lock_guard<std::mutex> lock(mutex_);
  if (--open_ == 0) changed_.notify_all();
}

void Completion::Wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return open_ == 0; });
}

absl::StatusOr<HttpCredentials> HttpCredentials::Load(
    const HttpOptions& options) {
  constexpr size_t kMaxFileBytes = 1 << 20;
  HttpCredentials credentials;
  if (!options.bearer_token_file.empty()) {
    const absl::StatusOr<std::string> text =
        ReadFile(options.bearer_token_file, kMaxFileBytes);
    if (!text.ok()) {
      return absl::UnauthenticatedError(absl::StrFormat(
          "bearer token file: %s", std::string(text.status().message())));
    }
    const std::string_view token = Trim(*text);
    const bool good = std::all_of(token.begin(), token.end(),
                                  [](char c) { return c > ' ' && c < 0x7f; });
    if (token.empty() || !good) {
      return absl::UnauthenticatedError(
          absl::StrFormat("bearer token file %s: must hold one printable word",
                          options.bearer_token_file));
    }
    credentials.bearer_token = token;
  }
  if (!options.netrc_file.empty()) {
    // libcurl reads it again for each request and says nothing if it cannot.
    const absl::StatusOr<std::string> text =
        ReadFile(options.netrc_file, kMaxFileBytes);
    if (!text.ok()) {
      return absl::UnauthenticatedError(absl::StrFormat(
          "netrc file: %s", std::string(text.status().message())));
    }
    credentials.secrets.AddNetrc(*text);
  }
  credentials.secrets.Add(credentials.bearer_token);
  credentials.secrets.AddUserOf(options.proxy);
  return credentials;
}

Transfer::Transfer(const HttpOptions& options,
                   const HttpCredentials& credentials,
                   const HttpRequest& request, std::optional<Upload> upload,
                   const Cancellation& cancel, Completion& completion)
    : options_(options),
      credentials_(credentials),
      request_(request),
      upload_(upload),
      cancel_(cancel),
      completion_(completion),
      url_(request.url),
      result_(absl::CancelledError("cancelled")) {}

absl::StatusOr<std::unique_ptr<Transfer>> Transfer::Make(
    const HttpOptions& options, const HttpCredentials& credentials,
    const HttpRequest& request, std::optional<Upload> upload,
    const Cancellation& cancel, Completion& completion) {
  NIXQ_ASSIGN_OR_RETURN(const HttpUrl url, ParseHttpUrl(request.url));
  for (const std::string& header : request.headers) {
    if (header.find_first_of(std::string_view("\r\n\0", 3)) != header.npos) {
      return absl::InvalidArgumentError("a header with a line break");
    }
  }
  std::unique_ptr<Transfer> transfer(
      new Transfer(options, credentials, request, upload, cancel, completion));
  transfer->origin_ = url.Origin();
  return transfer;
}

std::string Transfer::Doing() const {
  return request_.method + " " + ShownUrl(url_);
}

size_t Transfer::OnRead(char* buffer, size_t size) {
  const BodyPipe::Piece piece = upload_->pipe->Read(buffer, size);
  switch (piece.state) {
    case BodyPipe::State::kBytes:
      return piece.size;
    case BodyPipe::State::kWait:
      waiting_for_producer_ = true;
      return CURL_READFUNC_PAUSE;
    case BodyPipe::State::kEnd:
      NoteProgress();
      return 0;
    case BodyPipe::State::kClosed:
      break;
  }
  return CURL_READFUNC_ABORT;
}

size_t Transfer::OnWrite(const char* bytes, size_t size) {
  const bool is_error = status_ >= kFirstError;
  const size_t kept = is_error ? kKeptErrorBytes : request_.max_response_bytes;
  const size_t limit = is_error ? kMaxErrorBytes : request_.max_response_bytes;
  const size_t room = kept - std::min(kept, body_.size());
  body_.append(bytes, std::min(size, room));
  // body_ counts what is kept; an error page is counted by libcurl.
  curl_off_t received = 0;
  curl_easy_getinfo(easy_, CURLINFO_SIZE_DOWNLOAD_T, &received);
  if (static_cast<uint64_t>(received) <= limit && (is_error || size <= room)) {
    return size;
  }
  too_long_ = true;
  return CURL_WRITEFUNC_ERROR;
}

bool Transfer::OnHeader(std::string_view line) {
  header_bytes_ += line.size();
  if (header_bytes_ > kMaxHeaderBytes) return false;
  if (!Trim(line).empty()) return true;
  long code = 0;
  curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &code);
  // 100, 102 and 103 come before the answer, and are no progress: a server
  // could send them for ever.
  if (code < 200) return true;
  NoteProgress();
  status_ = static_cast<int>(code);
  if (upload_.has_value() && upload_->size_bytes != 0 &&
      !upload_->pipe->drained()) {
    answered_early_ = true;
    upload_->pipe->Close();
    // Lets libcurl out of a pause that nothing else would end.
    resume_.store(true);
  }
  return true;
}

void Transfer::OnCounters(curl_off_t down, curl_off_t up) {
  // They begin anew when libcurl has to send again.
  moved_bytes_ += std::max<curl_off_t>(down - last_down_, 0) +
                  std::max<curl_off_t>(up - last_up_, 0);
  last_down_ = down;
  last_up_ = up;
  if (moved_bytes_ >= kLeastBytes) NoteProgress();
}

void Transfer::ResumeIfAsked(TimePoint now) {
  if (!resume_.exchange(false)) return;
  waiting_for_producer_ = false;
  last_progress_ = now;
  moved_bytes_ = 0;
  curl_easy_pause(easy_, CURLPAUSE_CONT);
}

std::optional<Transfer::TimePoint> Transfer::Deadline() const {
  // libcurl has its own timer for connecting; this one is for what it does
  // not count, such as waiting for another request's connection.
  if (!connected_) {
    return last_progress_ + Milliseconds(options_.connect_limit) +
           std::chrono::seconds(1);
  }
  if (waiting_for_producer_) return std::nullopt;
  return last_progress_ + Milliseconds(options_.stall_limit);
}

absl::Status Transfer::DeadlineError() const {
  if (!connected_) {
    return absl::DeadlineExceededError(
        absl::StrFormat("%s: no connection within %s", Doing(),
                        absl::FormatDuration(options_.connect_limit)));
  }
  return absl::DeadlineExceededError(
      absl::StrFormat("%s: fewer than %d bytes moved in %s", Doing(),
                      kLeastBytes, absl::FormatDuration(options_.stall_limit)));
}

absl::Status Transfer::FollowRedirect(const std::string& location) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: redirected (%d) to %s: %s", Doing(), status_,
                        ShownUrl(location), std::string(why)));
  };
  if (upload_.has_value()) {
    return refuse("a stream cannot be sent again; use that URL");
  }
  const bool reads = request_.method == "GET" || request_.method == "HEAD";
  if (!reads && status_ != 307 && status_ != 308) {
    return refuse("only 307 and 308 keep the method and the body");
  }
  if (++redirects_ > options_.max_redirects) {
    return refuse(
        absl::StrFormat("more than %d redirects", options_.max_redirects));
  }
  const absl::StatusOr<HttpUrl> target = ParseHttpUrl(location);
  if (!target.ok()) {
    return refuse(std::string(target.status().message()));
  }
  if (url_.starts_with("https:") && target->scheme != "https") {
    return refuse("https never leads to http");
  }
  // Once elsewhere, the way back does not bring the credentials back.
  same_origin_ = same_origin_ && target->Origin() == origin_;
  url_ = location;
  return absl::OkStatus();
}

absl::Status Transfer::ErrorOf(CURLcode code) const {
  if (header_bytes_ > kMaxHeaderBytes) {
    return absl::UnavailableError(
        absl::StrFormat("%s: the answer has more than %d bytes of headers",
                        Doing(), kMaxHeaderBytes));
  }
  if (too_long_) {
    return absl::OutOfRangeError(
        absl::StrFormat("%s: the answer is longer than %d bytes", Doing(),
                        request_.max_response_bytes));
  }
  absl::StatusCode meaning = CodeOf(code);
  long connect_code = 0;
  curl_easy_getinfo(easy_, CURLINFO_HTTP_CONNECTCODE, &connect_code);
  if (connect_code == 407 || IsAboutOurCertificate(error_text_)) {
    meaning = absl::StatusCode::kUnauthenticated;
  }
  // The text of this very failure, if there is one, says it all.
  std::string detail = Printable(error_text_, CURL_ERROR_SIZE);
  if (detail.empty()) detail = curl_easy_strerror(code);
  return absl::Status(meaning, absl::StrFormat("%s: %s", Doing(), detail));
}

HttpResponse Transfer::TakeResponse() {
  HttpResponse response;
  response.status = status_;
  response.body = std::move(body_);
  response.content_type = HeaderOf(easy_, "Content-Type");
  if (const std::string wait = HeaderOf(easy_, "Retry-After"); !wait.empty()) {
    response.retry_after =
        ParseRetryAfter(wait, HeaderOf(easy_, "Date"), SystemClock().Now());
  }
  return response;
}

Transfer::Next Transfer::Conclude(CURLcode code) {
  const bool refused = status_ >= kFirstError;
  // Hanging up on a server that has answered already is our choice: the answer
  // counts. So is the end of an endless error page.
  const bool has_answer =
      code == CURLE_OK || (refused && (answered_early_ || too_long_));
  if (!has_answer) {
    result_ = answered_early_ && !refused
                  ? absl::UnavailableError(absl::StrFormat(
                        "%s: answered %d before it had the whole body", Doing(),
                        status_))
                  : ErrorOf(code);
    return Next::kDone;
  }
  if (answered_early_ && !refused) {
    result_ = absl::UnavailableError(absl::StrFormat(
        "%s: answered %d before it had the whole body", Doing(), status_));
    return Next::kDone;
  }
  if (IsRedirect(status_)) {
    char* location = nullptr;
    curl_easy_getinfo(easy_, CURLINFO_REDIRECT_URL, &location);
    if (location != nullptr) {
      const absl::Status followed = FollowRedirect(location);
      if (followed.ok()) return Next::kAgain;
      result_ = followed;
      return Next::kDone;
    }
  }
  result_ = TakeResponse();
  return Next::kDone;
}

void Transfer::Complete(absl::StatusOr<HttpResponse> result) {
  easy_ = nullptr;
  const Secrets& secrets = credentials_.secrets;
  if (!result.ok()) {
    result_ = secrets.RemovedFrom(result.status());
  } else {
    result_ = std::move(result);
    if (result_->status >= kFirstError) {
      result_->body = secrets.RemovedFrom(result_->body);
    }
  }
  if (upload_.has_value()) upload_->pipe->Close();
  completion_.Done();
}

}  // namespace nixq
