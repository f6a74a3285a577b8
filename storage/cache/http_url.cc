#include "storage/cache/http_url.h"

#include <curl/curl.h>

#include <memory>

#include "absl/strings/str_format.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};

// "" if the URL has no such part.
std::string Part(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK) return "";
  std::string copy(text);
  curl_free(text);
  return copy;
}

absl::Status BadUrl(const std::string& url, const char* why) {
  return absl::InvalidArgumentError(
      absl::StrFormat("URL \"%s\": %s", ShownUrl(url), why));
}

}  // namespace

absl::StatusOr<HttpUrl> ParseHttpUrl(const std::string& url) {
  const std::unique_ptr<CURLU, FreeUrl> parsed(curl_url());
  if (parsed == nullptr) return absl::ResourceExhaustedError("out of memory");
  const CURLUcode code = curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(),
                                      CURLU_NON_SUPPORT_SCHEME);
  if (code != CURLUE_OK) return BadUrl(url, curl_url_strerror(code));

  HttpUrl result;
  result.scheme = Part(parsed.get(), CURLUPART_SCHEME);
  if (result.scheme != "http" && result.scheme != "https") {
    return BadUrl(url, "must begin with http:// or https://");
  }
  if (!Part(parsed.get(), CURLUPART_USER).empty() ||
      !Part(parsed.get(), CURLUPART_PASSWORD).empty()) {
    return BadUrl(url, "no user or password belongs here; use a netrc file");
  }
  result.host = Part(parsed.get(), CURLUPART_HOST);
  result.port = Part(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
  result.path = Part(parsed.get(), CURLUPART_PATH);
  result.has_query_or_fragment = url.find_first_of("?#") != std::string::npos;
  return result;
}

absl::Status CheckProxyUrl(const std::string& url) {
  if (url.empty()) return absl::OkStatus();
  const std::unique_ptr<CURLU, FreeUrl> parsed(curl_url());
  if (parsed == nullptr) return absl::ResourceExhaustedError("out of memory");
  const CURLUcode code =
      curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(),
                   CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME);
  if (code == CURLUE_OK) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "the proxy in http_proxy or https_proxy is no URL: %s (percent-encode "
      "what is special in a password)",
      curl_url_strerror(code)));
}

std::string ShownUrl(const std::string& url) {
  std::string shown = url.substr(0, url.find_first_of("?#"));
  const size_t authority = shown.find("://");
  if (authority != std::string::npos) {
    const size_t begin = authority + 3;
    const size_t at = shown.rfind('@', shown.find('/', begin));
    if (at != std::string::npos && at >= begin) {
      shown.erase(begin, at + 1 - begin);
    }
  }
  return Printable(shown, 512);
}

}  // namespace nixq
