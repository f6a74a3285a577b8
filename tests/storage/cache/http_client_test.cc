// HttpClient against a server that misbehaves: what fault gives what code.
#include "storage/cache/http_client.h"

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

TEST_F(HttpClientTest, GetsPutsAndHeads) {
  const std::string body(300000, 'b');
  auto put = Put("/a", body);
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->status, 201);
  auto get = Get("/a");
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->body, body);
  auto head = client_.Perform(options_, Request("HEAD", "/a"), cancel_);
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->body, "");
  auto missing = Get("/b");
  ASSERT_TRUE(missing.ok()) << missing.status();
  EXPECT_EQ(missing->status, 404);
}

TEST_F(HttpClientTest, KeepsConnectionsAndSendsNoExpect) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Put("/x", std::string(200000, 'x')).ok());
    auto upload = Upload("/y", std::nullopt);
    ASSERT_TRUE(upload.ok());
    ASSERT_TRUE((*upload)->Append("stream").ok());
    ASSERT_TRUE((*upload)->Finish().ok());
  }
  for (const SeenRequest& request : server_.requests()) {
    EXPECT_EQ(request.headers.count("expect"), 0u);
    EXPECT_EQ(request.connection, 0);
  }
}

TEST_F(HttpClientTest, RedialsAfterTheServerClosedAnIdleConnection) {
  Fault close = Fault::Answer(200, {});
  close.end = Fault::End::kClose;
  server_.Script("PUT /first", {close});
  ASSERT_TRUE(Put("/first", "1").ok());
  auto put = Put("/second", "2");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(server_.fired(), 1);
  EXPECT_EQ(server_.blobs().at("/second"), "2");
}

TEST_F(HttpClientTest, SendsAnEmptyBody) {
  ASSERT_TRUE(Put("/empty", "").ok());
  EXPECT_EQ(server_.requests().back().headers.at("content-length"), "0");
  EXPECT_TRUE(server_.blobs().count("/empty"));
}

TEST_F(HttpClientTest, NeverExceedsTheConnectionLimit) {
  options_.max_connections = 3;
  std::vector<HttpRequest> requests;
  for (int i = 0; i < 200; ++i) {
    server_.SetBlob(absl::StrFormat("/%d", i), absl::StrFormat("blob %d", i));
    requests.push_back(Request("GET", absl::StrFormat("/%d", i)));
  }
  const auto results = client_.PerformAll(options_, requests, cancel_);
  ASSERT_EQ(results.size(), 200u);
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(results[i].ok()) << results[i].status();
    EXPECT_EQ(results[i]->body, absl::StrFormat("blob %d", i));
  }
  EXPECT_LE(server_.max_simultaneous_requests(), 3);
}

TEST_F(HttpClientTest, ReachesTheConnectionLimit) {
  options_.max_connections = 3;
  server_.ScriptAlways("GET /h", Fault::Hang());
  std::thread canceller([this] {
    EXPECT_TRUE(server_.WaitUntilFired(3));
    cancel_.Cancel();
  });
  client_.PerformAll(
      options_, std::vector<HttpRequest>(10, Request("GET", "/h")), cancel_);
  canceller.join();
  EXPECT_EQ(server_.fired(), 3);
}

TEST_F(HttpClientTest, ABatchFindsOutOnceThatTheServerStalls) {
  options_.max_connections = 2;
  options_.stall_limit = absl::Milliseconds(200);
  server_.ScriptAlways("GET /h", Fault::Hang());
  const std::vector<HttpRequest> requests(500, Request("GET", "/h"));
  for (const auto& result : client_.PerformAll(options_, requests, cancel_)) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
  }
  EXPECT_LE(server_.fired(), 4);
}

TEST_F(HttpClientTest, OneBadRequestLeavesTheOthersAlone) {
  server_.SetBlob("/good", "good");
  std::vector<HttpRequest> requests = {Request("GET", "/good"),
                                       Request("GET", "/good"),
                                       Request("GET", "/good")};
  requests[1].url = "gopher://x/";
  const auto results = client_.PerformAll(options_, requests, cancel_);
  EXPECT_TRUE(results[0].ok()) << results[0].status();
  EXPECT_TRUE(absl::IsInvalidArgument(results[1].status()));
  EXPECT_TRUE(results[2].ok()) << results[2].status();
  EXPECT_TRUE(client_.PerformAll(options_, {}, cancel_).empty());
}

TEST_F(HttpClientTest, RefusedConnectionIsUnavailable) {
  int port;
  {
    BadHttpServer gone;
    port = gone.port();
  }
  HttpRequest request = Request("GET", "/");
  request.url = absl::StrFormat("http://127.0.0.1:%d/", port);
  const auto got = client_.Perform(options_, request, cancel_);
  EXPECT_TRUE(absl::IsUnavailable(got.status())) << got.status();
}

TEST_F(HttpClientTest, UnknownHostIsUnavailable) {
  HttpRequest request = Request("GET", "/");
  request.url = "http://does-not-exist.invalid/";
  const auto got = client_.Perform(options_, request, cancel_);
  EXPECT_TRUE(absl::IsUnavailable(got.status())) << got.status();
}

TEST_F(HttpClientTest, UrlsWithPasswordsAreRefusedAndNotShown) {
  HttpRequest request = Request("GET", "/");
  request.url = "http://user:sesame@127.0.0.1/";
  const auto got = client_.Perform(options_, request, cancel_);
  EXPECT_TRUE(absl::IsInvalidArgument(got.status())) << got.status();
  EXPECT_THAT(std::string(got.status().message()), Not(HasSubstr("sesame")));
}

TEST_F(HttpClientTest, ResetIsUnavailable) {
  server_.Script("GET /r", {Fault::ResetAfter(0)});
  EXPECT_TRUE(absl::IsUnavailable(Get("/r").status()));
  EXPECT_EQ(server_.fired(), 1);
}

TEST_F(HttpClientTest, ResetInTheMiddleOfABodyIsUnavailable) {
  server_.Script("PUT /r", {Fault::ResetAfter(100000)});
  const std::string body(3000000, 'x');
  EXPECT_TRUE(absl::IsUnavailable(Put("/r", body).status()));
  EXPECT_EQ(server_.fired(), 1);
  EXPECT_TRUE(server_.blobs().empty());
}

TEST_F(HttpClientTest, ResetOfAStreamReachesTheProducer) {
  server_.Script("PUT /r", {Fault::ResetAfter(100000)});
  auto upload = Upload("/r", std::nullopt);
  ASSERT_TRUE(upload.ok());
  EXPECT_TRUE(absl::IsUnavailable(AppendForever(**upload)));
  EXPECT_TRUE(absl::IsUnavailable((*upload)->Finish().status()));
  EXPECT_EQ(server_.fired(), 1);
}

TEST_F(HttpClientTest, TruncatedAnswerIsUnavailable) {
  Fault fault = Fault::Answer(200);
  fault.body = std::string(1000, 'x');
  fault.send_body_bytes = 999;
  fault.end = Fault::End::kClose;
  server_.Script("GET /t", {fault});
  const auto got = Get("/t");
  EXPECT_TRUE(absl::IsUnavailable(got.status())) << got.status();
  EXPECT_EQ(server_.fired(), 1);
}

TEST_F(HttpClientTest, HangIsDeadlineExceeded) {
  options_.stall_limit = absl::Milliseconds(300);
  server_.Script("GET /h", {Fault::Hang()});
  const auto got = Get("/h");
  EXPECT_TRUE(absl::IsDeadlineExceeded(got.status())) << got.status();
  EXPECT_THAT(std::string(got.status().message()), HasSubstr("bytes moved"));
  EXPECT_TRUE(server_.WaitUntilAbandoned(1));
}

TEST_F(HttpClientTest, HangInTheMiddleOfABodyIsDeadlineExceeded) {
  options_.stall_limit = absl::Milliseconds(300);
  Fault fault = Fault::Hang();
  fault.after_body_bytes = 100000;
  server_.Script("PUT /h", {fault, fault});
  // The server's hanging reads on, so this one stalls in the answer.
  const auto put = Put("/h", std::string(5000000, 'x'));
  EXPECT_TRUE(absl::IsDeadlineExceeded(put.status())) << put.status();
  EXPECT_TRUE(server_.WaitUntilAbandoned(1));
}

TEST_F(HttpClientTest, AServerThatStopsReadingIsDeadlineExceeded) {
  options_.stall_limit = absl::Milliseconds(300);
  Fault fault = Fault::Hang();
  fault.after_body_bytes = 100000;
  fault.deaf = true;
  server_.Script("PUT /h", {fault, fault});
  std::string body;
  body.resize(30000000, 'x');
  const auto put = Put("/h", body);
  EXPECT_TRUE(absl::IsDeadlineExceeded(put.status())) << put.status();
  auto upload = Upload("/h", std::nullopt);
  ASSERT_TRUE(upload.ok());
  const absl::Status appended = AppendForever(**upload);
  EXPECT_TRUE(absl::IsDeadlineExceeded(appended)) << appended;
  EXPECT_EQ(server_.fired(), 2);
}

TEST_F(HttpClientTest, HangInTheMiddleOfAnAnswerIsDeadlineExceeded) {
  options_.stall_limit = absl::Milliseconds(300);
  Fault fault = Fault::Answer(200);
  fault.body = std::string(1000, 'x');
  fault.send_body_bytes = 10;
  fault.end = Fault::End::kHang;
  server_.Script("GET /h", {fault});
  const auto got = Get("/h");
  EXPECT_TRUE(absl::IsDeadlineExceeded(got.status())) << got.status();
  EXPECT_EQ(server_.fired(), 1);
}

TEST_F(HttpClientTest, SlowIsNotStalled) {
  // Some thousand bytes a second, for longer in all than the stall limit.
  options_.stall_limit = absl::Seconds(2);
  Fault fault = Fault::Answer(200);
  fault.body = std::string(15000, 'x');
  fault.drip = absl::Microseconds(200);
  server_.Script("GET /s", {fault});
  const auto got = Get("/s");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->body, fault.body);
  EXPECT_EQ(server_.fired(), 1);
}

// A server that says something all the time and nothing to the point.
TEST_F(HttpClientTest, ADripIsStalled) {
  options_.stall_limit = absl::Milliseconds(300);
  Fault body = Fault::Answer(200);
  body.body = std::string(1000, 'x');
  Fault headers = Fault::Answer(200, {"X: " + std::string(1000, 'x')});
  std::string interim = "X: y";
  for (int i = 0; i < 50; ++i) {
    interim += "\r\n\r\nHTTP/1.1 102 Processing\r\nX: y";
  }
  for (Fault fault : {body, headers, Fault::Answer(102, {interim})}) {
    fault.drip = absl::Milliseconds(10);
    server_.Script("PUT /d", {fault});
    const auto put = Put("/d", "body");
    EXPECT_TRUE(absl::IsDeadlineExceeded(put.status())) << put.status();
  }
  EXPECT_EQ(server_.fired(), 3);
}

TEST_F(HttpClientTest, EndlessHeadersAreHungUpOn) {
  std::vector<std::string> headers(400, "X: " + std::string(1000, 'x'));
  server_.Script("GET /h", {Fault::Answer(200, headers)});
  const auto got = Get("/h");
  EXPECT_TRUE(absl::IsUnavailable(got.status())) << got.status();
  EXPECT_THAT(std::string(got.status().message()), HasSubstr("headers"));
}

TEST_F(HttpClientTest, ASlowProducerIsNotAStalledServer) {
  options_.stall_limit = absl::Milliseconds(50);
  auto upload = Upload("/slow", std::nullopt);
  ASSERT_TRUE(upload.ok());
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE((*upload)->Append("piece").ok());
    absl::SleepFor(absl::Milliseconds(100));  // is what is tested
  }
  const auto finished = (*upload)->Finish();
  ASSERT_TRUE(finished.ok()) << finished.status();
  EXPECT_EQ(server_.blobs().at("/slow"), "piecepiecepiecepiecepiece");
}

TEST_F(HttpClientTest, ConnectLimitHolds) {
  // TEST-NET-1 (RFC 5737) routes nowhere: no answer, or "unreachable".
  options_.connect_limit = absl::Milliseconds(300);
  HttpRequest request = Request("GET", "/");
  request.url = "http://192.0.2.1:81/";
  const auto got = client_.Perform(options_, request, cancel_);
  EXPECT_TRUE(absl::IsDeadlineExceeded(got.status()) ||
              absl::IsUnavailable(got.status()))
      << got.status();
}

TEST_F(HttpClientTest, StatusAndRetryAfterAreHandedOver) {
  server_.Script("GET /a", {Fault::Answer(503, {"Retry-After: 7"})});
  const auto got = Get("/a");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->status, 503);
  EXPECT_EQ(got->retry_after, absl::Seconds(7));
}

TEST_F(HttpClientTest, RetryAfterDateCountsFromTheServersClock) {
  server_.Script("GET /a",
                 {Fault::Answer(429, {"Date: Tue, 01 Jan 2002 00:00:00 GMT",
                                      "Retry-After: Tue, 01 Jan 2002 00:02:00 "
                                      "GMT"})});
  const auto got = Get("/a");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->retry_after, absl::Minutes(2));
}

TEST_F(HttpClientTest, EarlyAnswerReachesTheProducer) {
  for (int status : {401, 411, 413, 503}) {
    Fault fault = Fault::Answer(status, {"Retry-After: 3"});
    fault.after_body_bytes = 1000;
    fault.body = "no, thank you";
    fault.end = Fault::End::kClose;
    server_.Script("PUT /early", {fault});
    auto upload = Upload("/early", std::nullopt);
    ASSERT_TRUE(upload.ok());
    const absl::Status appended = AppendForever(**upload);
    EXPECT_FALSE(appended.ok()) << status;
    const auto finished = (*upload)->Finish();
    ASSERT_TRUE(finished.ok()) << finished.status();
    EXPECT_EQ(finished->status, status);
    EXPECT_EQ(finished->body, "no, thank you");
  }
  EXPECT_EQ(server_.fired(), 4);
}

TEST_F(HttpClientTest, EarlyAnswerToAWaitingProducerReachesIt) {
  Fault fault = Fault::Answer(413);
  fault.after_body_bytes = 4;
  fault.end = Fault::End::kClose;
  server_.Script("PUT /early", {fault});
  auto upload = Upload("/early", std::nullopt);
  ASSERT_TRUE(upload.ok());
  ASSERT_TRUE((*upload)->Append("12345").ok());
  ASSERT_TRUE(server_.WaitUntilFired(1));
  const auto finished = (*upload)->Finish();
  ASSERT_TRUE(finished.ok()) << finished.status();
  EXPECT_EQ(finished->status, 413);
}

TEST_F(HttpClientTest, EarlySuccessIsALie) {
  Fault fault = Fault::Answer(201);
  fault.after_body_bytes = 1000;
  fault.end = Fault::End::kClose;
  server_.Script("PUT /lie", {fault});
  auto upload = Upload("/lie", std::nullopt);
  ASSERT_TRUE(upload.ok());
  EXPECT_TRUE(absl::IsUnavailable(AppendForever(**upload)));
  EXPECT_TRUE(absl::IsUnavailable((*upload)->Finish().status()));
  EXPECT_EQ(server_.fired(), 1);
}

TEST_F(HttpClientTest, AnUploadThatGoesBeforeFinishIsNotWhole) {
  for (const std::optional<uint64_t> size :
       {std::optional<uint64_t>(), std::optional<uint64_t>(5)}) {
    {
      auto upload = Upload("/gone", size);
      ASSERT_TRUE(upload.ok());
      ASSERT_TRUE((*upload)->Append("12345").ok());
    }
    // The next request shows that the server has not waited for the rest.
    ASSERT_TRUE(Put("/next", "n").ok());
  }
  EXPECT_EQ(server_.blobs().count("/gone"), 0u);
}

TEST_F(HttpClientTest, SizedUploadsKeepTheirPromise) {
  {
    auto upload = Upload("/more", 3);
    ASSERT_TRUE(upload.ok());
    EXPECT_TRUE(absl::IsInternal((*upload)->Append("1234")));
  }
  {
    auto upload = Upload("/less", 3);
    ASSERT_TRUE(upload.ok());
    ASSERT_TRUE((*upload)->Append("12").ok());
    EXPECT_TRUE(absl::IsInternal((*upload)->Finish().status()));
  }
  {
    auto upload = Upload("/none", 0);
    ASSERT_TRUE(upload.ok());
    const auto finished = (*upload)->Finish();
    ASSERT_TRUE(finished.ok()) << finished.status();
  }
  const auto blobs = server_.blobs();
  EXPECT_EQ(blobs.size(), 1u);
  EXPECT_EQ(blobs.count("/none"), 1u);
}

TEST_F(HttpClientTest, TooLongAnAnswerIsOutOfRange) {
  server_.SetBlob("/long", std::string(100000, 'x'));
  HttpRequest request = Request("GET", "/long");
  request.max_response_bytes = 99999;
  EXPECT_TRUE(
      absl::IsOutOfRange(client_.Perform(options_, request, cancel_).status()));
  request.max_response_bytes = 100000;
  EXPECT_TRUE(client_.Perform(options_, request, cancel_).ok());
}

TEST_F(HttpClientTest, ALongErrorPageIsStillThatError) {
  Fault fault = Fault::Answer(503);
  fault.body = std::string(3000000, 'x');
  server_.Script("GET /e", {fault});
  HttpRequest request = Request("GET", "/e");
  request.max_response_bytes = 10;
  const auto got = client_.Perform(options_, request, cancel_);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->status, 503);
  EXPECT_LE(got->body.size(), 16u << 10);
}

TEST_F(HttpClientTest, CancellationStopsWhatIsUnderWay) {
  server_.Script("GET /h", {Fault::Hang()});
  std::thread canceller([this] {
    EXPECT_TRUE(server_.WaitUntilFired(1));
    cancel_.Cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(Get("/h").status()));
  canceller.join();
  EXPECT_TRUE(server_.WaitUntilAbandoned(1));
  // Cancelled for good.
  EXPECT_TRUE(absl::IsCancelled(Get("/h").status()));
}

TEST_F(HttpClientTest, CancellationStopsWhatWaitsForAConnection) {
  options_.max_connections = 1;
  server_.ScriptAlways("GET /h", Fault::Hang());
  std::thread canceller([this] {
    EXPECT_TRUE(server_.WaitUntilFired(1));
    cancel_.Cancel();
  });
  const std::vector<HttpRequest> requests(50, Request("GET", "/h"));
  for (const auto& result : client_.PerformAll(options_, requests, cancel_)) {
    EXPECT_TRUE(absl::IsCancelled(result.status())) << result.status();
  }
  canceller.join();
  EXPECT_EQ(server_.fired(), 1);
}

TEST_F(HttpClientTest, CancellationReachesABlockedProducer) {
  Fault hang = Fault::Hang();
  hang.after_body_bytes = 10;
  server_.Script("PUT /h", {hang});
  auto upload = Upload("/h", std::nullopt);
  ASSERT_TRUE(upload.ok());
  std::thread canceller([this] {
    EXPECT_TRUE(server_.WaitUntilFired(1));
    cancel_.Cancel();
  });
  const std::string piece(128 << 10, 'x');
  absl::Status appended;
  while (appended.ok()) appended = (*upload)->Append(piece);
  EXPECT_TRUE(absl::IsCancelled(appended)) << appended;
  canceller.join();
}

TEST_F(HttpClientTest, OneServersHangDoesNotStopAnother) {
  server_.Script("GET /h", {Fault::Hang()});
  auto hanging = std::async(std::launch::async, [this] { return Get("/h"); });
  ASSERT_TRUE(server_.WaitUntilFired(1));
  BadHttpServer other;
  other.SetBlob("/a", "a");
  HttpRequest request = Request("GET", "/a");
  request.url = other.url() + "/a";
  Cancellation never;
  const auto got = client_.Perform(options_, request, never);
  ASSERT_TRUE(got.ok()) << got.status();
  cancel_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(hanging.get().status()));
}

}  // namespace
}  // namespace nixq
