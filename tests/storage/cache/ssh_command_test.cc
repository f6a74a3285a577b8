#include "storage/cache/ssh_command.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/text.h"
#include "storage/cache/ssh_cache.h"

namespace nixq {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

SshOptions Options(const std::string& url = "ssh://joe@host:2222") {
  return SshOptions{.store_dir = *StoreDir::Parse("/nix/store"),
                    .url = url,
                    .key_file = "",
                    .known_hosts_file = "",
                    .ssh_options = {},
                    .remote_program = "",
                    .remote_store = "",
                    .environment = {}};
}

SshAddress Address(const std::string& url) {
  auto address = SshAddress::Parse(url);
  EXPECT_TRUE(address.ok()) << address.status();
  return address.value_or(SshAddress{});
}

TEST(SshAddress, TakesUrlsApart) {
  const SshAddress full = Address("ssh-ng://joe@build.example:2222");
  EXPECT_EQ(full.scheme, "ssh-ng");
  EXPECT_EQ(full.user, "joe");
  EXPECT_EQ(full.host, "build.example");
  EXPECT_EQ(full.port, "2222");
  EXPECT_FALSE(full.compress);
  EXPECT_EQ(full.Destination(), "joe@build.example");

  const SshAddress bare = Address("ssh://host/?compress=true");
  EXPECT_EQ(bare.user, "");
  EXPECT_EQ(bare.port, "");
  EXPECT_TRUE(bare.compress);
  EXPECT_EQ(bare.Destination(), "host");

  const SshAddress six = Address("ssh://joe@[fe80::1]:22");
  EXPECT_EQ(six.Destination(), "joe@fe80::1");
  EXPECT_EQ(StoreUrl(Options(), six), "ssh://joe@[fe80::1]");
  EXPECT_EQ(Address("ssh://[::1]").port, "");
}

TEST(SshAddress, RefusesWhatCannotBePassedOn) {
  for (const char* url : {"",
                          "host",
                          "http://host",
                          "ssh:/host",
                          "ssh://",
                          "ssh://@host",
                          "ssh://-oProxyCommand=x",
                          "ssh://-x@host",
                          "ssh://joe@-x",
                          "ssh://ho st",
                          "ssh://host;id",
                          "ssh://$(id)@host",
                          "ssh://host\n",
                          "ssh://host:",
                          "ssh://host:0",
                          "ssh://host:65536",
                          "ssh://host:2x",
                          "ssh://host:22/path",
                          "ssh://host/path",
                          "ssh://a@b@c",
                          "ssh://[::1",
                          "ssh://[]",
                          "ssh://[host]",
                          "ssh://[::1]x",
                          "ssh://::1",
                          "ssh://host?remote-program=id",
                          "ssh://host?compress=true&ssh-key=k",
                          "ssh://localhost",
                          "ssh-ng://localhost:22",
                          "ssh://ho%20st",
                          "ssh://h'ost",
                          "ssh://joe:secret@host"}) {
    const auto address = SshAddress::Parse(url);
    EXPECT_TRUE(absl::IsInvalidArgument(address.status())) << url;
  }
}

TEST(SshOptions, RefusesWhatCouldReachAShell) {
  const std::vector<std::string> bad_options = {
      "",
      "=yes",
      "Compression",
      "Compression=",
      "Compression=yes no",
      "Compression=\"yes\"",
      "Compression=y'es",
      "Compression=$(id)",
      "Compression=`id`",
      "Compression=a;b",
      "Compression=a|b",
      "Compression=a\\b",
      "Compression=a\nProxyCommand=id",
      "Bad Name=yes",
      "-oProxyCommand=id",
      "ProxyCommand=id",
      "proxycommand=id",
      "LocalCommand=id",
      "PermitLocalCommand=yes",
      "KnownHostsCommand=/bin/id",
      "Include=/tmp/x",
      "PKCS11Provider=/tmp/x.so",
      "StrictHostKeyChecking=no",
      "STRICTHOSTKEYCHECKING=accept-new",
      "NoHostAuthenticationForLocalhost=yes",
      "BatchMode=no",
      "RequestTTY=force",
  };
  for (const std::string& option : bad_options) {
    SshOptions options = Options();
    options.ssh_options = {option};
    EXPECT_TRUE(absl::IsInvalidArgument(ValidateSshOptions(options))) << option;
  }
  for (const char* option :
       {"Compression=yes", "ProxyJump=joe@gate:22", "HostName=%h.example",
        "HostKeyAlias=nas", "Ciphers=+aes128-gcm@openssh.com", "IPQoS=cs1"}) {
    SshOptions options = Options();
    options.ssh_options = {option};
    EXPECT_TRUE(ValidateSshOptions(options).ok()) << option;
  }
}

TEST(SshOptions, RefusesOddFilesAndPrograms) {
  const auto refused = [](auto change) {
    SshOptions options = Options();
    change(options);
    return absl::IsInvalidArgument(SshCache::Make(options).status());
  };
  for (const char* file : {"key", "/a b", "/a'b", "/a\"b", "/a\\b", "/a$b",
                           "/%h", "~/key", "/a\nb", "-i"}) {
    EXPECT_TRUE(refused([&](auto& o) { o.key_file = file; })) << file;
    EXPECT_TRUE(refused([&](auto& o) { o.known_hosts_file = file; })) << file;
  }
  for (const char* program : {"a b", "a;id", "$(id)", "-x", "a'b", "a\nb"}) {
    EXPECT_TRUE(refused([&](auto& o) { o.remote_program = program; }))
        << program;
    EXPECT_TRUE(program[0] == '-' ||
                refused([&](auto& o) { o.remote_store = program; }))
        << program;
  }
  for (const char* directory :
       {"", "/", "relative", "/a/../b", "/a/", "/a//b", "/a\nb", "/a/."}) {
    EXPECT_TRUE(refused([&](auto& o) { o.remote_roots_directory = directory; }))
        << directory;
  }
  for (const char* sender : {"", ".", "..", "a/b", "-a", "a b", "a\nb"}) {
    EXPECT_TRUE(refused([&](auto& o) {
      o.pin_remote = true;
      o.sender = sender;
    })) << sender;
  }
  EXPECT_TRUE(refused([](auto& o) { o.stall_limit = absl::ZeroDuration(); }));
  EXPECT_TRUE(
      refused([](auto& o) { o.store_dir = *StoreDir::Parse("/nix/$(id)"); }));
  EXPECT_FALSE(refused(
      [](auto& o) { o.remote_roots_directory = "/with space/and'quote"; }));
}

TEST(SshArguments, HostKeysAreCheckedWhateverFollows) {
  SshOptions options = Options();
  options.key_file = "/keys/id";
  options.known_hosts_file = "/keys/known_hosts";
  options.ssh_options = {"Compression=yes"};
  options.connect_limit = absl::Seconds(7);
  const auto arguments = SshArguments(options, Address(options.url));
  EXPECT_THAT(arguments, Contains("-oBatchMode=yes"));
  EXPECT_THAT(arguments, Contains("-oStrictHostKeyChecking=yes"));
  EXPECT_THAT(arguments, Contains("-oIdentitiesOnly=yes"));
  EXPECT_THAT(arguments, Contains("/keys/id"));
  EXPECT_THAT(arguments, Contains("-oUserKnownHostsFile=/keys/known_hosts"));
  EXPECT_THAT(arguments, Contains("-oConnectTimeout=7"));
  EXPECT_THAT(arguments, Contains("2222"));
  // ssh takes the first value it sees: ours come before the user's.
  EXPECT_EQ(arguments.back(), "-oCompression=yes");
  for (const std::string& argument : arguments) {
    EXPECT_EQ(argument.find_first_of(" \t\n'\"\\"), std::string::npos)
        << argument;
  }
}

TEST(SshArguments, StoreUrlCarriesParametersEncodedAndNoPort) {
  SshOptions options = Options("ssh-ng://joe@host:2222?compress=true");
  options.remote_program = "/opt/nix-daemon";
  options.remote_store = "local?root=/a&b";
  EXPECT_EQ(StoreUrl(options, Address(options.url)),
            "ssh-ng://joe@host?compress=true&remote-program=%2fopt%2fnix-daemon"
            "&remote-store=local%3froot%3d%2fa%26b");
  EXPECT_EQ(StoreUrl(Options(), Address("ssh://host:22")), "ssh://host");
}

TEST(SshArguments, EnvironmentsAreWhatWasGiven) {
  SshOptions options = Options();
  options.environment = {"PATH=/bin",           "HOME=/h",
                         "NIX_CONFIG=evil = 1", "NIX_SSHOPTS=-oBatchMode=no",
                         "SSH_ASKPASS=/bin/id", "SSH_ASKPASS_REQUIRE=force",
                         "DISPLAY=:0"};
  EXPECT_THAT(SshEnvironment(options), ElementsAre("PATH=/bin", "HOME=/h"));
  const auto nix = NixEnvironment(options, Address(options.url));
  EXPECT_THAT(nix, ElementsAre("PATH=/bin", "HOME=/h",
                               StartsWith("NIX_SSHOPTS=-oBatchMode=yes ")));
  EXPECT_THAT(nix, Not(Contains(HasSubstr("evil"))));
}

TEST(SshArguments, RekeysOftenEnoughForTheStallLimit) {
  EXPECT_EQ(RekeyBytes(absl::Seconds(1)), 1u << 20);
  EXPECT_EQ(RekeyBytes(absl::Minutes(5)), 300u << 16);
  EXPECT_EQ(RekeyBytes(absl::InfiniteDuration()), 64u << 20);
}

}  // namespace
}  // namespace nixq
