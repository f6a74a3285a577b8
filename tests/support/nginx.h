// A real nginx with dav on loopback, in a temporary directory, as this user.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "tests/support/temporary_directory.h"

namespace nixq {

struct NginxOptions {
  // Serve TLS (and HTTP/2) with these; "" plain HTTP.
  std::string certificate_file;
  std::string key_file;
  bool http2 = true;
  // Only clients with a certificate by this CA; "" anybody.
  std::string client_ca_file;
  // Only requests with exactly this Authorization header; "" any.
  std::string authorization;
  // More lines for the server block, each ended by ';' or '}'.
  std::string directives;
};

// The destructor ends it and removes everything.
class Nginx {
 public:
  // Serving when it returns. NOT_FOUND: not installed.
  static absl::StatusOr<std::unique_ptr<Nginx>> Start(
      const NginxOptions& options = {});
  ~Nginx();
  Nginx(const Nginx&) = delete;
  Nginx& operator=(const Nginx&) = delete;

  // "http://127.0.0.1:<port>"; with TLS "https://localhost:<port>".
  std::string url() const;
  int port() const { return port_; }
  // Where what was PUT appears.
  std::string directory() const { return base_ / "cache"; }
  std::string ErrorLog() const;
  // The access log, once `text` is in it: nginx writes a line after the answer.
  // Whatever there is after ten seconds.
  std::string AccessLog(std::string_view text) const;

 private:
  Nginx() = default;
  std::string Configuration(const NginxOptions& options) const;
  absl::Status Launch(int listener);
  absl::Status Probe() const;

  TemporaryDirectory base_;
  bool tls_ = false;
  int port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace nixq
