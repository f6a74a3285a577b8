#include <algorithm>
#include <set>

#include "absl/strings/str_format.h"
#include "queued/config_keys.h"
#include "queued/config_url.h"
#include "storage/base/text.h"
#include "storage/cache/ssh_cache.h"

namespace nixq {
namespace {

using Value = ConfigValue;

constexpr size_t kMostTargets = 100;
constexpr absl::Duration kShortest = absl::Milliseconds(1);
constexpr absl::Duration kLongest = absl::Hours(24);

// The kinds of target for which a key means something.
constexpr unsigned kFile = 1;
constexpr unsigned kHttp = 2;
constexpr unsigned kSsh = 4;
constexpr unsigned kLocal = 8;
constexpr unsigned kStored = kFile | kHttp;  // we write narinfos there
constexpr unsigned kAsked = kHttp | kLocal;  // we speak HTTP there
constexpr unsigned kAll = kFile | kHttp | kSsh | kLocal;

unsigned Bit(TargetKind kind) {
  switch (kind) {
    case TargetKind::kDirectory:
      return kFile;
    case TargetKind::kHttp:
      return kHttp;
    case TargetKind::kSsh:
      return kSsh;
    case TargetKind::kLocal:
      return kLocal;
  }
  return kAll;
}

// `kinds` is not empty.
std::string KindsText(unsigned kinds) {
  std::vector<std::string> names;
  if ((kinds & kFile) != 0) names.emplace_back("file://");
  if ((kinds & kHttp) != 0) names.emplace_back("http(s)://");
  if ((kinds & kSsh) != 0) names.emplace_back("ssh://");
  if ((kinds & kLocal) != 0) names.emplace_back("local:");
  std::string last = std::move(names.back());
  names.pop_back();
  return names.empty() ? last : Join(names, ", ") + " and " + last;
}

bool IsWordCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool IsLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

absl::Status CheckName(std::string_view text) {
  if (text.size() > 64 ||
      !std::all_of(text.begin(), text.end(), IsWordCharacter)) {
    return absl::InvalidArgumentError(
        "must have 1 to 64 of the characters A-Z a-z 0-9 . _ -");
  }
  return absl::OkStatus();
}

absl::Status CheckKeyName(std::string_view text) {
  size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "must be names of keys, without ':' and what follows: \"%s\"",
        Printable(text.substr(0, colon), 80)));
  }
  return absl::OkStatus();
}

absl::Status CheckWord(std::string_view text) {
  if (text.find(' ') != std::string_view::npos || text.starts_with("-")) {
    return absl::InvalidArgumentError(
        "must not contain spaces nor start with '-'");
  }
  return absl::OkStatus();
}

// One of ssh's -o options, as Nix can hand it on: it splits at white space.
absl::Status CheckSshOption(std::string_view text) {
  size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 ||
      text.find(' ') != std::string_view::npos ||
      !std::all_of(text.begin(), text.begin() + static_cast<ptrdiff_t>(equals),
                   IsLetter)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "must be options such as \"ServerAliveInterval=15\", without spaces, "
        "not \"%s\"",
        Printable(text, 80)));
  }
  std::string name(text.substr(0, equals));
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  if (name == "stricthostkeychecking") {
    return absl::InvalidArgumentError(
        "must leave StrictHostKeyChecking alone: host keys are always "
        "checked, against ssh-known-hosts-file");
  }
  if (name == "userknownhostsfile" || name == "identityfile") {
    return absl::InvalidArgumentError(absl::StrFormat(
        "must leave %s to the key %s", std::string(text.substr(0, equals)),
        name == "identityfile" ? "ssh-key-file" : "ssh-known-hosts-file"));
  }
  return absl::OkStatus();
}

struct TargetKey {
  ConfigKey<TargetConfig> key;
  unsigned kinds;
};

constexpr TargetKey kTargetKeys[] = {
    {{"name", [](const Value& v,
                 TargetConfig& t) { Assign(t.name, v.Text(CheckName)); }},
     kAll},
    // Read before all others, because the kind comes from it.
    {{"url", [](const Value&, TargetConfig&) {}}, kAll},
    {{"compression",
      [](const Value& v, TargetConfig& t) {
        constexpr Compression kMethods[] = {
            Compression::kZstd, Compression::kXz, Compression::kNone};
        if (auto i = v.Choice({"zstd", "xz", "none"})) {
          t.compression.method = kMethods[*i];
        }
      }},
     kStored},
    {{"compression-level",
      [](const Value& v, TargetConfig& t) {
        Assign(t.compression.level, v.Integer(0, 19));
      }},
     kStored},
    {{"closure",
      [](const Value& v, TargetConfig& t) { Assign(t.closure, v.Boolean()); }},
     kStored | kSsh},
    {{"priority",
      [](const Value& v, TargetConfig& t) {
        Assign(t.priority, v.Integer(0, 1000));
      }},
     kStored},
    {{"want-mass-query",
      [](const Value& v, TargetConfig& t) {
        Assign(t.want_mass_query, v.Boolean());
      }},
     kStored},
    {{"include",
      [](const Value& v, TargetConfig& t) {
        Assign(t.include, v.Texts());
        if (v.node().kind == ConfigNode::Kind::kArray &&
            v.node().items.empty()) {
          v.Problem("must not be empty: nothing would be sent");
        }
      }},
     kAll},
    {{"exclude",
      [](const Value& v, TargetConfig& t) { Assign(t.exclude, v.Texts()); }},
     kAll},
    {{"max-nar-size",
      [](const Value& v, TargetConfig& t) {
        Assign(t.max_nar_size_bytes, v.Size());
      }},
     kAll},
    {{"systems",
      [](const Value& v, TargetConfig& t) {
        Assign(t.systems, v.Texts(CheckSystem));
      }},
     kAll},
    {{"skip-signed-by",
      [](const Value& v, TargetConfig& t) {
        Assign(t.skip_signed_by, v.Texts(CheckKeyName));
      }},
     kStored},
    {{"upstreams",
      [](const Value& v, TargetConfig& t) {
        Assign(t.upstreams, v.Texts(CheckUpstreamUrl));
      }},
     kStored},
    {{"netrc-file",
      [](const Value& v, TargetConfig& t) { Assign(t.netrc_file, v.File()); }},
     kAsked},
    {{"bearer-token-file",
      [](const Value& v, TargetConfig& t) {
        Assign(t.bearer_token_file, v.File());
      }},
     kAsked},
    {{"client-certificate-file",
      [](const Value& v, TargetConfig& t) {
        Assign(t.client_certificate_file, v.File());
      }},
     kAsked},
    {{"client-key-file",
      [](const Value& v, TargetConfig& t) {
        Assign(t.client_key_file, v.File());
      }},
     kAsked},
    {{"ca-file",
      [](const Value& v, TargetConfig& t) { Assign(t.ca_file, v.File()); }},
     kAsked},
    {{"connect-limit",
      [](const Value& v, TargetConfig& t) {
        Assign(t.connect_limit, v.Duration(kShortest, kLongest));
      }},
     kAsked | kSsh},
    {{"stall-limit",
      [](const Value& v, TargetConfig& t) {
        Assign(t.stall_limit, v.Duration(kShortest, kLongest));
      }},
     kAsked | kSsh},
    {{"max-connections",
      [](const Value& v, TargetConfig& t) {
        Assign(t.max_connections, v.Integer(1, 256));
      }},
     kAsked},
    {{"ssh-key-file",
      [](const Value& v, TargetConfig& t) {
        Assign(t.ssh_key_file, v.File());
      }},
     kSsh},
    {{"ssh-known-hosts-file",
      [](const Value& v, TargetConfig& t) {
        Assign(t.ssh_known_hosts_file, v.File());
      }},
     kSsh},
    {{"ssh-options",
      [](const Value& v, TargetConfig& t) {
        Assign(t.ssh_options, v.Texts(CheckSshOption));
      }},
     kSsh},
    {{"ssh-remote-program",
      [](const Value& v, TargetConfig& t) {
        Assign(t.ssh_remote_program, v.Text(CheckWord));
      }},
     kSsh},
    {{"ssh-remote-store",
      [](const Value& v, TargetConfig& t) {
        Assign(t.ssh_remote_store, v.Text(CheckWord));
      }},
     kSsh},
    {{"substitute-on-destination",
      [](const Value& v, TargetConfig& t) {
        Assign(t.substitute_on_destination, v.Boolean());
      }},
     kSsh},
    {{"pin-remote", [](const Value& v,
                       TargetConfig& t) { Assign(t.pin_remote, v.Boolean()); }},
     kSsh},
    {{"remote-roots-directory",
      [](const Value& v, TargetConfig& t) {
        Assign(t.remote_roots_directory, v.Directory());
      }},
     kSsh},
    {{"batch-paths",
      [](const Value& v, TargetConfig& t) {
        Assign(t.batch_paths, v.Integer(1, 10000));
      }},
     kSsh},
    {{"batch-size",
      [](const Value& v, TargetConfig& t) { Assign(t.batch_bytes, v.Size()); }},
     kSsh},
};

// What ssh, Nix and the other machine's shell would not all take alone, as the
// target would find out when it is used. One key at a time, to say which.
void CheckSsh(const ConfigNode& table, const TargetConfig& target,
              const ConfigScope& scope) {
  absl::StatusOr<StoreDir> store_dir = StoreDir::Parse("/nix/store");
  if (!store_dir.ok()) return;
  auto check = [&](std::string_view key, auto&& set) {
    const ConfigEntry* entry = table.Find(key);
    if (entry == nullptr) return;
    SshOptions options{.store_dir = *store_dir, .url = "ssh://host"};
    set(options);
    if (absl::Status status = SshCache::Make(options).status(); !status.ok()) {
      ConfigValue(*entry, scope)
          .Problem("is not for ssh: " + std::string(status.message()));
    }
  };
  // Names below $CREDENTIALS_DIRECTORY may not be known yet.
  auto file = [](const std::string& name) {
    return name.starts_with("/") ? name : "";
  };
  check("url", [&](SshOptions& o) { o.url = target.url; });
  check("ssh-key-file",
        [&](SshOptions& o) { o.key_file = file(target.ssh_key_file); });
  check("ssh-known-hosts-file", [&](SshOptions& o) {
    o.known_hosts_file = file(target.ssh_known_hosts_file);
  });
  check("ssh-options",
        [&](SshOptions& o) { o.ssh_options = target.ssh_options; });
  check("ssh-remote-program",
        [&](SshOptions& o) { o.remote_program = target.ssh_remote_program; });
  check("ssh-remote-store",
        [&](SshOptions& o) { o.remote_store = target.ssh_remote_store; });
  check("remote-roots-directory", [&](SshOptions& o) {
    o.remote_roots_directory = target.remote_roots_directory;
  });
}

// What is wrong between keys that are each right.
void CheckTogether(const ConfigNode& table, const TargetConfig& target,
                   const ConfigScope& scope) {
  const ConfigEntry* level = table.Find("compression-level");
  if (level != nullptr && target.compression.level) {
    ConfigValue value(*level, scope);
    switch (target.compression.method) {
      case Compression::kZstd:
        value.Integer(1, 19);
        break;
      case Compression::kXz:
        value.Integer(0, 9);
        break;
      case Compression::kNone:
        value.Problem("means nothing with compression = \"none\"");
        break;
    }
  }
  const ConfigEntry* key = table.Find("client-key-file");
  if (key != nullptr && table.Find("client-certificate-file") == nullptr) {
    ConfigValue(*key, scope).Problem("needs 'client-certificate-file'");
  }
  const ConfigEntry* roots = table.Find("remote-roots-directory");
  if (roots != nullptr && !target.pin_remote) {
    ConfigValue(*roots, scope).Problem("needs 'pin-remote = true'");
  }
}

// True: the target's kind is known.
bool ReadUrl(const ConfigNode& table, const ConfigScope& scope,
             TargetConfig& target) {
  const ConfigEntry* entry = table.Find("url");
  if (entry == nullptr) {
    scope.problems.Add(table.position, "this target has no 'url'");
    return false;
  }
  ConfigValue value(*entry, scope);
  std::optional<std::string> text = value.Text();
  if (!text) return false;
  absl::StatusOr<TargetUrl> url = ParseTargetUrl(*text);
  if (!url.ok()) {
    value.Problem(std::string(url.status().message()));
    return false;
  }
  target.url = *text;
  target.kind = url->kind;
  target.name = url->name;
  if (target.kind == TargetKind::kSsh) {
    // A copy says nothing while it compresses and while the other side
    // registers what it has got.
    target.connect_limit = absl::Seconds(20);
    target.stall_limit = absl::Minutes(5);
  }
  return true;
}

TargetConfig ReadTarget(const ConfigNode& table, const ConfigScope& scope) {
  TargetConfig target;
  bool kind_known = ReadUrl(table, scope, target);
  for (const ConfigEntry& entry : table.entries) {
    const TargetKey* found = nullptr;
    for (const TargetKey& candidate : kTargetKeys) {
      if (candidate.key.name == entry.key) found = &candidate;
    }
    if (found == nullptr) {
      ReportUnknownKey(entry, "target", TargetKeyNames(), scope);
    } else if (kind_known && (found->kinds & Bit(target.kind)) == 0) {
      scope.problems.Add(
          entry.position,
          absl::StrFormat("'%s' means nothing for %s targets, only for %s",
                          entry.key, KindsText(Bit(target.kind)),
                          KindsText(found->kinds)));
    } else {
      found->key.read(ConfigValue(entry, scope), target);
    }
  }
  if (kind_known) CheckTogether(table, target, scope);
  if (target.kind == TargetKind::kSsh) CheckSsh(table, target, scope);
  return target;
}

void CheckNames(const ConfigNode& tables,
                const std::vector<TargetConfig>& targets,
                const ConfigScope& scope) {
  std::set<std::string> names;
  for (size_t i = 0; i < targets.size(); ++i) {
    const std::string& name = targets[i].name;
    if (name.empty() || names.insert(name).second) continue;
    const ConfigEntry* key = tables.items[i].Find("name");
    scope.problems.Add(
        key != nullptr ? key->value.position : tables.items[i].position,
        absl::StrFormat("there is already a target of the name '%s'%s", name,
                        key != nullptr ? "" : "; give this one a 'name'"));
  }
}

}  // namespace

std::vector<std::string_view> TargetKeyNames() {
  std::vector<std::string_view> names;
  for (const TargetKey& key : kTargetKeys) names.push_back(key.key.name);
  return names;
}

void ReadTargets(const ConfigNode& root, const ConfigScope& scope,
                 Config& config) {
  const ConfigEntry* entry = root.Find("target");
  if (entry == nullptr) {
    scope.problems.Add(
        {},
        "there is no [[target]]; write one with its url (or target = [] "
        "on a machine that only keeps roots)");
    return;
  }
  const ConfigNode& tables = entry->value;
  bool all_tables = tables.kind == ConfigNode::Kind::kArray &&
                    std::all_of(tables.items.begin(), tables.items.end(),
                                [](const ConfigNode& item) {
                                  return item.kind == ConfigNode::Kind::kTable;
                                });
  if (!all_tables) {
    scope.problems.Add(entry->position,
                       "targets are written [[target]], with two brackets: "
                       "there can be several");
    return;
  }
  if (tables.items.size() > kMostTargets) {
    scope.problems.Add(entry->position,
                       absl::StrFormat("there are %d targets, more than %d",
                                       tables.items.size(), kMostTargets));
    return;
  }
  for (const ConfigNode& table : tables.items) {
    config.targets.push_back(ReadTarget(table, scope));
  }
  CheckNames(tables, config.targets, scope);
}

}  // namespace nixq
