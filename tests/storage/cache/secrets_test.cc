#include "storage/cache/secrets.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

TEST(SecretsTest, WordsGoWhereverTheyAre) {
  Secrets secrets;
  secrets.Add("token");
  secrets.Add("token-and-more");
  secrets.Add("abc");  // too short to be one
  EXPECT_EQ(secrets.RemovedFrom("Bearer token-and-more, token; abc token"),
            "Bearer ***, ***; abc ***");
  EXPECT_EQ(secrets.RemovedFrom("tokentoken"), "******");
  EXPECT_EQ(Secrets().RemovedFrom("as it is"), "as it is");
}

TEST(SecretsTest, LoginsGoInBothForms) {
  Secrets secrets;
  secrets.AddLogin("user", "pass word");
  // printf 'user:pass word' | base64
  EXPECT_EQ(secrets.RemovedFrom("user, pass word, Basic dXNlcjpwYXNzIHdvcmQ="),
            "user, ***, Basic ***");
}

TEST(SecretsTest, AllPasswordsOfANetrcFile) {
  Secrets secrets;
  secrets.AddNetrc(
      "machine a login u password first\n"
      "machine b\n  login \"v w\"\n\tpassword \"sec\\\"ond one\"\n"
      "default login x password third");
  EXPECT_EQ(secrets.RemovedFrom("first sec\"ond one third machine login"),
            "*** *** *** machine login");
  EXPECT_EQ(secrets.RemovedFrom("dTpmaXJzdA=="), "***");
}

TEST(SecretsTest, ThePasswordOfAProxy) {
  Secrets secrets;
  secrets.AddUserOf("http://user:Proxy Pass99@127.0.0.1:9");
  secrets.AddUserOf("http://me:p%40ss@proxy");
  EXPECT_EQ(secrets.RemovedFrom("syntax in 'http://user:Proxy Pass99@x:9'"),
            "syntax in 'http://***@x:9'");
  EXPECT_EQ(secrets.RemovedFrom("Proxy Pass99 p%40ss p@ss"), "*** *** ***");
}

TEST(SecretsTest, UsersOfAnyUrl) {
  EXPECT_EQ(Secrets().RemovedFrom("to https://a:b@host/x@y and http://c@d"),
            "to https://***@host/x@y and http://***@d");
  EXPECT_EQ(Secrets().RemovedFrom("mail to http://host/a@b or a@b"),
            "mail to http://host/a@b or a@b");
}

TEST(SecretsTest, AStatusKeepsAllButItsWords) {
  Secrets secrets;
  secrets.Add("token");
  const absl::Status shown = secrets.RemovedFrom(BlamePath(
      WithRetryAfter(absl::UnavailableError("a token"), absl::Seconds(3))));
  EXPECT_TRUE(absl::IsUnavailable(shown));
  EXPECT_EQ(std::string(shown.message()), "a ***");
  EXPECT_TRUE(IsPathsFault(shown));
  EXPECT_EQ(RetryAfterOf(shown), absl::Seconds(3));
  EXPECT_TRUE(secrets.RemovedFrom(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace nixq
