#include "hook/settings.h"

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

absl::StatusOr<std::string> NixStateDirectory(const EnvironmentLookup& lookup) {
  if (std::string_view given = lookup("NIX_STATE_DIR"); !given.empty()) {
    return Directory("NIX_STATE_DIR", given);
  }
  return std::string("/nix/var/nix");
}

absl::StatusOr<std::string> RootsDirectory(const EnvironmentLookup& lookup,
                                           const std::string& nix_state_dir) {
  if (std::string_view given = lookup("NIX_QUEUED_ROOTS_DIR"); !given.empty()) {
    return Directory("NIX_QUEUED_ROOTS_DIR", given);
  }
  return nix_state_dir + "/gcroots/arm-cache";
}

}  // namespace

absl::StatusOr<HookSettings> ReadHookSettings(const EnvironmentLookup& lookup,
                                              bool is_root) {
  NIXQ_ASSIGN_OR_RETURN(
      StoreDir store_dir,
      StoreDir::FromEnvironment(lookup("NIX_STORE_DIR"), lookup("NIX_STORE")));
  std::string real_store_dir = store_dir.path();
  if (std::string_view given = lookup("NIX_QUEUED_REAL_STORE_DIR");
      !given.empty()) {
    NIXQ_ASSIGN_OR_RETURN(real_store_dir,
                          Directory("NIX_QUEUED_REAL_STORE_DIR", given));
  }
  NIXQ_ASSIGN_OR_RETURN(std::string state_dir, StateDirectory(lookup, is_root));
  NIXQ_ASSIGN_OR_RETURN(std::string nix_state_dir, NixStateDirectory(lookup));
  NIXQ_ASSIGN_OR_RETURN(std::string roots_dir,
                        RootsDirectory(lookup, nix_state_dir));
  return HookSettings{
      .store_dir = std::move(store_dir),
      .real_store_dir = std::move(real_store_dir),
      .state_dir = std::move(state_dir),
      .roots_dir = std::move(roots_dir),
      .nix_state_dir = std::move(nix_state_dir),
      .drv_path = std::string(lookup("DRV_PATH")),
      .out_paths = std::string(lookup("OUT_PATHS")),
  };
}

}  // namespace nixq
