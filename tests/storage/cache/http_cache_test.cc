// What only a cache behind HTTP has: statuses, habits, TLS, identities. The
// rest is in blob_store_test.cc and http_client_test.cc.
#include "storage/cache/http_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "tests/support/bad_http_server.h"
#include "tests/support/nginx.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/test_ca.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

class HttpStoreTest : public testing::Test {
 protected:
  std::unique_ptr<BlobStore> Store(const std::string& url) {
    auto made = MakeHttpStore(url, options_, client_);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *std::move(made) : nullptr;
  }
  std::unique_ptr<BlobStore> Store() { return Store(server_.url() + "/c"); }
  absl::Status Put(BlobStore& store) {
    return store.Put("x.narinfo", "text/x-nix-narinfo", "text", cancel_);
  }

  BadHttpServer server_;
  HttpOptions options_;
  Cancellation cancel_;
  HttpClient client_;
};

TEST_F(HttpStoreTest, KeysFollowTheBaseUrl) {
  for (const char* base : {"", "/", "/a/b", "/a/b//"}) {
    ASSERT_TRUE(Put(*Store(server_.url() + base)).ok());
  }
  const auto requests = server_.requests();
  EXPECT_EQ(requests[0].target, "/x.narinfo");
  EXPECT_EQ(requests[1].target, "/x.narinfo");
  EXPECT_EQ(requests[2].target, "/a/b/x.narinfo");
  EXPECT_EQ(requests[3].target, "/a/b/x.narinfo");
  EXPECT_EQ(requests[0].headers.at("content-type"), "text/x-nix-narinfo");
}

TEST_F(HttpStoreTest, BadBaseUrlsAreRefused) {
  for (const char* bad : {"", "cache.example", "ftp://x", "http://u:p@x/",
                          "http://x/?a=b", "https://x/#f"}) {
    const auto made = MakeHttpStore(bad, options_, client_);
    EXPECT_TRUE(absl::IsInvalidArgument(made.status())) << bad;
    EXPECT_THAT(std::string(made.status().message()), Not(HasSubstr("u:p")));
  }
}

TEST_F(HttpStoreTest, EachAnswerToAPutHasItsCode) {
  struct Row {
    int status;
    Code code;
    bool paths_fault;
  };
  const auto store = Store();
  const Row rows[] = {
      {400, Code::kInvalidArgument, true},
      {401, Code::kUnauthenticated, false},
      {403, Code::kPermissionDenied, false},
      {404, Code::kInvalidArgument, true},
      {405, Code::kInvalidArgument, true},
      {408, Code::kUnavailable, false},
      {409, Code::kInvalidArgument, true},
      {411, Code::kInvalidArgument, true},
      {413, Code::kInvalidArgument, true},
      {429, Code::kUnavailable, false},
      {500, Code::kUnavailable, true},
      {501, Code::kUnimplemented, true},
      {503, Code::kUnavailable, false},
      {507, Code::kResourceExhausted, false},
  };
  for (const Row& row : rows) {
    server_.Script("PUT", {Fault::Answer(row.status, {"Retry-After: 4"})});
    const absl::Status put = Put(*store);
    EXPECT_EQ(put.code(), row.code) << row.status;
    EXPECT_EQ(IsPathsFault(put), row.paths_fault) << row.status;
    EXPECT_THAT(std::string(put.message()), HasSubstr("4 bytes"));
    if (row.code == Code::kUnavailable) {
      EXPECT_EQ(RetryAfterOf(put), absl::Seconds(4));
    }
  }
  EXPECT_EQ(server_.fired(), static_cast<int>(std::size(rows)));
}

TEST_F(HttpStoreTest, WrongRedirectOfAPutBlamesThePath) {
  server_.Script("PUT", {Fault::Answer(302, {"Location: /elsewhere"})});
  const absl::Status put = Put(*Store());
  EXPECT_TRUE(absl::IsInvalidArgument(put)) << put;
  EXPECT_TRUE(IsPathsFault(put));
  EXPECT_EQ(server_.fired(), 1);
}

TEST_F(HttpStoreTest, ForbiddenIsNotThereForExistOnly) {
  const auto store = Store();
  server_.ScriptAlways("HEAD /c/x", Fault::Answer(403));
  server_.ScriptAlways("GET /c/x", Fault::Answer(403));
  const auto there = store->Exist({"x"}, cancel_);
  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_FALSE(there->at(0).value_or(true));
  EXPECT_TRUE(absl::IsPermissionDenied(store->Get("x", 10, cancel_).status()));
}

TEST_F(HttpStoreTest, ExistFailsAsAWholeWhenTheServerIsIll) {
  const auto store = Store();
  server_.SetBlob("/c/a", "1");
  server_.Script("HEAD /c/b", {Fault::Answer(503, {"Retry-After: 2"})});
  const auto there = store->Exist({"a", "b"}, cancel_);
  EXPECT_TRUE(absl::IsUnavailable(there.status())) << there.status();
  EXPECT_EQ(RetryAfterOf(there.status()), absl::Seconds(2));
  server_.Script("HEAD /c/b", {Fault::Answer(401)});
  EXPECT_TRUE(
      absl::IsUnauthenticated(store->Exist({"a", "b"}, cancel_).status()));
}

TEST_F(HttpStoreTest, ABadAnswerForOneKeyIsThatKeysOwn) {
  const auto store = Store();
  server_.SetBlob("/c/a", "1");
  Fault page = Fault::Answer(200, {"Content-Type: text/html"});
  for (const Fault& fault : {Fault::Answer(500), Fault::Answer(400), page,
                             Fault::Answer(302, {"Location: /c/b"})}) {
    server_.ScriptAlways("HEAD /c/b", fault);
    const auto there = store->Exist({"b", "a", "c"}, cancel_);
    ASSERT_TRUE(there.ok()) << there.status();
    EXPECT_FALSE(there->at(0).ok()) << fault.status;
    EXPECT_TRUE(IsPathsFault(there->at(0).status())) << there->at(0).status();
    EXPECT_TRUE(there->at(1).value_or(false));
    EXPECT_FALSE(there->at(2).value_or(true));
  }
}

// With nothing to compare with, a file that every cache has tells.
TEST_F(HttpStoreTest, A500ForTheOnlyKeyIsTheServersUnlessItIsWell) {
  const auto store = Store();
  server_.ScriptAlways("HEAD /c/b", Fault::Answer(500));
  server_.Script("GET /c/nix-cache-info", {Fault::Answer(500)});
  auto there = store->Exist({"b"}, cancel_);
  EXPECT_TRUE(absl::IsUnavailable(there.status())) << there.status();
  EXPECT_FALSE(IsPathsFault(there.status()));
  server_.SetBlob("/c/nix-cache-info", "StoreDir: /nix/store\n");
  there = store->Exist({"b"}, cancel_);
  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_TRUE(absl::IsUnavailable(there->at(0).status()));
  EXPECT_TRUE(IsPathsFault(there->at(0).status()));
}

TEST_F(HttpStoreTest, A500ToPutsOfOneKeyOnlyIsThatKeysOwn) {
  const auto store = Store();
  const auto put = [&](const std::string& key) {
    return store->Put(key, "text/plain", "text", cancel_);
  };
  server_.ScriptAlways("PUT /c/bad", Fault::Answer(500));
  EXPECT_TRUE(IsPathsFault(put("bad")));
  EXPECT_TRUE(IsPathsFault(put("bad")));
  ASSERT_TRUE(put("good").ok());
  EXPECT_TRUE(IsPathsFault(put("bad")));
  // Nothing arrives between two keys that fail: the server itself is ill.
  server_.ScriptAlways("PUT /c/other", Fault::Answer(500));
  EXPECT_FALSE(IsPathsFault(put("other")));
  EXPECT_TRUE(absl::IsUnavailable(put("other")));
  ASSERT_TRUE(put("good").ok());
  EXPECT_TRUE(IsPathsFault(put("other")));
}

// Servers quote what they were sent.
TEST_F(HttpStoreTest, NoSecretIsInAnError) {
  const TemporaryDirectory directory;
  ASSERT_TRUE(WriteFileAtomically(directory / "token", "T0ken99\n", 0600).ok());
  ASSERT_TRUE(WriteFileAtomically(directory / "netrc",
                                  "default login u password Netrc99\n", 0600)
                  .ok());
  Fault page = Fault::Answer(400);
  page.body = "Authorization: Bearer T0ken99 or Basic dTpOZXRyYzk5 (Netrc99)";
  server_.ScriptAlways("PUT", page);
  for (const bool token : {true, false}) {
    options_.bearer_token_file = token ? directory / "token" : "";
    options_.netrc_file = token ? "" : directory / "netrc";
    const std::string message(Put(*Store()).message());
    EXPECT_THAT(message, HasSubstr("***"));
    EXPECT_THAT(message, HasSubstr("Authorization"));
    EXPECT_THAT(message, Not(HasSubstr(token ? "T0ken99" : "Netrc99")));
    EXPECT_THAT(message, Not(HasSubstr(token ? "T0ken99" : "dTpOZXRyYzk5")));
  }
}

TEST_F(HttpStoreTest, AProxyThatIsNoUrlIsSaidAtOnceAndNotShown) {
  for (const char* bad : {"http://user:Pass99@proxy.example:99999",
                          "http://user:My Pass99@127.0.0.1:9"}) {
    options_.proxy = bad;
    const auto made = MakeHttpStore(server_.url(), options_, client_);
    EXPECT_TRUE(absl::IsInvalidArgument(made.status())) << bad;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr("proxy"));
    EXPECT_THAT(std::string(made.status().message()), Not(HasSubstr("Pass99")));
  }
  for (const char* good : {"127.0.0.1:9", "http://u:p@[::1]:80/", ""}) {
    options_.proxy = good;
    EXPECT_TRUE(MakeHttpStore(server_.url(), options_, client_).ok()) << good;
  }
}

TEST_F(HttpStoreTest, WhoRefusesHeadIsAskedWithGet) {
  for (int status : {405, 501}) {
    BadHttpServer server;
    server.ScriptAlways("HEAD", Fault::Answer(status));
    server.SetBlob("/a", "1");
    server.SetBlob("/long", std::string(200000, 'x'));
    const auto store = Store(server.url());
    auto there = store->Exist({"a", "b", "long"}, cancel_);
    ASSERT_TRUE(there.ok()) << there.status();
    ASSERT_EQ(there->size(), 3u);
    EXPECT_TRUE(there->at(0).value_or(false));
    EXPECT_FALSE(there->at(1).value_or(true));
    EXPECT_TRUE(there->at(2).value_or(false));
    const size_t heads_then_gets = server.requests().size();
    EXPECT_EQ(heads_then_gets, 6u);
    // Remembered.
    there = store->Exist({"a", "b", "long"}, cancel_);
    ASSERT_TRUE(there.ok()) << there.status();
    EXPECT_EQ(server.requests().size(), heads_then_gets + 3);
  }
}

TEST_F(HttpStoreTest, ALoginPageIsNoBlob) {
  const auto store = Store();
  Fault page = Fault::Answer(200, {"Content-Type: text/html; charset=utf-8"});
  page.body = "<html><title>Free Wi-Fi</title></html>";
  server_.ScriptAlways("HEAD", page);
  server_.ScriptAlways("GET", page);
  EXPECT_TRUE(absl::IsUnavailable(store->Exist({"x"}, cancel_).status()));
  EXPECT_TRUE(absl::IsUnavailable(store->Get("x", 1000, cancel_).status()));
}

TEST_F(HttpStoreTest, ALoginPageHasStoredNothing) {
  const auto store = Store();
  Fault page = Fault::Answer(200, {"Content-Type: Text/HTML"});
  page.body = "<html><title>Please log in</title></html>";
  server_.Script("PUT", {page, page});
  EXPECT_TRUE(absl::IsUnavailable(Put(*store)));
  auto writer = store->StartPut("nar/x", "", 1, cancel_);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append("x").ok());
  EXPECT_TRUE(absl::IsUnavailable((*writer)->Commit()));
  // What Apache says of what it has stored, and others of nothing.
  page.status = 201;
  Fault words = Fault::Answer(200, {"Content-Type: text/html"});
  words.body = "ok";
  server_.Script("PUT", {page, words});
  EXPECT_TRUE(Put(*store).ok());
  EXPECT_TRUE(Put(*store).ok());
  EXPECT_EQ(server_.fired(), 4);
}

TEST_F(HttpStoreTest, TheTypeOfAPageIsReadInAnyCase) {
  const auto store = Store();
  for (const char* type :
       {"TEXT/HTML", "Text/html;charset=utf-8", "application/xhtml+xml"}) {
    Fault page = Fault::Answer(200, {std::string("Content-Type: ") + type});
    server_.ScriptAlways("HEAD", page);
    server_.ScriptAlways("GET", page);
    EXPECT_TRUE(absl::IsUnavailable(store->Exist({"x"}, cancel_).status()))
        << type;
  }
}

TEST_F(HttpStoreTest, AnswersToAnotherQuestionAreNoSuccess) {
  const auto store = Store();
  for (int status : {202, 206, 304}) {
    server_.Script("PUT", {Fault::Answer(status)});
    EXPECT_TRUE(absl::IsUnavailable(Put(*store))) << status;
    server_.Script("HEAD", {Fault::Answer(status)});
    const auto there = store->Exist({"x"}, cancel_);
    EXPECT_TRUE(absl::IsUnavailable(there.status())) << status;
  }
}

TEST_F(HttpStoreTest, WhoWantsTheSizeIsRemembered) {
  for (int status : {411, 501}) {
    BadHttpServer server;
    Fault refuse = Fault::Answer(status);
    refuse.after_body_bytes = 0;
    refuse.end = Fault::End::kClose;
    server.Script("PUT", {refuse});
    const auto store = Store(server.url());
    auto writer = store->StartPut("nar/x", "", std::nullopt, cancel_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    absl::Status status_of_writer;
    for (int i = 0; i < 1000 && status_of_writer.ok(); ++i) {
      status_of_writer = (*writer)->Append(std::string(100000, 'x'));
    }
    EXPECT_TRUE(absl::IsUnimplemented(status_of_writer)) << status_of_writer;
    writer->reset();
    EXPECT_EQ(server.fired(), 1);
    EXPECT_TRUE(absl::IsUnimplemented(
        store->StartPut("nar/x", "", std::nullopt, cancel_).status()));
    EXPECT_EQ(server.requests().size(), 1u);
    auto sized = store->StartPut("nar/x", "", 3, cancel_);
    ASSERT_TRUE(sized.ok()) << sized.status();
    ASSERT_TRUE((*sized)->Append("abc").ok());
    EXPECT_TRUE((*sized)->Commit().ok());
    EXPECT_EQ(server.blobs().at("/nar/x"), "abc");
  }
}

TEST_F(HttpStoreTest, EarlyRefusalOfAStreamHasItsCode) {
  const auto store = Store();
  for (const auto& [status, code] : {std::pair{401, Code::kUnauthenticated},
                                     std::pair{413, Code::kInvalidArgument},
                                     std::pair{503, Code::kUnavailable}}) {
    Fault refuse = Fault::Answer(status);
    refuse.after_body_bytes = 10;
    refuse.end = Fault::End::kClose;
    server_.Script("PUT", {refuse});
    auto writer = store->StartPut("nar/x", "", std::nullopt, cancel_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    absl::Status appended;
    for (int i = 0; i < 1000 && appended.ok(); ++i) {
      appended = (*writer)->Append(std::string(100000, 'x'));
    }
    EXPECT_EQ(appended.code(), code) << appended;
    EXPECT_EQ(IsPathsFault(appended), code == Code::kInvalidArgument);
  }
  EXPECT_EQ(server_.fired(), 3);
}

// Identities, over TLS, at nginx.

class HttpIdentityTest : public HttpStoreTest {
 protected:
  void SetUp() override {
    auto ca = TestCa::Create(directory_ / "ca");
    ASSERT_TRUE(ca.ok()) << ca.status();
    ca_ = std::make_unique<TestCa>(*std::move(ca));
    const auto server = ca_->Issue("localhost");
    ASSERT_TRUE(server.ok()) << server.status();
    server_options_.certificate_file = server->certificate_file;
    server_options_.key_file = server->key_file;
    options_.ca_file = ca_->ca_file();
  }
  void StartNginx() {
    auto started = Nginx::Start(server_options_);
    ASSERT_TRUE(started.ok()) << started.status();
    nginx_ = *std::move(started);
  }
  absl::Status PutToNginx() { return Put(*Store(nginx_->url())); }
  void Write(const std::string& file, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(file, text, 0600).ok());
  }

  TemporaryDirectory directory_;
  std::unique_ptr<TestCa> ca_;
  NginxOptions server_options_;
  std::unique_ptr<Nginx> nginx_;
};

TEST_F(HttpIdentityTest, OnlyTheRightCaWillDo) {
  StartNginx();
  ASSERT_TRUE(PutToNginx().ok());
  EXPECT_THAT(nginx_->AccessLog("PUT"), HasSubstr("HTTP/2.0"));

  const auto other = TestCa::Create(directory_ / "other");
  ASSERT_TRUE(other.ok()) << other.status();
  for (const std::string& ca :
       {other->ca_file(), std::string(), directory_ / "missing"}) {
    options_.ca_file = ca;
    const absl::Status put = PutToNginx();
    EXPECT_TRUE(absl::IsPermissionDenied(put)) << ca << ": " << put;
  }
}

TEST_F(HttpIdentityTest, TheNameMustMatch) {
  StartNginx();
  // The certificate is for localhost.
  const absl::Status put =
      Put(*Store(absl::StrFormat("https://127.0.0.1:%d", nginx_->port())));
  EXPECT_TRUE(absl::IsPermissionDenied(put)) << put;
}

TEST_F(HttpIdentityTest, Http11OverTlsWorksToo) {
  server_options_.http2 = false;
  StartNginx();
  ASSERT_TRUE(PutToNginx().ok());
  EXPECT_THAT(nginx_->AccessLog("PUT"), HasSubstr("HTTP/1.1"));
}

TEST_F(HttpIdentityTest, ClientCertificates) {
  server_options_.client_ca_file = ca_->ca_file();
  StartNginx();
  absl::Status put = PutToNginx();
  EXPECT_TRUE(absl::IsUnauthenticated(put)) << put;

  const auto mine = ca_->Issue("builder");
  ASSERT_TRUE(mine.ok()) << mine.status();
  options_.client_certificate_file = mine->certificate_file;
  options_.client_key_file = mine->key_file;
  put = PutToNginx();
  EXPECT_TRUE(put.ok()) << put;

  options_.client_certificate_file = directory_ / "missing";
  put = PutToNginx();
  EXPECT_TRUE(absl::IsUnauthenticated(put)) << put;
}

TEST_F(HttpIdentityTest, BearerToken) {
  server_options_.authorization = "Bearer sesame";
  StartNginx();
  absl::Status put = PutToNginx();
  EXPECT_TRUE(absl::IsUnauthenticated(put)) << put;
  options_.bearer_token_file = directory_ / "token";
  Write(options_.bearer_token_file, "wrong-sesame-2");
  put = PutToNginx();
  EXPECT_TRUE(absl::IsUnauthenticated(put)) << put;
  EXPECT_THAT(std::string(put.message()), Not(HasSubstr("sesame")));
  Write(options_.bearer_token_file, "sesame\n");
  put = PutToNginx();
  EXPECT_TRUE(put.ok()) << put;
}

TEST_F(HttpIdentityTest, Netrc) {
  server_options_.authorization = "Basic bWU6c2VzYW1l";  // me:sesame
  StartNginx();
  options_.netrc_file = directory_ / "netrc";
  Write(options_.netrc_file, "machine other login me password sesame\n");
  absl::Status put = PutToNginx();
  EXPECT_TRUE(absl::IsUnauthenticated(put)) << put;
  Write(options_.netrc_file, "machine localhost login me password sesame\n");
  put = PutToNginx();
  EXPECT_TRUE(put.ok()) << put;
}

TEST_F(HttpIdentityTest, HttpsNeverLeadsToHttp) {
  server_options_.directives =
      absl::StrFormat("location /c/ { return 302 %s/c/x; }\n", server_.url());
  StartNginx();
  server_.SetBlob("/c/x", "x");
  const auto got = Store(nginx_->url() + "/c")->Get("x", 100, cancel_);
  EXPECT_TRUE(absl::IsInvalidArgument(got.status())) << got.status();
  EXPECT_TRUE(server_.requests().empty());
}

// nginx's own refusals.

TEST_F(HttpStoreTest, NginxRefusesTooLargeABody) {
  NginxOptions options;
  options.directives = "client_max_body_size 1m;\n";
  const auto nginx = Nginx::Start(options);
  ASSERT_TRUE(nginx.ok()) << nginx.status();
  const auto store = Store((*nginx)->url());
  const std::string bytes(3000000, 'x');
  const absl::Status put = store->Put("nar/x", "", bytes, cancel_);
  EXPECT_TRUE(absl::IsInvalidArgument(put)) << put;
  EXPECT_THAT(std::string(put.message()), HasSubstr("413"));
  EXPECT_THAT(std::string(put.message()), HasSubstr("3000000"));
  EXPECT_TRUE(IsPathsFault(put));
  auto writer = store->StartPut("nar/x", "", std::nullopt, cancel_);
  ASSERT_TRUE(writer.ok()) << writer.status();
  absl::Status appended;
  for (int i = 0; i < 1000 && appended.ok(); ++i) {
    appended = (*writer)->Append(bytes);
  }
  EXPECT_TRUE(absl::IsInvalidArgument(appended)) << appended;
}

TEST_F(HttpStoreTest, AnAbandonedUploadLeavesNothingAtNginx) {
  const auto nginx = Nginx::Start();
  ASSERT_TRUE(nginx.ok()) << nginx.status();
  const auto store = Store((*nginx)->url());
  for (const auto size :
       {std::optional<uint64_t>(), std::optional<uint64_t>(3000000)}) {
    auto writer = store->StartPut("nar/x", "", size, cancel_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(std::string(3000000, 'x')).ok());
    writer->reset();
    // nginx has dealt with the first connection's end before it logs this.
    ASSERT_TRUE(store->Put("next", "", "x", cancel_).ok());
  }
  EXPECT_FALSE(std::filesystem::exists((*nginx)->directory() + "/nar/x"));
}

}  // namespace
}  // namespace nixq
