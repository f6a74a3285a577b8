// URLs of HTTP servers, taken apart and checked.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace nixq {

struct HttpUrl {
  std::string scheme;  // "http", "https"
  std::string host;
  std::string port;  // always there
  std::string path;  // begins with '/'
  bool has_query_or_fragment = false;

  // What a connection and a credential belong to: "https://host:443".
  std::string Origin() const { return scheme + "://" + host + ":" + port; }
};

// INVALID_ARGUMENT: not a URL, neither http nor https, or with a user or
// password in it (which would end up in logs; the message leaves it out).
absl::StatusOr<HttpUrl> ParseHttpUrl(const std::string& url);

// OK for "" and for what libcurl takes for a proxy. INVALID_ARGUMENT says what
// is wrong, and nothing of the URL.
absl::Status CheckProxyUrl(const std::string& url);

// `url` without user, query and fragment: fit for messages.
std::string ShownUrl(const std::string& url);

}  // namespace nixq
