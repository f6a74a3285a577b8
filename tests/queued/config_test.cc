#include "queued/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "queued/config_keys.h"
#include "storage/base/text.h"
#include "tests/queued/config_fixture.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

Config Good(const std::string& text,
            const Surroundings& surroundings = Root()) {
  ParsedConfig parsed = ParseConfig(text, "q.toml", surroundings);
  EXPECT_THAT(Texts(parsed.problems), IsEmpty()) << text;
  return parsed.config;
}

// Every field that a key sets, as "table.key value"; targets by their names.
class Description {
 public:
  explicit Description(const Config& config) {
    Top(config);
    for (const TargetConfig& target : config.targets) {
      prefix_ = "target " + target.name + ".";
      AddTarget(target);
    }
  }
  const std::map<std::string, std::string>& fields() const { return fields_; }

 private:
  template <typename T>
  void Add(const std::string& key, const T& value) {
    std::ostringstream text;
    if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      text << Join(value, " ");
    } else {
      text << value;
    }
    fields_[prefix_ + key] = text.str();
  }

  void Top(const Config& c) {
    Add("state-dir", c.state_dir);
    Add("reader-group", c.reader_group);
    Add("outputs", c.outputs_named_only);
    Add("log-level", static_cast<int>(c.log_level));
    Add("nix.store-dir", c.store_dir);
    Add("nix.real-store-dir", c.real_store_dir);
    Add("nix.state-dir", c.nix_state_dir);
    Add("nix.daemon-socket", c.nix_daemon_socket);
    Add("nix.bin-dir", c.nix_bin_dir);
    Add("signing.key-files", c.signing_key_files);
    Add("roots.enable", c.roots_enabled);
    Add("roots.directory", c.roots_directory);
    Add("roots.systems", c.roots_systems);
    Add("roots.max-age", c.roots_max_age);
    Add("roots.adopt", c.roots_adopt);
    Add("prune.enable", c.prune_enabled);
    Add("prune.interval", c.prune_interval);
    Add("retry.min-delay", c.retry_min_delay);
    Add("retry.max-delay", c.retry_max_delay);
    Add("retry.max-attempts", c.retry_max_attempts);
    Add("concurrency.uploads", c.uploads);
    Add("concurrency.compressions", c.compressions);
    Add("history.keep", c.history_keep);
  }

  void AddTarget(const TargetConfig& t) {
    Add("name", t.name);
    Add("url", t.url);
    Add("compression", CompressionWord(t.compression.method));
    // What leaving it out means.
    Add("compression-level",
        t.compression.level.value_or(
            t.compression.method == Compression::kXz ? 6 : 3));
    Add("closure", t.closure);
    Add("priority", t.priority);
    Add("want-mass-query", t.want_mass_query);
    Add("include", t.include);
    Add("exclude", t.exclude);
    Add("max-nar-size", t.max_nar_size_bytes.value_or(0));
    Add("systems", t.systems);
    Add("skip-signed-by", t.skip_signed_by);
    Add("upstreams", t.upstreams);
    Add("netrc-file", t.netrc_file);
    Add("bearer-token-file", t.bearer_token_file);
    Add("client-certificate-file", t.client_certificate_file);
    Add("client-key-file", t.client_key_file);
    Add("ca-file", t.ca_file);
    Add("connect-limit", t.connect_limit);
    Add("stall-limit", t.stall_limit);
    Add("max-connections", t.max_connections);
    Add("ssh-key-file", t.ssh_key_file);
    Add("ssh-known-hosts-file", t.ssh_known_hosts_file);
    Add("ssh-options", t.ssh_options);
    Add("ssh-remote-program", t.ssh_remote_program);
    Add("ssh-remote-store", t.ssh_remote_store);
    Add("substitute-on-destination", t.substitute_on_destination);
    Add("pin-remote", t.pin_remote);
    Add("remote-roots-directory", t.remote_roots_directory);
    Add("batch-paths", t.batch_paths);
    Add("batch-size", t.batch_bytes);
  }

  static std::string CompressionWord(Compression method) {
    return std::to_string(static_cast<int>(method));
  }

  std::string prefix_;
  std::map<std::string, std::string> fields_;
};

// --- What is right ---------------------------------------------------------

TEST(Config, OneUrlIsEnough) {
  Config config = Good(kOneTarget);
  EXPECT_EQ(config.file, "q.toml");
  EXPECT_EQ(config.state_dir, "/var/lib/nix-queued");
  EXPECT_EQ(config.store_dir, "/nix/store");
  EXPECT_EQ(config.real_store_dir, "/nix/store");
  EXPECT_EQ(config.nix_state_dir, "/nix/var/nix");
  EXPECT_EQ(config.nix_daemon_socket, "/nix/var/nix/daemon-socket/socket");
  EXPECT_EQ(config.roots_directory, "/nix/var/nix/gcroots/arm-cache");
  ASSERT_THAT(config.targets, SizeIs(1));
  const TargetConfig& target = config.targets[0];
  EXPECT_EQ(target.name, "nix-cache");
  EXPECT_EQ(target.url, "file:///srv/nix-cache");
  EXPECT_EQ(target.kind, TargetKind::kDirectory);
  // Everything else is as the header has it.
  Config bare;
  bare.targets.resize(1);
  std::set<std::string> derived = {
      "state-dir",         "nix.store-dir",       "nix.real-store-dir",
      "nix.state-dir",     "roots.directory",     "target nix-cache.name",
      "nix.daemon-socket", "target nix-cache.url"};
  bare.targets[0].name = "nix-cache";
  Description expected(bare);
  const Description description(config);
  for (const auto& [key, value] : description.fields()) {
    if (derived.count(key) == 0) {
      EXPECT_EQ(value, expected.fields().at(key)) << key;
    }
  }
}

TEST(Config, NoTargetOnlyIfItIsSaid) {
  EXPECT_THAT(Good("target = []").targets, IsEmpty());
}

TEST(Config, NamesAndKindsComeFromUrls) {
  struct Row {
    const char* url;
    const char* name;
    TargetKind kind;
  };
  for (const Row& row : std::initializer_list<Row>{
           {"file:///srv/nix-cache/", "nix-cache", TargetKind::kDirectory},
           {"file:///srv/a+b", "a-b", TargetKind::kDirectory},
           {"http://cache.example.org", "cache.example.org", TargetKind::kHttp},
           {"https://cache:8080/a/b/", "cache", TargetKind::kHttp},
           {"http://[fd00::1%eth0]:80", "fd00--1-eth0", TargetKind::kHttp},
           {"ssh://host", "host", TargetKind::kSsh},
           {"ssh-ng://nix@host:2222/", "host", TargetKind::kSsh},
           {"local:http://127.0.0.1:5000", "127.0.0.1", TargetKind::kLocal},
           {"local:https://own", "own", TargetKind::kLocal},
           {"local:", "local", TargetKind::kLocal},
       }) {
    Config config = Good("[[target]]\nurl = \"" + std::string(row.url) + "\"");
    ASSERT_THAT(config.targets, SizeIs(1)) << row.url;
    EXPECT_EQ(config.targets[0].name, row.name);
    EXPECT_EQ(config.targets[0].url, row.url);
    EXPECT_EQ(config.targets[0].kind, row.kind) << row.url;
  }
}

TEST(Config, LongHostsMakeShortNames) {
  std::string host(100, 'h');
  EXPECT_EQ(Good("[[target]]\nurl = \"http://" + host + "\"").targets[0].name,
            host.substr(0, 64));
}

TEST(Config, SshHasMorePatience) {
  Config config = Good("[[target]]\nurl = \"ssh://host\"");
  EXPECT_EQ(config.targets[0].connect_limit, absl::Seconds(20));
  EXPECT_EQ(config.targets[0].stall_limit, absl::Minutes(5));
  config = Good("[[target]]\nstall-limit = \"9s\"\nurl = \"ssh://host\"");
  EXPECT_EQ(config.targets[0].stall_limit, absl::Seconds(9));
}

TEST(Config, EveryKeyDoesSomething) {
  Config config = Good(ReadSource("tests/queued/config_full.toml"));
  ASSERT_THAT(config.targets, SizeIs(3));
  Config bare = Good(R"(
[[target]]
url = "file:///srv/nix-cache"
[[target]]
url = "https://cache"
[[target]]
url = "ssh://host"
)");
  for (size_t i = 0; i < 3; ++i) bare.targets[i].name = config.targets[i].name;
  Description expected(bare);
  std::set<std::string> changed;
  const Description description(config);
  for (const auto& [key, value] : description.fields()) {
    if (value == expected.fields().at(key)) continue;
    changed.insert(
        std::regex_replace(key, std::regex("^target [a-z]+\\."), "target."));
  }
  std::vector<std::string> keys = ConfigKeys();
  std::set<std::string> all(keys.begin(), keys.end());
  all.erase("target.name");  // is in the test's own labels
  EXPECT_EQ(changed, all);
  EXPECT_THAT(config.signing_key_files, ElementsAre("/keys/a", "/keys/b"));
  EXPECT_EQ(config.log_level, LogLevel::kDebug);
  EXPECT_EQ(config.roots_max_age, absl::Hours(24 * 90));
  EXPECT_EQ(config.retry_min_delay, absl::Milliseconds(500));
  EXPECT_EQ(config.prune_interval, absl::Hours(12));
  EXPECT_EQ(config.targets[0].compression.method, Compression::kXz);
  EXPECT_EQ(config.targets[0].compression.level, 9);
  EXPECT_EQ(config.targets[0].max_nar_size_bytes, 2ull << 30);
  EXPECT_EQ(config.targets[2].batch_bytes, 1234567u);
}

TEST(Config, CredentialsAreExpandedWhereTheyAre) {
  const std::string text =
      "signing.key-files = [\"$CREDENTIALS_DIRECTORY/key\"]\n"
      "[[target]]\nurl = \"https://c\"\n"
      "netrc-file = \"$CREDENTIALS_DIRECTORY/netrc\"\n";
  Surroundings surroundings = Root();
  // Without systemd, for instance in queuectl, the name stays as it is.
  EXPECT_EQ(Good(text, surroundings).targets[0].netrc_file,
            "$CREDENTIALS_DIRECTORY/netrc");
  surroundings.variables["CREDENTIALS_DIRECTORY"] = "/run/credentials/x";
  Config config = Good(text, surroundings);
  EXPECT_EQ(config.targets[0].netrc_file, "/run/credentials/x/netrc");
  EXPECT_THAT(config.signing_key_files, ElementsAre("/run/credentials/x/key"));
}

// --- Where things are ------------------------------------------------------

TEST(Config, StateDirectory) {
  const std::string with_key =
      std::string("state-dir = \"/key/\"\n") + kOneTarget;
  Surroundings user = User();
  EXPECT_EQ(Good(kOneTarget, user).state_dir,
            "/home/ann/.local/state/nix-queued");
  EXPECT_EQ(Good(with_key, user).state_dir, "/key");
  user.variables["XDG_STATE_HOME"] = "/xdg";
  EXPECT_EQ(Good(kOneTarget, user).state_dir, "/xdg/nix-queued");
  user.variables["XDG_STATE_HOME"] = "relative";
  EXPECT_EQ(Good(kOneTarget, user).state_dir,
            "/home/ann/.local/state/nix-queued");
  user.variables["NIX_QUEUED_STATE_DIR"] = "/variable";
  EXPECT_EQ(Good(with_key, user).state_dir, "/variable");
  EXPECT_EQ(DefaultStateDir(user), "/variable");
  EXPECT_EQ(DefaultStateDir(Root()), "/var/lib/nix-queued");
  EXPECT_EQ(ParseConfig(kOneTarget, "/etc/nix-queued/queued.toml", User())
                .config.state_dir,
            "/var/lib/nix-queued");
}

TEST(Config, NixFollowsKeysThenEnvironment) {
  Surroundings surroundings = Root();
  surroundings.variables = {{"NIX_STORE_DIR", "/e/store"},
                            {"NIX_STATE_DIR", "/e/state"}};
  Config config = Good(kOneTarget, surroundings);
  EXPECT_EQ(config.store_dir, "/e/store");
  EXPECT_EQ(config.real_store_dir, "/e/store");
  EXPECT_EQ(config.nix_daemon_socket, "/e/state/daemon-socket/socket");
  EXPECT_EQ(config.roots_directory, "/e/state/gcroots/arm-cache");
  surroundings.variables["NIX_DAEMON_SOCKET_PATH"] = "/e/socket";
  surroundings.variables["NIX_QUEUED_ROOTS_DIR"] = "/e/roots";
  config = Good(std::string("nix.store-dir = \"/k/store\"\n"
                            "nix.state-dir = \"/k/state\"\n"
                            "roots.directory = \"/k/roots\"\n") +
                    kOneTarget,
                surroundings);
  EXPECT_EQ(config.store_dir, "/k/store");
  EXPECT_EQ(config.nix_state_dir, "/k/state");
  EXPECT_EQ(config.nix_daemon_socket, "/e/socket");
  EXPECT_EQ(config.roots_directory, "/e/roots");
}

TEST(Config, ProxiesComeFromTheEnvironment) {
  Surroundings surroundings = Root();
  surroundings.variables = {{"http_proxy", "http://p:1"},
                            {"HTTPS_PROXY", "http://p:2"},
                            {"no_proxy", "localhost"}};
  Config config = Good(kOneTarget, surroundings);
  EXPECT_EQ(config.http_proxy, "http://p:1");
  EXPECT_EQ(config.https_proxy, "http://p:2");
  EXPECT_EQ(config.no_proxy, "localhost");
  // A client of a CGI program could set this one.
  surroundings.variables = {{"HTTP_PROXY", "http://evil"}};
  EXPECT_EQ(Good(kOneTarget, surroundings).http_proxy, "");
  surroundings.variables = {{"all_proxy", "socks5://p"}};
  config = Good(kOneTarget, surroundings);
  EXPECT_EQ(config.http_proxy, "socks5://p");
  EXPECT_EQ(config.https_proxy, "socks5://p");
}

TEST(Config, SurroundingsAreThoseOfTheProcess) {
  Surroundings surroundings = SurroundingsOfProcess();
  EXPECT_EQ(surroundings.is_root, geteuid() == 0);
  EXPECT_THAT(surroundings.home, StartsWith("/"));
  const char* path = getenv("PATH");
  ASSERT_NE(path, nullptr);
  EXPECT_EQ(surroundings.variables["PATH"], path);
}

TEST(Config, LoadsFiles) {
  std::string pattern = testing::TempDir() + "config-XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::string file = pattern + "/nix-queued/queued.toml";
  Surroundings user = User();
  user.variables["XDG_CONFIG_HOME"] = pattern;
  EXPECT_EQ(LoadConfig(file, user).status().code(),
            absl::StatusCode::kNotFound);
  std::filesystem::create_directory(pattern + "/nix-queued");
  std::ofstream(file) << "x = 1\n[[target]]\n";
  EXPECT_EQ(DefaultConfigFile(user), file);
  absl::Status status = LoadConfig(file, user).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()),
            file +
                ":1:1: unknown key 'x'; queued.toml(5) lists what there "
                "is\n" +
                file + ":2:1: this target has no 'url'");
  std::ofstream(file) << kOneTarget;
  absl::StatusOr<Config> config = LoadConfig(file, user);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->targets[0].url, "file:///srv/nix-cache");
  std::filesystem::remove_all(pattern);

  EXPECT_EQ(DefaultConfigFile(Root()), "/etc/nix-queued/queued.toml");
  user.variables["NIX_QUEUED_CONFIG"] = "/elsewhere.toml";
  EXPECT_EQ(DefaultConfigFile(user), "/elsewhere.toml");
}

// --- What people read ------------------------------------------------------

TEST(ConfigDocs, ManualPageHasEveryKeyAndNoOther) {
  std::string table;
  std::vector<std::string> documented;
  for (const std::string& line :
       Split(ReadSource("queued/queued.toml.5"), '\n')) {
    std::smatch match;
    if (std::regex_match(line, match, std::regex("\\.S[hs] (.*)"))) {
      std::string title = match[1];
      table = std::regex_match(title, match, std::regex("\\[+([a-z]+)\\]+"))
                  ? match[1].str() + "."
                  : "";
    } else if (std::regex_match(line, match, std::regex("\\.It Ic (.+)"))) {
      documented.push_back(table + match[1].str());
    }
  }
  EXPECT_THAT(documented, testing::UnorderedElementsAreArray(ConfigKeys()));
}

TEST(ConfigDocs, MinimalExampleIsGood) {
  EXPECT_THAT(Good(ReadSource("examples/minimal.toml")).targets, SizeIs(1));
}

TEST(ConfigDocs, ExampleShowsEveryKeyWithItsDefault) {
  const std::string text = ReadSource("examples/queued.toml");
  Config as_written = Good(text);
  EXPECT_THAT(as_written.targets, SizeIs(1));
  // What follows a paragraph that begins with "# Example" has no default.
  std::set<std::string> examples;
  std::set<std::string> shown;
  std::string uncommented;
  std::string table;
  bool example = false;
  for (std::string line : Split(text, '\n')) {
    if (line.empty()) example = false;
    if (line.starts_with("# Example")) example = true;
    if (line.size() > 1 && line[0] == '#' && line[1] != ' ') line.erase(0, 1);
    std::smatch match;
    if (std::regex_match(line, match, std::regex("\\[+([a-z]+)\\]+"))) {
      table = match[1].str() + ".";
      example = false;
    } else if (std::regex_match(line, match, std::regex("([a-z-]+) = .*"))) {
      shown.insert(table + match[1].str());
      if (example) examples.insert(table + match[1].str());
    }
    uncommented += line + "\n";
  }
  std::vector<std::string> keys = ConfigKeys();
  EXPECT_EQ(shown, std::set<std::string>(keys.begin(), keys.end()));
  Config whole = Good(uncommented);
  ASSERT_THAT(whole.targets, SizeIs(4));
  Config bare = Good(kOneTarget);
  for (size_t i = 1; i < 4; ++i) {
    Config one = Good("[[target]]\nurl = \"" + whole.targets[i].url + "\"");
    bare.targets.push_back(one.targets[0]);
    bare.targets[i].name = whole.targets[i].name;
  }
  Description defaults(bare);
  const Description description(whole);
  for (const auto& [key, value] : description.fields()) {
    std::string plain =
        std::regex_replace(key, std::regex("^target [^.]+\\."), "target.");
    if (examples.count(plain) == 0) {
      EXPECT_EQ(value, defaults.fields().at(key)) << key;
    }
  }
}

}  // namespace
}  // namespace nixq
