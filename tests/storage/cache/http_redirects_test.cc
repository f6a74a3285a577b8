// Where requests lead, and what goes along: redirects, credentials, proxies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "tests/storage/cache/http_client_fixture.h"
#include "tests/support/bad_http_server.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Redirects.

TEST_F(HttpClientTest, ReadsFollowRedirects) {
  server_.SetBlob("/new", "new");
  for (int status : {301, 302, 303, 307, 308}) {
    server_.Script("GET /old", {Fault::Answer(status, {"Location: /new"})});
    const auto got = Get("/old");
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->body, "new") << status;
  }
  EXPECT_EQ(server_.fired(), 5);
}

TEST_F(HttpClientTest, PutFollowsOnlyRedirectsThatKeepIt) {
  for (int status : {307, 308}) {
    server_.Script("PUT /old", {Fault::Answer(status, {"Location: /new"})});
    ASSERT_TRUE(Put("/old", "body").ok());
    EXPECT_EQ(server_.blobs().at("/new"), "body");
  }
  for (int status : {301, 302, 303}) {
    server_.Script("PUT /old", {Fault::Answer(status, {"Location: /new"})});
    const auto put = Put("/old", "other");
    EXPECT_TRUE(absl::IsInvalidArgument(put.status())) << put.status();
    EXPECT_THAT(std::string(put.status().message()), HasSubstr("307"));
  }
  EXPECT_EQ(server_.fired(), 5);
  EXPECT_EQ(server_.blobs().at("/new"), "body");
}

TEST_F(HttpClientTest, StreamsDoNotFollowRedirects) {
  server_.Script("PUT /old", {Fault::Answer(307, {"Location: /new"})});
  auto upload = Upload("/old", std::nullopt);
  ASSERT_TRUE(upload.ok());
  ASSERT_TRUE((*upload)->Append("x").ok());
  const auto finished = (*upload)->Finish();
  EXPECT_TRUE(absl::IsInvalidArgument(finished.status())) << finished.status();
  EXPECT_THAT(std::string(finished.status().message()), HasSubstr("/new"));
  EXPECT_TRUE(server_.blobs().empty());
}

TEST_F(HttpClientTest, RedirectsAreLimited) {
  server_.ScriptAlways("GET /loop", Fault::Answer(302, {"Location: /loop"}));
  const auto got = Get("/loop");
  EXPECT_TRUE(absl::IsInvalidArgument(got.status())) << got.status();
  EXPECT_EQ(server_.fired(), options_.max_redirects + 1);
}

TEST_F(HttpClientTest, RedirectsLeadToHttpOnly) {
  for (const char* where :
       {"file:///etc/passwd", "ftp://127.0.0.1/x", "http://u:p@127.0.0.1/"}) {
    server_.Script(
        "GET /r",
        {Fault::Answer(302, {absl::StrFormat("Location: %s", where)})});
    const auto got = Get("/r");
    EXPECT_TRUE(absl::IsInvalidArgument(got.status())) << got.status();
    EXPECT_THAT(std::string(got.status().message()), Not(HasSubstr("u:p")));
  }
  EXPECT_EQ(server_.fired(), 3);
}

TEST_F(HttpClientTest, CredentialsStayWithTheirServer) {
  TemporaryDirectory directory;
  BadHttpServer other;
  other.SetBlob("/there", "there");
  const auto go = [&] {
    server_.Script(
        "GET /here",
        {Fault::Answer(302, {"Location: " + other.url() + "/there"})});
    return Get("/here");
  };
  options_.bearer_token_file = directory / "token";
  ASSERT_TRUE(
      WriteFileAtomically(options_.bearer_token_file, "sesame\n", 0600).ok());
  ASSERT_TRUE(go().ok());
  EXPECT_EQ(server_.requests().back().headers.at("authorization"),
            "Bearer sesame");
  options_.bearer_token_file.clear();
  options_.netrc_file = directory / "netrc";
  ASSERT_TRUE(WriteFileAtomically(options_.netrc_file,
                                  "default login me password sesame\n", 0600)
                  .ok());
  ASSERT_TRUE(go().ok());
  EXPECT_EQ(server_.requests().back().headers.at("authorization"),
            "Basic bWU6c2VzYW1l");
  ASSERT_EQ(other.requests().size(), 2u);
  for (const SeenRequest& request : other.requests()) {
    EXPECT_EQ(request.headers.count("authorization"), 0u);
  }
}

// Credentials.

TEST_F(HttpClientTest, TheTokenIsReadForEachRequest) {
  TemporaryDirectory directory;
  options_.bearer_token_file = directory / "token";
  for (const char* token : {"one", "two"}) {
    ASSERT_TRUE(
        WriteFileAtomically(options_.bearer_token_file, token, 0600).ok());
    ASSERT_TRUE(Get("/").ok());
    EXPECT_EQ(server_.requests().back().headers.at("authorization"),
              absl::StrFormat("Bearer %s", token));
  }
}

TEST_F(HttpClientTest, UnusableCredentialsAreUnauthenticatedAndNotShown) {
  TemporaryDirectory directory;
  options_.bearer_token_file = directory / "token";
  EXPECT_TRUE(absl::IsUnauthenticated(Get("/").status()));
  for (const char* bad : {"", " \n", "sesame\r\nX-Evil: 1", "two sesame"}) {
    ASSERT_TRUE(
        WriteFileAtomically(options_.bearer_token_file, bad, 0600).ok());
    const auto got = Get("/");
    EXPECT_TRUE(absl::IsUnauthenticated(got.status())) << got.status();
    EXPECT_THAT(std::string(got.status().message()), HasSubstr("token"));
    EXPECT_THAT(std::string(got.status().message()), Not(HasSubstr("sesame")));
  }
  options_.bearer_token_file.clear();
  options_.netrc_file = directory / "netrc";
  EXPECT_TRUE(absl::IsUnauthenticated(Get("/").status()));
  EXPECT_TRUE(absl::IsUnauthenticated(Upload("/", 1).status()));
  EXPECT_TRUE(server_.requests().empty());
}

TEST_F(HttpClientTest, TheProxyComesFromTheOptionsOnly) {
  BadHttpServer proxy;
  proxy.SetBlob("http://cache.example/x", "by proxy");
  HttpRequest request = Request("GET", "/");
  request.url = "http://cache.example/x";
  options_.proxy = proxy.url();
  const auto got = client_.Perform(options_, request, cancel_);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->body, "by proxy");

  options_.no_proxy = "127.0.0.1";
  server_.SetBlob("/direct", "direct");
  ASSERT_TRUE(Get("/direct").ok());
  EXPECT_EQ(proxy.requests().size(), 1u);

  options_ = HttpOptions();
  setenv("http_proxy", proxy.url().c_str(), 1);
  ASSERT_TRUE(Get("/direct").ok());
  unsetenv("http_proxy");
  EXPECT_EQ(proxy.requests().size(), 1u);
}

TEST_F(HttpClientTest, BrokenHeadersAreRefused) {
  HttpRequest request = Request("GET", "/");
  request.headers = {"X: 1\r\nY: 2"};
  EXPECT_TRUE(absl::IsInvalidArgument(
      client_.Perform(options_, request, cancel_).status()));
  EXPECT_TRUE(server_.requests().empty());
}

TEST_F(HttpClientTest, TwoHundredUploadsAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 200; ++i) {
    threads.emplace_back([this, i] {
      const std::string body(static_cast<size_t>(1000 * i + 1),
                             static_cast<char>('a' + i % 26));
      auto upload = Upload(absl::StrFormat("/%d", i), std::nullopt);
      ASSERT_TRUE(upload.ok());
      ASSERT_TRUE((*upload)->Append(body).ok());
      const auto finished = (*upload)->Finish();
      ASSERT_TRUE(finished.ok()) << finished.status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto blobs = server_.blobs();
  ASSERT_EQ(blobs.size(), 200u);
  for (int i = 0; i < 200; ++i) {
    const std::string expected(static_cast<size_t>(1000 * i + 1),
                               static_cast<char>('a' + i % 26));
    EXPECT_TRUE(blobs.at(absl::StrFormat("/%d", i)) == expected) << i;
  }
  EXPECT_LE(server_.max_simultaneous_requests(), options_.max_connections);
}

TEST(HttpClientLifeTest, AClientThatWasNeverUsedIsFree) {
  for (int i = 0; i < 100; ++i) HttpClient client;
}

}  // namespace
}  // namespace nixq
