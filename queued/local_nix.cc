#include "queued/local_nix.h"

#include <utility>

namespace nixq {
namespace {

// Where nix and ssh are found when nothing says otherwise.
constexpr std::string_view kUsualPath =
    "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:"
    "/usr/local/bin:/usr/bin:/bin";

// Nix's own idea of where things are, passed on as it is.
constexpr const char* kNixVariables[] = {"NIX_CONF_DIR", "NIX_DATA_DIR",
                                         "NIX_LOCALSTATE_DIR", "NIX_LOG_DIR",
                                         "NIX_SSL_CERT_FILE"};

std::string Variable(const Surroundings& surroundings, const char* name) {
  auto it = surroundings.variables.find(name);
  return it == surroundings.variables.end() ? "" : it->second;
}

std::vector<std::string> NixEnvironment(const Config& config,
                                        const Surroundings& surroundings) {
  std::string path = config.nix_bin_dir;
  for (const std::string& more :
       {Variable(surroundings, "PATH"), std::string(kUsualPath)}) {
    if (more.empty()) continue;
    if (!path.empty()) path += ':';
    path += more;
  }
  std::vector<std::string> environment = {
      "PATH=" + path,
      "NIX_STORE_DIR=" + config.store_dir,
      "NIX_STATE_DIR=" + config.nix_state_dir,
      "NIX_DAEMON_SOCKET_PATH=" + config.nix_daemon_socket,
      "NIX_USER_CONF_FILES=/dev/null",
      "LC_ALL=C",
  };
  for (const char* name : kNixVariables) {
    const std::string value = Variable(surroundings, name);
    if (!value.empty()) environment.push_back(std::string(name) + "=" + value);
  }
  return environment;
}

}  // namespace

std::vector<std::string> ChildEnvironment(const Config& config,
                                          const Surroundings& surroundings) {
  std::vector<std::string> environment = NixEnvironment(config, surroundings);
  environment.push_back("HOME=" + config.state_dir);
  environment.push_back("XDG_CACHE_HOME=" + config.state_dir + "/cache");
  return environment;
}

std::unique_ptr<DaemonClient> MakeDaemonClient(const Config& config,
                                               const Surroundings& surroundings,
                                               const StoreDir& store_dir) {
  const std::string program = config.nix_bin_dir.empty()
                                  ? "nix-daemon"
                                  : config.nix_bin_dir + "/nix-daemon";
  DaemonClientOptions options{
      .store_dir = store_dir,
      .socket_path = config.nix_daemon_socket,
      .stdio_command = {program, "--stdio"},
      .stdio_environment = ChildEnvironment(config, surroundings)};
  return std::make_unique<DaemonClient>(std::move(options));
}

}  // namespace nixq
