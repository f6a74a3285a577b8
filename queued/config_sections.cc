#include <sys/socket.h>
#include <sys/un.h>

#include <array>

#include "absl/strings/str_format.h"
#include "queued/config_keys.h"
#include "storage/base/text.h"
#include "storage/nix/store_path.h"

namespace nixq {
namespace {

using Value = ConfigValue;

constexpr absl::Duration kMoment = absl::Milliseconds(1);
constexpr absl::Duration kCentury = absl::Hours(24 * 36500);

absl::Status CheckGroup(std::string_view text) {
  for (char c : text) {
    bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
    if (!good) return absl::InvalidArgumentError("must be a group's name");
  }
  return absl::OkStatus();
}

// With the longest name of a socket in it the directory has to fit into an
// address.
constexpr size_t kMaxSocketBytes = sizeof(sockaddr_un{}.sun_path) - 1;
constexpr size_t kMaxStateDirBytes =
    kMaxSocketBytes - std::string_view("/status.sock").size();

void ReadShortPath(const Value& v, size_t most_bytes, std::string& into) {
  std::optional<std::string> path = v.Directory();
  if (path && path->size() > most_bytes) {
    v.Problem(absl::StrFormat(
        "must have at most %d bytes, to fit into a socket's address",
        most_bytes));
  }
  Assign(into, std::move(path));
}

absl::Status CheckStoreDir(std::string_view text) {
  absl::StatusOr<StoreDir> parsed = StoreDir::Parse(text);
  if (parsed.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("must be a store directory such as \"/nix/store\": %s",
                      std::string(parsed.status().message())));
}

constexpr ConfigKey<Config> kTopKeys[] = {
    {"state-dir",
     [](const Value& v, Config& c) {
       ReadShortPath(v, kMaxStateDirBytes, c.state_dir);
     }},
    {"reader-group",
     [](const Value& v, Config& c) {
       Assign(c.reader_group, v.Text(CheckGroup));
     }},
    {"outputs",
     [](const Value& v, Config& c) {
       Assign(c.outputs_named_only, v.Choice({"all", "named"}));
     }},
    {"log-level",
     [](const Value& v, Config& c) {
       constexpr std::array kLevels = {LogLevel::kDebug, LogLevel::kInfo,
                                       LogLevel::kWarning, LogLevel::kError};
       if (auto i = v.Choice({"debug", "info", "warning", "error"})) {
         c.log_level = kLevels[*i];
       }
     }},
};

constexpr ConfigKey<Config> kNixKeys[] = {
    {"store-dir",
     [](const Value& v, Config& c) {
       Assign(c.store_dir, v.Text(CheckStoreDir));
     }},
    {"real-store-dir",
     [](const Value& v, Config& c) {
       Assign(c.real_store_dir, v.Directory());
     }},
    {"state-dir",
     [](const Value& v, Config& c) { Assign(c.nix_state_dir, v.Directory()); }},
    {"daemon-socket",
     [](const Value& v, Config& c) {
       ReadShortPath(v, kMaxSocketBytes, c.nix_daemon_socket);
     }},
    {"bin-dir",
     [](const Value& v, Config& c) { Assign(c.nix_bin_dir, v.Directory()); }},
};

constexpr ConfigKey<Config> kSigningKeys[] = {
    {"key-files",
     [](const Value& v, Config& c) { Assign(c.signing_key_files, v.Files()); }},
};

constexpr ConfigKey<Config> kRootsKeys[] = {
    {"enable",
     [](const Value& v, Config& c) { Assign(c.roots_enabled, v.Boolean()); }},
    {"directory", [](const Value& v,
                     Config& c) { Assign(c.roots_directory, v.Directory()); }},
    {"systems",
     [](const Value& v, Config& c) {
       Assign(c.roots_systems, v.Texts(CheckSystem));
     }},
    {"max-age",
     [](const Value& v, Config& c) {
       Assign(c.roots_max_age, v.Duration(absl::Seconds(1), kCentury));
     }},
    {"adopt",
     [](const Value& v, Config& c) { Assign(c.roots_adopt, v.Boolean()); }},
};

constexpr ConfigKey<Config> kPruneKeys[] = {
    {"enable",
     [](const Value& v, Config& c) { Assign(c.prune_enabled, v.Boolean()); }},
    {"interval",
     [](const Value& v, Config& c) {
       Assign(c.prune_interval, v.Duration(absl::Seconds(1), kCentury));
     }},
};

constexpr ConfigKey<Config> kRetryKeys[] = {
    {"min-delay",
     [](const Value& v, Config& c) {
       Assign(c.retry_min_delay, v.Duration(kMoment, absl::Hours(24)));
     }},
    {"max-delay",
     [](const Value& v, Config& c) {
       Assign(c.retry_max_delay, v.Duration(kMoment, absl::Hours(24)));
     }},
    {"max-attempts",
     [](const Value& v, Config& c) {
       Assign(c.retry_max_attempts, v.Integer(1, 1'000'000));
     }},
};

constexpr ConfigKey<Config> kConcurrencyKeys[] = {
    {"uploads",
     [](const Value& v, Config& c) { Assign(c.uploads, v.Integer(1, 1024)); }},
    {"compressions",
     [](const Value& v, Config& c) {
       Assign(c.compressions, v.Integer(0, 1024));
     }},
};

constexpr ConfigKey<Config> kHistoryKeys[] = {
    {"keep",
     [](const Value& v, Config& c) {
       Assign(c.history_keep, v.Duration(absl::ZeroDuration(), kCentury));
     }},
};

struct KeyRange {
  const ConfigKey<Config>* first;
  const ConfigKey<Config>* last;
  const ConfigKey<Config>* begin() const { return first; }
  const ConfigKey<Config>* end() const { return last; }
};

template <size_t kKeys>
constexpr KeyRange Range(const ConfigKey<Config> (&keys)[kKeys]) {
  return {keys, keys + kKeys};
}

struct Section {
  std::string_view name;
  KeyRange keys;
};

constexpr Section kSections[] = {
    {"nix", Range(kNixKeys)},         {"signing", Range(kSigningKeys)},
    {"roots", Range(kRootsKeys)},     {"prune", Range(kPruneKeys)},
    {"retry", Range(kRetryKeys)},     {"concurrency", Range(kConcurrencyKeys)},
    {"history", Range(kHistoryKeys)},
};
constexpr std::string_view kTarget = "target";

std::vector<std::string_view> Names(KeyRange keys) {
  std::vector<std::string_view> names;
  for (const ConfigKey<Config>& key : keys) names.push_back(key.name);
  return names;
}

// False: the key is none of `keys`.
bool ReadEntry(const ConfigEntry& entry, KeyRange keys,
               const ConfigScope& scope, Config& config) {
  for (const ConfigKey<Config>& key : keys) {
    if (key.name != entry.key) continue;
    key.read(ConfigValue(entry, scope), config);
    return true;
  }
  return false;
}

void ReadSection(const ConfigEntry& entry, const Section& section,
                 const ConfigScope& scope, Config& config) {
  if (entry.value.kind != ConfigNode::Kind::kTable) {
    scope.problems.Add(
        entry.position,
        absl::StrFormat("'%s' must be a table, [%s], not %s", entry.key,
                        entry.key, std::string(KindName(entry.value))));
    return;
  }
  for (const ConfigEntry& inner : entry.value.entries) {
    if (!ReadEntry(inner, section.keys, scope, config)) {
      ReportUnknownKey(inner, section.name, Names(section.keys), scope);
    }
  }
}

// Where else a key of this name is, as "[nix] or [[target]]"; "" nowhere.
std::string TablesWith(std::string_view key, std::string_view except) {
  std::vector<std::string> tables;
  for (const Section& section : kSections) {
    for (std::string_view name : Names(section.keys)) {
      if (name == key && section.name != except) {
        tables.push_back("[" + std::string(section.name) + "]");
      }
    }
  }
  for (std::string_view name : TargetKeyNames()) {
    if (name == key && except != kTarget) tables.push_back("[[target]]");
  }
  for (std::string_view name : Names(Range(kTopKeys))) {
    if (name == key && !except.empty()) {
      tables.push_back("the top of the file, before any [table]");
    }
  }
  return Join(tables, " or ");
}

}  // namespace

absl::Status CheckSystem(std::string_view text) {
  for (char c : text) {
    bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
    if (!good) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "must be systems such as \"x86_64-linux\", not \"%s\"",
          Printable(text, 80)));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> ConfigKeys() {
  std::vector<std::string> keys;
  for (std::string_view name : Names(Range(kTopKeys))) keys.emplace_back(name);
  for (const Section& section : kSections) {
    for (std::string_view name : Names(section.keys)) {
      keys.push_back(std::string(section.name) + "." + std::string(name));
    }
  }
  for (std::string_view name : TargetKeyNames()) {
    keys.push_back("target." + std::string(name));
  }
  return keys;
}

void ReportUnknownKey(const ConfigEntry& entry, std::string_view table,
                      const std::vector<std::string_view>& known,
                      const ConfigScope& scope) {
  bool is_table = entry.value.kind == ConfigNode::Kind::kTable;
  std::string problem = absl::StrFormat(
      "unknown %s '%s'", is_table ? "table" : "key", Printable(entry.key, 80));
  std::string elsewhere = TablesWith(entry.key, table);
  if (!elsewhere.empty()) {
    problem += "; it belongs in " + elsewhere;
  } else if (auto meant = Closest(entry.key, known)) {
    problem += "; did you mean '" + std::string(*meant) + "'?";
  } else {
    problem += "; queued.toml(5) lists what there is";
  }
  scope.problems.Add(entry.position, problem);
}

void ReadSections(const ConfigNode& root, const ConfigScope& scope,
                  Config& config) {
  std::vector<std::string_view> known = Names(Range(kTopKeys));
  known.push_back(kTarget);
  for (const Section& section : kSections) known.push_back(section.name);
  for (const ConfigEntry& entry : root.entries) {
    if (entry.key == kTarget) continue;
    if (ReadEntry(entry, Range(kTopKeys), scope, config)) continue;
    bool found = false;
    for (const Section& section : kSections) {
      if (section.name != entry.key) continue;
      ReadSection(entry, section, scope, config);
      found = true;
    }
    if (!found) ReportUnknownKey(entry, "", known, scope);
  }
  if (config.retry_min_delay > config.retry_max_delay) {
    // At least one of both is in the file: the defaults agree.
    const ConfigEntry* retry = root.Find("retry");
    const ConfigEntry* key = retry->value.Find("min-delay");
    if (key == nullptr) key = retry->value.Find("max-delay");
    scope.problems.Add(
        key->value.position,
        absl::StrFormat("'min-delay' (%s) must not be more than 'max-delay' "
                        "(%s)",
                        DurationText(config.retry_min_delay),
                        DurationText(config.retry_max_delay)));
  }
}

}  // namespace nixq
