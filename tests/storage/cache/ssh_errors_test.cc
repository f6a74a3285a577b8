#include "storage/cache/ssh_errors.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nixq {
namespace {

using ::testing::HasSubstr;
using Code = absl::StatusCode;
using Scope = SshFailure::Scope;

constexpr char kPath[] = "z17bqpiphcnf8warplfl4bzdflqxq4zy-other";

StoreDir Store() { return *StoreDir::Parse("/nix/store"); }

// What OpenSSH 9.2 and Nix 2.8.0 wrote, and the same errors in the words of
// Nix 2.34 where those differ.
struct Case {
  std::string name;
  std::vector<std::string> lines;
  Code code;
  Scope scope;
  std::string text;  // part of it
  std::string path = "";
};

const std::string kNoConnection = "error: cannot connect to 'root@127.0.0.1'";
const std::string kNoStore =
    "error: cannot open connection to remote store 'ssh-ng://root@127.0.0.1': "
    "error: unexpected end-of-file";
const std::string kEnd = "error: unexpected end-of-file";

const std::vector<Case> kLoginCases = {
    {"refused",
     {"debug1: connect to address 127.0.0.1 port 1: Connection refused",
      "ssh: connect to host 127.0.0.1 port 1: Connection refused",
      kNoConnection},
     Code::kUnavailable,
     Scope::kTarget,
     "ssh: connect to host 127.0.0.1"},
    {"no_name",
     {"ssh: Could not resolve hostname nohost.invalid: Name or service not "
      "known",
      kNoStore},
     Code::kUnavailable,
     Scope::kTarget,
     "nohost.invalid"},
    {"no_route",
     {"ssh: connect to host 192.0.2.1 port 22: No route to host", kNoStore},
     Code::kUnavailable,
     Scope::kTarget,
     "No route to host"},
    {"connect_timeout",
     {"ssh: connect to host 192.0.2.1 port 22: Connection timed out",
      kNoConnection},
     Code::kUnavailable,
     Scope::kTarget,
     "timed out"},
    {"host_key_changed",
     {"@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
      "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!",
      "Host key for [127.0.0.1]:22822 has changed and you have requested "
      "strict checking.",
      "Host key verification failed.", kNoConnection},
     Code::kUnauthenticated,
     Scope::kTarget,
     "IDENTIFICATION HAS CHANGED"},
    {"host_key_unknown",
     {"No ED25519 host key is known for [127.0.0.1]:22822 and you have "
      "requested strict checking.",
      "Host key verification failed.", kNoStore},
     Code::kUnauthenticated,
     Scope::kTarget,
     "known-hosts file"},
    {"key_refused",
     {"root@127.0.0.1: Permission denied (publickey).", kNoConnection},
     Code::kUnauthenticated,
     Scope::kTarget,
     "authorized_keys"},
    {"key_missing",
     {"Warning: Identity file /k not accessible: No such file or directory.",
      "root@127.0.0.1: Permission denied (publickey,password).", kNoStore},
     Code::kUnauthenticated,
     Scope::kTarget,
     "Permission denied"},
    {"key_readable_by_all",
     {"Permissions 0644 for '/k' are too open.",
      "Load key \"/k\": bad permissions",
      "root@127.0.0.1: Permission denied (publickey).", kNoConnection},
     Code::kUnauthenticated,
     Scope::kTarget,
     "Permission denied"},
    {"no_shell",
     {"This account is currently not available.", kNoConnection},
     Code::kUnauthenticated,
     Scope::kTarget,
     "not available"},
    {"sshd_busy",
     {"kex_exchange_identification: read: Connection reset by peer",
      "Connection reset by 127.0.0.1 port 22822", kNoConnection},
     Code::kUnavailable,
     Scope::kTarget,
     "reset by"},
    {"gone_in_the_middle",
     {"Connection to 127.0.0.1 closed by remote host.", kEnd},
     Code::kUnavailable,
     Scope::kTarget,
     "closed by remote host"},
    {"silent_host",
     {"Timeout, server 127.0.0.1 not responding.", kEnd},
     Code::kUnavailable,
     Scope::kTarget,
     "not responding"},
    {"no_program",
     {"bash: line 1: nix-store: command not found", kNoConnection},
     Code::kUnavailable,
     Scope::kTarget,
     "remote program"},
    {"no_program_dash",
     {"sh: 1: nix-store: not found", kNoConnection},
     Code::kUnavailable,
     Scope::kTarget,
     "remote program"},
    {"no_program_there",
     {"bash: line 1: /nope/nix-nope: No such file or directory", kNoStore},
     Code::kUnavailable,
     Scope::kTarget,
     "remote program"},
    {"other_program",
     {"error: 'nix-store --serve' protocol mismatch from 'root@127.0.0.1', "
      "got '--serve --write'"},
     Code::kUnavailable,
     Scope::kTarget,
     "forced command"},
    {"program_ends",
     {kNoConnection},
     Code::kUnavailable,
     Scope::kTarget,
     "cannot connect"},
    {"no_daemon",
     {"error: cannot connect to socket at '/r/sock': Connection refused", kEnd},
     Code::kUnavailable,
     Scope::kTarget,
     "/r/sock"},
};

std::vector<Case> NixCases() {
  const std::string path = std::string("'/nix/store/") + kPath + "'";
  return {
      {"not_trusted",
       {"error: cannot add path " + path +
            " because it lacks a valid signature",
        kEnd},
       Code::kPermissionDenied,
       Scope::kPath,
       "trusted-public-keys",
       kPath},
      {"not_trusted_now",
       {"\x1b[31;1merror:\x1b[0m cannot add path '\x1b[35;1m/nix/store/" +
        std::string(kPath) +
        "\x1b[0m' because it lacks a signature by a trusted key"},
       Code::kPermissionDenied,
       Scope::kPath,
       "cannot add path",
       kPath},
      {"not_valid",
       {"error: path " + path +
        " is required, but there is no substituter that can build it"},
       Code::kNotFound,
       Scope::kPath,
       "is required",
       kPath},
      {"not_valid_now",
       {"error: path " + path + " is not valid"},
       Code::kNotFound,
       Scope::kPath,
       "is not valid",
       kPath},
      {"corrupt",
       {"error: hash mismatch importing path " + path +
            "; specified: sha256:0000 got: sha256:1111",
        kEnd},
       Code::kDataLoss,
       Scope::kPath,
       "hash mismatch",
       kPath},
      {"disk_full",
       {"error: writing to file: No space left on device", kEnd},
       Code::kResourceExhausted,
       Scope::kTarget,
       "No space left"},
      {"may_not_write",
       {"error: opening lock file '/nix/var/nix/db/big-lock': Permission "
        "denied",
        kEnd},
       Code::kPermissionDenied,
       Scope::kUnknown,
       "big-lock"},
      {"not_an_allowed_user",
       {"error: user 'joe' is not allowed to connect to the Nix daemon", kEnd},
       Code::kPermissionDenied,
       Scope::kTarget,
       "joe"},
      {"broken_off", {kEnd}, Code::kUnavailable, Scope::kUnknown, "broke off"},
      {"unknown_words",
       {"warning: something", "error: the moon is in the wrong phase", kEnd},
       Code::kUnknown,
       Scope::kUnknown,
       "the moon"},
      {"no_words", {}, Code::kUnknown, Scope::kUnknown, "without a word"},
  };
}

class SshErrorsTest : public ::testing::TestWithParam<Case> {};

TEST_P(SshErrorsTest, SaysWhatItMeans) {
  const Case& expected = GetParam();
  const SshFailure failure = ClassifySshFailure(expected.lines, Store());
  EXPECT_EQ(failure.code, expected.code) << failure.text;
  EXPECT_EQ(failure.scope, expected.scope) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr(expected.text));
  EXPECT_EQ(failure.path, expected.path);
  EXPECT_EQ(failure.text.find('\x1b'), std::string::npos);
}

std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  return info.param.name;
}
INSTANTIATE_TEST_SUITE_P(Login, SshErrorsTest, ::testing::ValuesIn(kLoginCases),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Nix, SshErrorsTest, ::testing::ValuesIn(NixCases()),
                         NameOf);

// A path's name can be anything, also what an error is called.
TEST(SshErrors, NamesOfPathsAreNoErrors) {
  const SshFailure failure = ClassifySshFailure(
      {"error: odd thing with "
       "'/nix/store/z17bqpiphcnf8warplfl4bzdflqxq4zy-Connection-refused'"},
      Store());
  EXPECT_EQ(failure.code, Code::kUnknown);
}

TEST(SshErrors, LongWordsAreCut) {
  const SshFailure failure =
      ClassifySshFailure({"error: " + std::string(1 << 20, 'x')}, Store());
  EXPECT_LE(failure.text.size(), 1024u);
}

TEST(SshErrors, RunFailures) {
  EXPECT_EQ(ClassifyRunFailure(absl::DeadlineExceededError("stall")).code,
            Code::kDeadlineExceeded);
  // A program that is missing must not park paths.
  EXPECT_EQ(ClassifyRunFailure(absl::NotFoundError("no nix")).code,
            Code::kUnavailable);
}

TEST(SshErrors, FindsStorePaths) {
  const StoreDir store = Store();
  EXPECT_EQ(
      StorePathIn("a '/nix/store/" + std::string(kPath) + "/bin/x'", store),
      kPath);
  EXPECT_EQ(
      StorePathIn("'/nix/store/short' '/nix/store/" + std::string(kPath) + "'",
                  store),
      kPath);
  EXPECT_EQ(StorePathIn("/nix/store/", store), "");
  EXPECT_EQ(StorePathIn("", store), "");
}

}  // namespace
}  // namespace nixq
