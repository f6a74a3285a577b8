#include "storage/cache/http_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/base/status.h"
#include "storage/cache/http_client.h"
#include "storage/cache/http_url.h"

namespace nixq {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

const absl::Time kNow = absl::FromUnixSeconds(1000000000);  // 9 Sep 2001 1:46

TEST(RetryAfterTest, Seconds) {
  EXPECT_EQ(ParseRetryAfter("0", "", kNow), absl::ZeroDuration());
  EXPECT_EQ(ParseRetryAfter("120", "", kNow), absl::Minutes(2));
  EXPECT_EQ(ParseRetryAfter(" 5 ", "", kNow), absl::Seconds(5));
  EXPECT_EQ(ParseRetryAfter("999999", "", kNow), absl::Hours(24));
  EXPECT_EQ(ParseRetryAfter("99999999999999999999999", "", kNow),
            absl::Hours(24));
}

TEST(RetryAfterTest, Dates) {
  const std::string soon = "Sun, 09 Sep 2001 01:47:40 GMT";
  EXPECT_EQ(ParseRetryAfter(soon, "", kNow), absl::Minutes(1));
  EXPECT_EQ(ParseRetryAfter(soon, "Sun, 09 Sep 2001 01:47:30 GMT", kNow),
            absl::Seconds(10));
  EXPECT_EQ(ParseRetryAfter(soon, "rubbish", kNow), absl::Minutes(1));
  EXPECT_EQ(ParseRetryAfter("Sat, 08 Sep 2001 01:47:40 GMT", "", kNow),
            absl::ZeroDuration());
  EXPECT_EQ(ParseRetryAfter("Sun, 09 Sep 2031 01:47:40 GMT", "", kNow),
            absl::Hours(24));
}

TEST(RetryAfterTest, NothingElse) {
  for (const char* bad : {"", " ", "-5", "1.5", "soon", "5s"}) {
    EXPECT_EQ(ParseRetryAfter(bad, "", kNow), std::nullopt) << bad;
  }
}

TEST(StatusFromHttpTest, EachStatusHasItsCode) {
  const std::pair<int, Code> rows[] = {
      {200, Code::kOk},
      {201, Code::kOk},
      {204, Code::kOk},
      {202, Code::kUnavailable},
      {206, Code::kUnavailable},
      {304, Code::kUnavailable},
      {302, Code::kInvalidArgument},
      {400, Code::kInvalidArgument},
      {401, Code::kUnauthenticated},
      {403, Code::kPermissionDenied},
      {404, Code::kNotFound},
      {405, Code::kInvalidArgument},
      {407, Code::kUnauthenticated},
      {408, Code::kUnavailable},
      {409, Code::kInvalidArgument},
      {410, Code::kNotFound},
      {411, Code::kInvalidArgument},
      {413, Code::kInvalidArgument},
      {425, Code::kUnavailable},
      {429, Code::kUnavailable},
      {500, Code::kUnavailable},
      {501, Code::kUnimplemented},
      {502, Code::kUnavailable},
      {503, Code::kUnavailable},
      {504, Code::kUnavailable},
      {507, Code::kResourceExhausted},
      {511, Code::kUnavailable},
      {599, Code::kUnavailable},
  };
  for (const auto& [status, code] : rows) {
    HttpResponse response;
    response.status = status;
    EXPECT_EQ(StatusFromHttp(response, "x").code(), code) << status;
  }
}

TEST(ClientCertificateTest, AlertsAreRecognised) {
  for (const char* error :
       {"OpenSSL SSL_read: error:0A00045C:SSL routines::tlsv13 alert "
        "certificate required, errno 0",
        "GnuTLS recv error (-12): A TLS fatal alert has been received: "
        "Certificate is required",
        "error:0A000418:SSL routines::tlsv1 alert unknown ca",
        "error:0A000412:SSL routines::sslv3 alert bad certificate"}) {
    EXPECT_TRUE(IsAboutOurCertificate(error)) << error;
  }
  for (const char* error :
       {"", "Recv failure: Connection reset by peer",
        "SSL certificate problem: unable to get local issuer certificate",
        "OpenSSL SSL_read: error:0A000438:SSL routines::tlsv1 alert internal "
        "error"}) {
    EXPECT_FALSE(IsAboutOurCertificate(error)) << error;
  }
}

TEST(StatusFromHttpTest, SaysWhatWhyAndWhen) {
  HttpResponse response;
  response.status = 503;
  response.body = "over\x1b[31mloaded\n  today";
  response.retry_after = absl::Seconds(9);
  const absl::Status status = StatusFromHttp(response, "PUT http://x/y");
  EXPECT_THAT(std::string(status.message()), HasSubstr("PUT http://x/y"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("503"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("loaded today"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("\x1b")));
  EXPECT_EQ(RetryAfterOf(status), absl::Seconds(9));
}

TEST(StatusFromHttpTest, ErrorPagesAreCutToTheirTitle) {
  HttpResponse response;
  response.status = 413;
  response.body =
      "<html>\r\n<head><title>413 Request Entity Too Large</title></head>"
      "<body>much more</body></html>";
  const std::string message(StatusFromHttp(response, "PUT").message());
  EXPECT_THAT(message, HasSubstr("(413 Request Entity Too Large)"));
  EXPECT_THAT(message, Not(HasSubstr("<")));
  response.body = std::string(100000, 'x');
  EXPECT_LT(StatusFromHttp(response, "PUT").message().size(), 400u);
}

TEST(StatusFromHttpTest, AMissingClientCertificateIsAnAuthenticationMatter) {
  HttpResponse response;
  response.status = 400;
  response.body = "<title>400 No required SSL certificate was sent</title>";
  EXPECT_TRUE(absl::IsUnauthenticated(StatusFromHttp(response, "PUT")));
}

TEST(HttpUrlTest, PartsAndOrigin) {
  const auto url = ParseHttpUrl("https://Cache.Example/base/x?y#z");
  ASSERT_TRUE(url.ok()) << url.status();
  EXPECT_EQ(url->Origin(), "https://Cache.Example:443");
  EXPECT_EQ(url->path, "/base/x");
  EXPECT_TRUE(url->has_query_or_fragment);
  EXPECT_EQ(ParseHttpUrl("http://[::1]:8080")->Origin(), "http://[::1]:8080");
}

TEST(HttpUrlTest, RefusesWhatIsNotForUs) {
  for (const char* bad : {"", "x", "/x", "ftp://x/", "file:///x", "http://",
                          "http:// x/", "http://x:99999/", "https:/x y/"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHttpUrl(bad).status())) << bad;
  }
}

TEST(HttpUrlTest, ShowsNoSecrets) {
  EXPECT_EQ(ShownUrl("https://u:p@h/x?token=1#f"), "https://h/x");
  EXPECT_EQ(ShownUrl("https://u:p@h"), "https://h");
  EXPECT_EQ(ShownUrl("https://h/@x"), "https://h/@x");
}

TEST(StatusFromHttpTest, NoStatusIsNoAnswer) {
  EXPECT_TRUE(absl::IsUnavailable(StatusFromHttp(HttpResponse{}, "GET x")));
}

}  // namespace
}  // namespace nixq
