#include "storage/cache/http_answer.h"

#include <curl/curl.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/cache/http_client.h"

namespace nixq {
namespace {

std::optional<absl::Time> ParseHttpDate(const std::string& text) {
  const time_t seconds = curl_getdate(text.c_str(), nullptr);
  if (seconds == -1) return std::nullopt;
  return absl::FromTimeT(seconds);
}

// The part of an error page that a person wants: its title, or its beginning.
std::string Gist(std::string_view body) {
  constexpr std::string_view kTitle = "<title>";
  constexpr size_t kMaxBytes = 200;
  if (const size_t title = body.find(kTitle); title != body.npos) {
    body.remove_prefix(title + kTitle.size());
    body = body.substr(0, body.find('<'));
  }
  std::string gist;
  for (std::string_view word : SplitWords(body.substr(0, 2 * kMaxBytes))) {
    if (!gist.empty()) gist += ' ';
    gist += word;
  }
  return Printable(gist, kMaxBytes);
}

// nginx refuses a missing or unknown client certificate with a plain 400.
bool WantsClientCertificate(const HttpResponse& response) {
  return response.status == 400 &&
         response.body.find("SSL certificate") != std::string::npos;
}

absl::StatusCode CodeOf(const HttpResponse& response) {
  switch (response.status) {
    case 200:
    case 201:
    case 204:
      return absl::StatusCode::kOk;
    case 401:
    case 407:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
    case 410:
      return absl::StatusCode::kNotFound;
    case 408:
    case 425:
    case 429:
      return absl::StatusCode::kUnavailable;
    case 501:
    case 505:
      return absl::StatusCode::kUnimplemented;
    case 507:
      return absl::StatusCode::kResourceExhausted;
    default:
      break;
  }
  // An answer to another question than ours: part of a file, "not modified",
  // "later". Nothing was stored by it.
  const bool odd = response.status < 300 || response.status == 304;
  if (odd || response.status >= 500) return absl::StatusCode::kUnavailable;
  if (WantsClientCertificate(response)) {
    return absl::StatusCode::kUnauthenticated;
  }
  return absl::StatusCode::kInvalidArgument;
}

}  // namespace

std::optional<absl::Duration> ParseRetryAfter(const std::string& value,
                                              const std::string& date,
                                              absl::Time now) {
  constexpr int64_t kMaxSeconds = 86400;
  const std::string_view text = Trim(value);
  if (!text.empty() && text.find_first_not_of("0123456789") == text.npos) {
    // Too many digits to parse are a long time, too.
    const uint64_t seconds = ParseUint(text).value_or(kMaxSeconds);
    return absl::Seconds(std::min<uint64_t>(seconds, kMaxSeconds));
  }
  const std::optional<absl::Time> until = ParseHttpDate(std::string(text));
  if (!until.has_value()) return std::nullopt;
  const absl::Time from = ParseHttpDate(date).value_or(now);
  return std::clamp(*until - from, absl::ZeroDuration(),
                    absl::Seconds(kMaxSeconds));
}

bool IsAboutOurCertificate(const std::string& error) {
  // As OpenSSL, LibreSSL and GnuTLS name the alerts of RFC 8446, 6.2.
  const std::string text = Lower(error);
  for (std::string_view alert :
       {"certificate required", "certificate is required",
        "alert bad certificate", "alert certificate expired",
        "alert certificate revoked", "alert certificate unknown",
        "alert unknown ca"}) {
    if (text.find(alert) != std::string::npos) return true;
  }
  return false;
}

absl::Status StatusFromHttp(const HttpResponse& response,
                            std::string_view doing) {
  // A connection that ends before a status line has come is no answer.
  if (response.status < 100) {
    return absl::UnavailableError(std::string(doing) +
                                  ": the server hung up without an answer");
  }
  const absl::StatusCode code = CodeOf(response);
  if (code == absl::StatusCode::kOk) return absl::OkStatus();
  std::string message = absl::StrFormat("%s: the server answered %d",
                                        std::string(doing), response.status);
  if (const std::string gist = Gist(response.body); !gist.empty()) {
    message += " (" + gist + ")";
  }
  absl::Status status(code, message);
  if (response.retry_after.has_value()) {
    status = WithRetryAfter(std::move(status), *response.retry_after);
  }
  return status;
}

}  // namespace nixq
