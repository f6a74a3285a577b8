#include "tests/support/nginx.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr char kProgram[] = "/usr/sbin/nginx";
constexpr int kProbeMs = 20000;

absl::StatusOr<UniqueFd> Listen(int& port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(fd.get(), generic, length) != 0 || listen(fd.get(), 511) != 0 ||
      getsockname(fd.get(), generic, &length) != 0) {
    return ErrnoError(errno, "listen on loopback");
  }
  port = ntohs(address.sin_port);
  return fd;
}

}  // namespace

std::string Nginx::Configuration(const NginxOptions& options) const {
  std::string server = options.directives;
  if (!options.authorization.empty()) {
    server +=
        absl::StrFormat("if ($http_authorization != \"%s\") { return 401; }\n",
                        options.authorization);
  }
  std::string listen;
  if (tls_) {
    listen = options.http2 ? " ssl http2" : " ssl";
    server += absl::StrFormat("ssl_certificate %s;\nssl_certificate_key %s;\n",
                              options.certificate_file, options.key_file);
  }
  if (!options.client_ca_file.empty()) {
    server +=
        absl::StrFormat("ssl_client_certificate %s;\nssl_verify_client on;\n",
                        options.client_ca_file);
  }
  // As root its worker would be somebody who may not write here.
  const std::string user = geteuid() == 0 ? "user root;" : "";
  return absl::StrFormat(
      R"(daemon off;
worker_processes 1;
%5$s
pid %1$s/nginx.pid;
error_log %1$s/error.log warn;
events { worker_connections 1024; }
http {
  access_log %1$s/access.log;
  client_body_temp_path %1$s/body;
  proxy_temp_path %1$s/proxy;
  fastcgi_temp_path %1$s/fastcgi;
  uwsgi_temp_path %1$s/uwsgi;
  scgi_temp_path %1$s/scgi;
  client_max_body_size 0;
  keepalive_requests 100000;
  server {
    listen 127.0.0.1:%2$d%3$s;
    server_name localhost;
    root %1$s/cache;
    dav_methods PUT;
    create_full_put_path on;
    dav_access user:rw group:r all:r;
%4$s  }
}
)",
      base_.path(), port_, listen, server, user);
}

absl::Status Nginx::Launch(int listener) {
  const std::string configuration = base_ / "nginx.conf";
  const std::string error_log = base_ / "error.log";
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) return ErrnoError(errno, "fork");
  if (pid_ > 0) return absl::OkStatus();
  // nginx takes over a listening socket that NGINX names, so that nobody
  // else can take the port in between.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);
  const int kept = 3;
  if (listener == kept) {
    fcntl(kept, F_SETFD, 0);
  } else {
    dup2(listener, kept);
  }
  const char* argv[] = {
      kProgram,          "-p", base_.path().c_str(),  "-e",
      error_log.c_str(), "-c", configuration.c_str(), nullptr};
  const char* environment[] = {"PATH=/usr/sbin:/usr/bin:/bin", "NGINX=3;",
                               nullptr};
  execve(kProgram, const_cast<char**>(argv), const_cast<char**>(environment));
  _exit(127);
}

// Connects and waits for nginx to say anything at all.
absl::Status Nginx::Probe() const {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port_));
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
              sizeof address) != 0) {
    return ErrnoError(errno, "connect to nginx");
  }
  // With TLS this is not a greeting, which nginx says, too.
  NIXQ_RETURN_IF_ERROR(WriteAll(fd.get(), "GET / HTTP/1.0\r\n\r\n"));
  pollfd readable = {fd.get(), POLLIN, 0};
  if (poll(&readable, 1, kProbeMs) != 1) {
    return absl::DeadlineExceededError("nginx does not answer");
  }
  char byte;
  if (read(fd.get(), &byte, 1) != 1) {
    return absl::UnavailableError("nginx hangs up");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Nginx>> Nginx::Start(
    const NginxOptions& options) {
  if (access(kProgram, X_OK) != 0) {
    return absl::NotFoundError("nginx is not installed");
  }
  std::unique_ptr<Nginx> nginx(new Nginx);
  nginx->tls_ = !options.certificate_file.empty();
  NIXQ_RETURN_IF_ERROR(MakeDirectories(nginx->directory(), 0755));
  {
    NIXQ_ASSIGN_OR_RETURN(UniqueFd listener, Listen(nginx->port_));
    NIXQ_RETURN_IF_ERROR(WriteFileAtomically(
        nginx->base_ / "nginx.conf", nginx->Configuration(options), 0644));
    NIXQ_RETURN_IF_ERROR(nginx->Launch(listener.get()));
  }
  NIXQ_RETURN_IF_ERROR(Annotate(nginx->Probe(), nginx->ErrorLog()));
  return nginx;
}

Nginx::~Nginx() {
  if (pid_ <= 0) return;
  // SIGKILL would leave the worker behind.
  kill(pid_, SIGTERM);
  waitpid(pid_, nullptr, 0);
}

std::string Nginx::url() const {
  return tls_ ? absl::StrFormat("https://localhost:%d", port_)
              : absl::StrFormat("http://127.0.0.1:%d", port_);
}

std::string Nginx::ErrorLog() const {
  return ReadFile(base_ / "error.log", 1 << 20).value_or("");
}

std::string Nginx::AccessLog(std::string_view text) const {
  std::string log;
  for (int tries = 0; tries < 1000; ++tries) {
    log = ReadFile(base_ / "access.log", 16 << 20).value_or("");
    if (log.find(text) != log.npos) break;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return log;
}

}  // namespace nixq
