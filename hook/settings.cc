#include "hook/settings.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

// The work is done in "/", so that a relative directory would mean another
// place than the one who set it had in mind.
absl::StatusOr<std::string> Directory(const char* variable,
                                      std::string_view value) {
  if (!value.starts_with('/')) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s is not an absolute path: %s", variable, Printable(value, 200)));
  }
  while (value.size() > 1 && value.ends_with('/')) value.remove_suffix(1);
  return std::string(value);
}

absl::StatusOr<std::string> StateDirectory(const EnvironmentLookup& lookup,
                                           bool is_root) {
  if (std::string_view given = lookup("NIX_QUEUED_STATE_DIR"); !given.empty()) {
    return Directory("NIX_QUEUED_STATE_DIR", given);
  }
  if (is_root) return std::string("/var/lib/nix-queued");
  // The XDG specification has relative values ignored.
  if (std::string_view xdg = lookup("XDG_STATE_HOME"); xdg.starts_with('/')) {
    return std::string(xdg) + "/nix-queued";
  }
  if (std::string_view home = lookup("HOME"); home.starts_with('/')) {
    return std::string(home) + "/.local/state/nix-queued";
  }
  return absl::FailedPreconditionError(
      "no state directory: set NIX_QUEUED_STATE_DIR or HOME");
}

// The directory in a variable without which paths can be queued all the same;
// "" and a problem if it makes no sense.
std::string LesserDirectory(const char* variable, std::string_view given,
                            std::string fallback, std::string_view consequence,
                            std::vector<std::string>& problems) {
  if (given.empty()) return fallback;
  absl::StatusOr<std::string> directory = Directory(variable, given);
  if (directory.ok()) return *std::move(directory);
  problems.push_back(absl::StrFormat("%s; %s",
                                     std::string(directory.status().message()),
                                     std::string(consequence)));
  return "";
}

// --- The store that Nix has built in ----------------------------------------

std::string_view StoreSetting(std::string_view nix_config) {
  constexpr std::string_view kName = "store = ";
  std::string_view value;
  while (!nix_config.empty()) {
    size_t end = std::min(nix_config.find('\n'), nix_config.size());
    std::string_view line = nix_config.substr(0, end);
    nix_config.remove_prefix(std::min(end + 1, nix_config.size()));
    if (line.starts_with(kName)) value = line.substr(kName.size());
  }
  return value;
}

std::string_view Parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    size_t end = std::min(query.find('&'), query.size());
    std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    size_t equals = pair.find('=');
    if (equals != pair.npos && pair.substr(0, equals) == name) {
      std::string_view value = pair.substr(equals + 1);
      while (value.size() > 1 && value.ends_with('/')) value.remove_suffix(1);
      return value;
    }
  }
  return "";
}

// Whether `store`, as the setting of that name has it, is a local store with
// files or state elsewhere than `settings` has them: `/mnt`, `local:///mnt`,
// `local?root=...`. Whatever names no directories is the store of this machine.
// So is one that is not local, since such a store runs no hooks: it is how a
// client that may change settings reaches our Nix daemon.
bool IsElsewhere(std::string_view store, const HookSettings& settings) {
  constexpr std::string_view kAuthority = "://";
  const size_t question = std::min(store.find('?'), store.size());
  std::string_view root = store.substr(0, question);
  const std::string_view query =
      store.substr(std::min(question + 1, store.size()));
  if (size_t scheme = root.find(kAuthority); scheme != root.npos) {
    if (!root.starts_with("local")) return false;
    root.remove_prefix(scheme + kAuthority.size());
  } else if (root == "daemon") {
    return false;
  } else if (!root.starts_with('/')) {
    root = "";
  }
  while (root.size() > 1 && root.ends_with('/')) root.remove_suffix(1);
  if (auto given = Parameter(query, "root"); !given.empty()) root = given;
  const std::string prefix = root == "/" ? "" : std::string(root);
  std::string real = prefix + settings.store_dir.path();
  std::string state = prefix + "/nix/var/nix";
  if (prefix.empty()) {
    real = settings.real_store_dir;
    state = settings.nix_state_dir;
  }
  if (auto given = Parameter(query, "real"); !given.empty()) real = given;
  if (auto given = Parameter(query, "state"); !given.empty()) state = given;
  std::string_view logical = Parameter(query, "store");
  return real != settings.real_store_dir || state != settings.nix_state_dir ||
         (!logical.empty() && logical != settings.store_dir.path());
}

}  // namespace

absl::StatusOr<HookSettings> ReadHookSettings(const EnvironmentLookup& lookup,
                                              bool is_root) {
  NIXQ_ASSIGN_OR_RETURN(
      StoreDir store_dir,
      StoreDir::FromEnvironment(lookup("NIX_STORE_DIR"), lookup("NIX_STORE")));
  NIXQ_ASSIGN_OR_RETURN(std::string state_dir, StateDirectory(lookup, is_root));
  HookSettings settings{.store_dir = std::move(store_dir),
                        .state_dir = std::move(state_dir),
                        .drv_path = std::string(lookup("DRV_PATH")),
                        .out_paths = std::string(lookup("OUT_PATHS"))};
  const char* real_variable = "NIX_QUEUED_REAL_STORE_DIR";
  settings.real_store_dir = LesserDirectory(
      real_variable, lookup(real_variable), settings.store_dir.path(),
      "the store directory is looked at instead", settings.problems);
  if (settings.real_store_dir.empty()) {
    settings.real_store_dir = settings.store_dir.path();
  }
  const char* no_roots = "no GC root is made";
  settings.nix_state_dir =
      LesserDirectory("NIX_STATE_DIR", lookup("NIX_STATE_DIR"), "/nix/var/nix",
                      no_roots, settings.problems);
  if (!settings.nix_state_dir.empty()) {
    settings.roots_dir =
        LesserDirectory("NIX_QUEUED_ROOTS_DIR", lookup("NIX_QUEUED_ROOTS_DIR"),
                        settings.nix_state_dir + "/gcroots/arm-cache", no_roots,
                        settings.problems);
  }
  if (std::string_view store = StoreSetting(lookup("NIX_CONFIG"));
      !settings.nix_state_dir.empty() && IsElsewhere(store, settings)) {
    settings.other_store = std::string(store);
  }
  return settings;
}

}  // namespace nixq
