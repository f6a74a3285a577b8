#include <pwd.h>
#include <unistd.h>

#include <vector>

#include "queued/config.h"

#ifdef __APPLE__  // Linux has it in unistd.h
extern char** environ;
#endif

namespace nixq {
namespace {

// An XDG base directory; relative ones are to be ignored, says their
// specification.
std::string BaseDirectory(const Surroundings& surroundings,
                          const std::string& variable,
                          const std::string& below_home) {
  std::string value = surroundings.Variable(variable);
  if (!value.empty() && value.front() == '/') return value;
  return surroundings.home + below_home;
}

std::string HomeFromPasswd() {
  long size = sysconf(_SC_GETPW_R_SIZE_MAX);
  std::vector<char> buffer(size > 0 ? static_cast<size_t>(size) : 16384);
  struct passwd entry;
  struct passwd* found = nullptr;
  int err = getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found);
  if (err != 0 || found == nullptr || found->pw_dir == nullptr) return "";
  return found->pw_dir;
}

}  // namespace

std::string Surroundings::Variable(std::string_view name) const {
  auto found = variables.find(std::string(name));
  return found == variables.end() ? "" : found->second;
}

Surroundings SurroundingsOfProcess() {
  Surroundings surroundings;
  for (char** variable = environ; variable != nullptr && *variable != nullptr;
       ++variable) {
    std::string text = *variable;
    size_t equals = text.find('=');
    if (equals == std::string::npos) continue;
    surroundings.variables.emplace(text.substr(0, equals),
                                   text.substr(equals + 1));
  }
  surroundings.is_root = geteuid() == 0;
  surroundings.home = surroundings.Variable("HOME");
  if (surroundings.home.empty()) surroundings.home = HomeFromPasswd();
  return surroundings;
}

std::string DefaultConfigFile(const Surroundings& surroundings) {
  std::string named = surroundings.Variable("NIX_QUEUED_CONFIG");
  if (!named.empty()) return named;
  if (surroundings.is_root) return kSystemConfigFile;
  std::string own = BaseDirectory(surroundings, "XDG_CONFIG_HOME", "/.config") +
                    "/nix-queued/queued.toml";
  bool only_the_systems_is_there =
      access(own.c_str(), F_OK) != 0 && access(kSystemConfigFile, F_OK) == 0;
  return only_the_systems_is_there ? kSystemConfigFile : own;
}

std::string DefaultStateDir(const Surroundings& surroundings) {
  std::string named = surroundings.Variable("NIX_QUEUED_STATE_DIR");
  if (!named.empty()) return named;
  if (surroundings.is_root) return "/var/lib/nix-queued";
  return BaseDirectory(surroundings, "XDG_STATE_HOME", "/.local/state") +
         "/nix-queued";
}

}  // namespace nixq
