#include "queued/surroundings_check.h"

#include <sys/stat.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/str_format.h"

namespace nixq {
namespace {

// Without symlinks, as far as it is there, and without a slash at its end.
std::string Canonical(const std::string& directory) {
  std::error_code error;
  std::filesystem::path path =
      std::filesystem::weakly_canonical(directory, error);
  std::string text = error ? directory : path.string();
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return text;
}

}  // namespace

std::string RootsTrouble(const Config& config) {
  const std::string directory = Canonical(config.roots_directory) + "/";
  for (const char* walked : {"/gcroots", "/profiles"}) {
    if (directory.starts_with(Canonical(config.nix_state_dir + walked) + "/")) {
      return "";
    }
  }
  return absl::StrFormat(
      "%s is not below %s/gcroots, where Nix's garbage collector looks: it "
      "holds nothing",
      config.roots_directory, config.nix_state_dir);
}

HookPlaces HookDefaults(const Config& config,
                        const Surroundings& surroundings) {
  struct stat store;
  const bool known = stat(config.real_store_dir.c_str(), &store) == 0;
  const bool roots_store = known ? store.st_uid == 0 : surroundings.is_root;
  // Root's come from nix-daemon, others' from the shell that runs this.
  Surroundings of_hook;
  if (!roots_store) of_hook = surroundings;
  of_hook.is_root = roots_store;
  return {DefaultStateDir(of_hook),
          config.nix_state_dir + "/gcroots/arm-cache"};
}

bool SamePlace(const std::string& one, const std::string& other) {
  return Canonical(one) == Canonical(other);
}

}  // namespace nixq
