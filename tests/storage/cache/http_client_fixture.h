// An HTTP client and a server that misbehaves as told.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "storage/base/status.h"
#include "storage/cache/http_client.h"
#include "tests/support/bad_http_server.h"

namespace nixq {

class HttpClientTest : public testing::Test {
 protected:
  HttpRequest Request(const std::string& method, const std::string& target) {
    HttpRequest request;
    request.method = method;
    request.url = server_.url() + target;
    return request;
  }
  absl::StatusOr<HttpResponse> Get(const std::string& target) {
    return client_.Perform(options_, Request("GET", target), cancel_);
  }
  absl::StatusOr<HttpResponse> Put(const std::string& target,
                                   std::string_view body) {
    HttpRequest request = Request("PUT", target);
    request.body = body;
    return client_.Perform(options_, request, cancel_);
  }
  absl::StatusOr<std::unique_ptr<HttpUpload>> Upload(
      const std::string& target, std::optional<uint64_t> size_bytes) {
    return client_.StartUpload(options_, Request("PUT", target), size_bytes,
                               cancel_);
  }
  // Appends until an error comes, at most 256 MiB.
  static absl::Status AppendForever(HttpUpload& upload) {
    const std::string piece(128 << 10, 'x');
    for (int i = 0; i < 2048; ++i) {
      NIXQ_RETURN_IF_ERROR(upload.Append(piece));
    }
    return absl::OkStatus();
  }

  BadHttpServer server_;
  HttpOptions options_;
  Cancellation cancel_;
  HttpClient client_;  // goes first: its connections end
};

}  // namespace nixq
