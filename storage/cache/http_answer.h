// What a server's answer means; pure.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"

namespace nixq {

// Retry-After (RFC 9110, 10.2.3): seconds, or an HTTP date, which counts from
// the server's own `date` header if there is one, else from `now`. Never
// negative, at most a day; nullopt for anything else.
std::optional<absl::Duration> ParseRetryAfter(const std::string& value,
                                              const std::string& date,
                                              absl::Time now);

// Whether libcurl's words on a broken connection say that the server will not
// have us for our client certificate, or for the lack of one. With TLS 1.3 it
// says so only after the handshake.
bool IsAboutOurCertificate(const std::string& error);

}  // namespace nixq
