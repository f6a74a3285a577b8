// The daemon's configuration: /etc/nix-queued/queued.toml as structs.
//
// queued.toml(5) describes every key; this header is what the program gets.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/log.h"
#include "storage/cache/compress.h"
#include "storage/nix/store_path.h"

namespace nixq {

enum class TargetKind { kDirectory, kHttp, kSsh, kLocal };

struct TargetConfig {
  std::string name;  // default: made from the URL's host or last component
  std::string url;   // file://, http(s)://, ssh://, ssh-ng://, local:http...
  TargetKind kind = TargetKind::kDirectory;
  CompressionSettings compression;
  bool closure = true;
  int priority = 40;
  bool want_mass_query = true;

  // Filters on a path's name (without hash part), size and system.
  std::vector<std::string> include = {"*"};
  std::vector<std::string> exclude;
  std::optional<uint64_t> max_nar_size_bytes;
  std::vector<std::string> systems;  // empty: all

  // References (never what was enqueued itself) that need not be sent:
  // signed by one of these key names, or shown by one of these caches.
  std::vector<std::string> skip_signed_by;
  std::vector<std::string> upstreams;  // URLs

  // HTTP
  // Here and below: files as named, with $CREDENTIALS_DIRECTORY expanded
  // where that is set; not looked at.
  std::string netrc_file;
  std::string bearer_token_file;
  std::string client_certificate_file;
  std::string client_key_file;
  std::string ca_file;
  absl::Duration connect_limit = absl::Seconds(15);  // ssh: 20 s
  absl::Duration stall_limit = absl::Seconds(60);    // ssh: 5 min
  int max_connections = 16;

  // SSH
  std::string ssh_key_file;
  std::string ssh_known_hosts_file;
  std::vector<std::string> ssh_options;
  std::string ssh_remote_program;
  std::string ssh_remote_store;
  bool substitute_on_destination = false;
  bool pin_remote = false;
  std::string remote_roots_directory = "/nix/var/nix/gcroots/arm-cache";
  int batch_paths = 500;
  uint64_t batch_bytes = 4ull << 30;  // of NARs

  bool operator==(const TargetConfig&) const = default;
};

struct Config {
  std::string file;          // where it came from, for messages
  std::string state_dir;     // queue.db, spool/, wake.sock, status.sock
  std::string reader_group;  // may read the queue; "" the state directory's

  // Nix
  std::string store_dir;       // /nix/store
  std::string real_store_dir;  // where its files are; default store_dir
  std::string nix_state_dir;   // /nix/var/nix
  std::string nix_daemon_socket;
  std::string nix_bin_dir;          // "" the PATH's
  bool outputs_named_only = false;  // upload only what Nix put in OUT_PATHS

  // None only if the file says `target = []`: just roots are kept then.
  std::vector<TargetConfig> targets;

  std::vector<std::string> signing_key_files;

  bool roots_enabled = true;
  std::string roots_directory;             // <nix state dir>/gcroots/arm-cache
  std::vector<std::string> roots_systems;  // whose roots stay; empty: all
  absl::Duration roots_max_age = absl::Hours(24 * 30);
  bool roots_adopt = true;  // enqueue roots that the queue has never heard of

  bool prune_enabled = true;  // the daemon's own timer
  absl::Duration prune_interval = absl::Hours(24);

  absl::Duration retry_min_delay = absl::Seconds(1);
  absl::Duration retry_max_delay = absl::Hours(1);
  int retry_max_attempts = 10;  // of errors that are not known to pass

  int uploads = 16;      // at once, all targets together
  int compressions = 0;  // large NARs at once; 0: one for each core

  absl::Duration history_keep = absl::Hours(24 * 30);

  LogLevel log_level = LogLevel::kInfo;

  // From the environment, for HTTP and children: never from the file.
  std::string http_proxy;
  std::string https_proxy;
  std::string no_proxy;

  bool operator==(const Config&) const = default;
};

// What defaults depend on: variables by name, whether we are root, and the
// home directory. The mains fill it from the process; tests from a table.
struct Surroundings {
  std::map<std::string, std::string> variables;
  bool is_root = false;
  std::string home;

  // Empty without the variable, too.
  std::string Variable(std::string_view name) const;
};
Surroundings SurroundingsOfProcess();

// "<file>:<line>:<column>: what is wrong; what was meant".
struct ConfigProblem {
  std::string text;
};

struct ParsedConfig {
  Config config;
  std::vector<ConfigProblem> problems;  // empty: the configuration is good
};

inline constexpr char kSystemConfigFile[] = "/etc/nix-queued/queued.toml";

// $NIX_QUEUED_CONFIG, else for root /etc/nix-queued/queued.toml, else
// $XDG_CONFIG_HOME/nix-queued/queued.toml (default ~/.config), or the one in
// /etc if only that is there.
std::string DefaultConfigFile(const Surroundings& surroundings);
// $NIX_QUEUED_STATE_DIR, else /var/lib/nix-queued for root, else
// $XDG_STATE_HOME/nix-queued (default ~/.local/state): the hook's rule. The
// key `state-dir` stands between the first and the second for the daemon and
// queuectl; and to whoever reads the system's /etc/nix-queued/queued.toml the
// default is /var/lib/nix-queued, as it is to root.
std::string DefaultStateDir(const Surroundings& surroundings);

// Understands the text of a configuration file. Every problem is reported,
// not only the first. Does not look at the files that it names.
ParsedConfig ParseConfig(std::string_view text, const std::string& file,
                         const Surroundings& surroundings);
// Reads and parses; all problems in one INVALID_ARGUMENT, one a line.
// NOT_FOUND without the file.
absl::StatusOr<Config> LoadConfig(const std::string& file,
                                  const Surroundings& surroundings);

}  // namespace nixq
