// The options of libcurl's easy handle for one request: what server, as whom,
// what to send, and where its callbacks lead.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/cache/http_transfer.h"

namespace nixq {
namespace {

// How much of a body may lie unsent in the kernel: with little of it, bytes
// that libcurl hands over are bytes that move, and a stall shows in time.
constexpr int kUnsentBytes = 256 * 1024;

// A connection that was idle for longer is not used again: the server may be
// closing it just now, and then a request is lost on it.
constexpr long kMaxIdleSeconds = 30;

constexpr long kUploadBufferBytes = 128 << 10;

int OnSocket(void* /*client*/, curl_socket_t socket, curlsocktype /*purpose*/) {
#ifdef TCP_NOTSENT_LOWAT
  // A socket that does not know it works all the same.
  static_cast<void>(setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT,
                               &kUnsentBytes, sizeof kUnsentBytes));
#else
  static_cast<void>(socket);
#endif
  return CURL_SOCKOPT_OK;
}

}  // namespace

// Sets options and remembers the first that did not take.
class EasyOptions {
 public:
  explicit EasyOptions(CURL* easy) : easy_(easy) {}

  template <typename T>
  void Set(CURLoption option, T value) {
    const CURLcode code = curl_easy_setopt(easy_, option, value);
    if (code_ == CURLE_OK && code != CURLE_OK) {
      code_ = code;
      option_ = option;
    }
  }
  void Set(CURLoption option, const std::string& value) {
    Set(option, value.c_str());
  }
  void SetUnlessEmpty(CURLoption option, const std::string& value) {
    if (!value.empty()) Set(option, value);
  }

  absl::Status status() const {
    if (code_ == CURLE_OK) return absl::OkStatus();
    if (code_ == CURLE_OUT_OF_MEMORY) {
      return absl::ResourceExhaustedError("libcurl: out of memory");
    }
    return absl::InternalError(
        absl::StrFormat("libcurl does not take option %d: %s",
                        static_cast<int>(option_), curl_easy_strerror(code_)));
  }

 private:
  CURL* easy_;
  CURLcode code_ = CURLE_OK;
  CURLoption option_{};
};

void Transfer::SetUpServer(EasyOptions& set) {
  set.Set(CURLOPT_URL, url_);
  set.Set(CURLOPT_PROTOCOLS_STR, "http,https");
  // Redirects are followed by FollowRedirect, which is stricter.
  set.Set(CURLOPT_FOLLOWLOCATION, 0L);
  set.Set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  set.Set(CURLOPT_MAXAGE_CONN, kMaxIdleSeconds);
  set.Set(CURLOPT_TCP_NODELAY, 1L);
  set.Set(CURLOPT_TCP_KEEPALIVE, 1L);
  set.Set(CURLOPT_SOCKOPTFUNCTION, &OnSocket);
  set.Set(CURLOPT_CONNECTTIMEOUT_MS,
          static_cast<long>(absl::ToInt64Milliseconds(options_.connect_limit)));
#if LIBCURL_VERSION_NUM >= 0x075700
  // Names are resolved in threads of their own; without this, giving up waits
  // for the resolver to give up, and with it all other transfers.
  set.Set(CURLOPT_QUICK_EXIT, 1L);
#endif
  // An empty string is "no proxy, whatever the environment says".
  set.Set(CURLOPT_PROXY, options_.proxy);
  set.Set(CURLOPT_NOPROXY, options_.no_proxy);
  set.Set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set.Set(CURLOPT_SSL_VERIFYPEER, 1L);
  set.Set(CURLOPT_SSL_VERIFYHOST, 2L);
  set.Set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set.SetUnlessEmpty(CURLOPT_CAINFO, options_.ca_file);
}

void Transfer::SetUpIdentity(EasyOptions& set) {
  if (!same_origin_) return;
  set.SetUnlessEmpty(CURLOPT_SSLCERT, options_.client_certificate_file);
  set.SetUnlessEmpty(CURLOPT_SSLKEY, options_.client_key_file);
  if (!credentials_.bearer_token.empty()) {
    set.Set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BEARER));
    set.Set(CURLOPT_XOAUTH2_BEARER, credentials_.bearer_token);
  } else if (!options_.netrc_file.empty()) {
    set.Set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC));
    set.Set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_OPTIONAL));
    set.Set(CURLOPT_NETRC_FILE, options_.netrc_file);
  }
}

void Transfer::SetUpRequest(EasyOptions& set) {
  headers_.reset();
  const auto add = [&](const char* header) {
    curl_slist* longer = curl_slist_append(headers_.get(), header);
    if (longer == nullptr) return;
    static_cast<void>(headers_.release());
    headers_.reset(longer);
  };
  // libcurl would wait a second for servers that do not know it.
  add("Expect:");
  for (const std::string& header : request_.headers) {
    const bool secret =
        header.starts_with("Authorization:") || header.starts_with("Cookie:");
    if (same_origin_ || !secret) add(header.c_str());
  }
  set.Set(CURLOPT_HTTPHEADER, headers_.get());
  set.Set(CURLOPT_USERAGENT, "nix-queued/" NIXQ_VERSION);

  if (upload_.has_value()) {
    set.Set(CURLOPT_UPLOAD, 1L);
    set.Set(CURLOPT_CUSTOMREQUEST, request_.method);
    set.Set(CURLOPT_UPLOAD_BUFFERSIZE, kUploadBufferBytes);
    set.Set(CURLOPT_INFILESIZE_LARGE,
            upload_->size_bytes.has_value()
                ? static_cast<curl_off_t>(*upload_->size_bytes)
                : curl_off_t{-1});
  } else if (request_.method == "HEAD") {
    set.Set(CURLOPT_NOBODY, 1L);
  } else if (request_.method == "GET") {
    set.Set(CURLOPT_HTTPGET, 1L);
  } else {
    // Header and a small body leave in one packet, and libcurl can send it
    // again by itself when a kept connection turns out to be dead.
    set.Set(CURLOPT_POSTFIELDSIZE_LARGE,
            static_cast<curl_off_t>(request_.body.size()));
    set.Set(CURLOPT_POSTFIELDS,
            request_.body.empty() ? "" : request_.body.data());
    set.Set(CURLOPT_CUSTOMREQUEST, request_.method);
  }
}

void Transfer::SetUpCallbacks(EasyOptions& set) {
  set.Set(CURLOPT_NOSIGNAL, 1L);
  set.Set(CURLOPT_ERRORBUFFER, error_text_);
  set.Set(CURLOPT_NOPROGRESS, 0L);
  set.Set(CURLOPT_XFERINFODATA, this);
  set.Set(
      CURLOPT_XFERINFOFUNCTION,
      +[](void* self, curl_off_t, curl_off_t down, curl_off_t, curl_off_t up) {
        static_cast<Transfer*>(self)->OnCounters(down, up);
        return 0;
      });
  set.Set(CURLOPT_PREREQDATA, this);
  set.Set(
      CURLOPT_PREREQFUNCTION, +[](void* self, char*, char*, int, int) {
        auto* transfer = static_cast<Transfer*>(self);
        transfer->connected_ = true;
        transfer->NoteProgress();
        return CURL_PREREQFUNC_OK;
      });
  set.Set(CURLOPT_HEADERDATA, this);
  set.Set(
      CURLOPT_HEADERFUNCTION,
      +[](char* bytes, size_t size, size_t count, void* self) {
        const bool good =
            static_cast<Transfer*>(self)->OnHeader({bytes, size * count});
        return good ? size * count : 0;
      });
  set.Set(CURLOPT_WRITEDATA, this);
  set.Set(
      CURLOPT_WRITEFUNCTION,
      +[](char* bytes, size_t size, size_t count, void* self) {
        return static_cast<Transfer*>(self)->OnWrite(bytes, size * count);
      });
  set.Set(CURLOPT_READDATA, this);
  set.Set(
      CURLOPT_READFUNCTION,
      +[](char* bytes, size_t size, size_t count, void* self) {
        return static_cast<Transfer*>(self)->OnRead(bytes, size * count);
      });
}

absl::Status Transfer::Begin(CURL* easy, TimePoint now) {
  easy_ = easy;
  last_progress_ = now;
  last_down_ = 0;
  last_up_ = 0;
  moved_bytes_ = 0;
  header_bytes_ = 0;
  connected_ = false;
  waiting_for_producer_ = false;
  status_ = 0;
  too_long_ = false;
  body_.clear();
  error_text_[0] = '\0';

  curl_easy_reset(easy);
  EasyOptions set(easy);
  SetUpServer(set);
  SetUpIdentity(set);
  SetUpRequest(set);
  SetUpCallbacks(set);
  return set.status();
}

}  // namespace nixq
