// HTTP: many requests at once, one network thread, keep-alive and HTTP/2.
//
// The only user of libcurl. One client serves all targets of the daemon; it
// starts its thread with the first request and ends it when it goes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/cancel.h"

namespace nixq {

// How to reach one server, and as whom. Files are read by the daemon when a
// request needs them, so that renewed tokens and certificates are picked up;
// their contents never appear in errors.
struct HttpOptions {
  std::string netrc_file;         // "" none
  std::string bearer_token_file;  // "" none
  std::string client_certificate_file;
  std::string client_key_file;
  std::string ca_file;  // "" the system's
  std::string proxy;    // "" none; from the environment, see config
  std::string no_proxy;
  absl::Duration connect_limit = absl::Seconds(15);
  // In which at least 1 KiB of a body has to move, or the head of an answer
  // to come.
  absl::Duration stall_limit = absl::Seconds(60);
  int max_connections = 16;  // to this server
  int max_redirects = 5;     // https never leads to http
};

struct HttpRequest {
  std::string method;  // "GET", "HEAD", "PUT"
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  std::string_view body;             // must outlive the request
  size_t max_response_bytes = 4 << 20;
};

struct HttpResponse {
  int status = 0;
  std::string body;
  std::optional<absl::Duration> retry_after;
  std::string content_type;
};

// A request whose body is still being made. One thread at a time; a writer
// that goes before Finish aborts the request (the connection is cut, so that
// the server cannot take what it has for the whole).
class HttpUpload {
 public:
  virtual ~HttpUpload() = default;
  // Blocks while 1 MiB is waiting to be sent. An error here may come from
  // the server's early answer, which Finish then returns.
  virtual absl::Status Append(std::string_view bytes) = 0;
  // The last byte leaves only now.
  virtual absl::StatusOr<HttpResponse> Finish() = 0;
};

// Thread-safe. Transport errors only: UNAVAILABLE (cannot resolve, connect,
// reset, truncated), DEADLINE_EXCEEDED (connect or stall limit),
// PERMISSION_DENIED (TLS verification), UNAUTHENTICATED (a credential's file
// cannot be used), INVALID_ARGUMENT (bad URL; too many redirects, from https
// to http, or of a PUT by other than 307 and 308), OUT_OF_RANGE (response too
// long), CANCELLED. Any HTTP status is a response: StatusFromHttp gives it
// its meaning. Credentials go to the request's own server only, never along
// with a redirect to another.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();

  absl::StatusOr<HttpResponse> Perform(const HttpOptions& options,
                                       const HttpRequest& request,
                                       const Cancellation& cancel);
  // All at once, at most options.max_connections in flight (HTTP/2: streams);
  // results in the order of the requests. Once one of them finds the server
  // away (UNAVAILABLE, DEADLINE_EXCEEDED), those not yet begun share its error.
  std::vector<absl::StatusOr<HttpResponse>> PerformAll(
      const HttpOptions& options, const std::vector<HttpRequest>& requests,
      const Cancellation& cancel);
  // PUT of `size_bytes`, or chunked when not known. Not redirected: 307 and
  // 308 are INVALID_ARGUMENT here. The upload must not outlive the client,
  // and `cancel` must outlive the upload.
  absl::StatusOr<std::unique_ptr<HttpUpload>> StartUpload(
      const HttpOptions& options, const HttpRequest& request,
      std::optional<uint64_t> size_bytes, const Cancellation& cancel);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// OK for 200, 201 and 204, the answers to what we ask; otherwise the code that
// BlobStore's list gives it (NOT_FOUND for 404 and 410), with `doing` and a
// printable piece of the body in the message, and RetryAfterOf set from
// Retry-After.
absl::Status StatusFromHttp(const HttpResponse& response,
                            std::string_view doing);

}  // namespace nixq
