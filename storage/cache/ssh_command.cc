#include "storage/cache/ssh_command.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/cache/ssh_cache.h"

namespace nixq {
namespace {

constexpr std::string_view kLetters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
constexpr std::string_view kDigits = "0123456789";
constexpr size_t kMaxValueBytes = 1024;

// Options that are ours to set, that run a command, or that would put an end
// to the checking of host keys.
constexpr std::array<std::string_view, 23> kRefusedOptions = {
    "batchmode",
    "connecttimeout",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "host",
    "identitiesonly",
    "include",
    "knownhostscommand",
    "localcommand",
    "loglevel",
    "match",
    "nohostauthenticationforlocalhost",
    "permitlocalcommand",
    "pkcs11provider",
    "proxycommand",
    "rekeylimit",
    "remotecommand",
    "requesttty",
    "securitykeyprovider",
    "stricthostkeychecking",
    "verifyhostkeydns",
    "xauthlocation",
};

// Variables that would bring in settings or a dialog past the options.
constexpr std::array<std::string_view, 6> kDroppedVariables = {
    "NIX_CONFIG",          "NIX_SSHOPTS", "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE", "DISPLAY",     "WAYLAND_DISPLAY"};

bool MadeOf(std::string_view text, std::string_view others) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return kLetters.find(c) != std::string_view::npos ||
           kDigits.find(c) != std::string_view::npos ||
           others.find(c) != std::string_view::npos;
  });
}

absl::Status Refuse(std::string_view what, std::string_view value,
                    std::string_view why) {
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s %s: %s", std::string(what), Printable(value, 200), std::string(why)));
}

// A file that ssh opens: it expands %, ~ and ${}, and splits at white space.
absl::Status CheckFile(std::string_view what, const std::string& file) {
  if (file.empty()) return absl::OkStatus();
  if (file.front() != '/' || file.size() > kMaxValueBytes ||
      !MadeOf(file, "/._+:@,=-")) {
    return Refuse(what, file,
                  "must be an absolute path of letters, digits and /._+:@,=-");
  }
  return absl::OkStatus();
}

absl::Status CheckOption(const std::string& option) {
  const size_t equals = option.find('=');
  if (equals == 0 || equals == std::string::npos ||
      !MadeOf(option.substr(0, equals), "")) {
    return Refuse("ssh option", option, "must be Name=value");
  }
  const std::string name = Lower(option.substr(0, equals));
  const std::string_view value = std::string_view(option).substr(equals + 1);
  if (std::find(kRefusedOptions.begin(), kRefusedOptions.end(), name) !=
      kRefusedOptions.end()) {
    return Refuse("ssh option", option.substr(0, equals),
                  "is set by the program itself or not allowed; use the ssh "
                  "configuration of the account that it runs as");
  }
  if (value.empty() || value.size() > kMaxValueBytes ||
      !MadeOf(value, "/._+:@,=%^*?~[]-")) {
    return Refuse("ssh option", option,
                  "its value must be made of letters, digits and "
                  "/._+:@,=%^*?~[]-");
  }
  return absl::OkStatus();
}

absl::Status CheckDirectory(std::string_view what,
                            const std::string& directory) {
  const bool printable =
      std::none_of(directory.begin(), directory.end(),
                   [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (directory.size() < 2 || directory.size() > kMaxValueBytes ||
      directory.front() != '/' || directory.back() == '/' || !printable ||
      (directory + "/").find("/../") != std::string::npos ||
      (directory + "/").find("/./") != std::string::npos ||
      directory.find("//") != std::string::npos) {
    return Refuse(what, directory, "must be an absolute path, written plainly");
  }
  return absl::OkStatus();
}

std::string PercentEncoded(std::string_view text) {
  std::string encoded;
  for (unsigned char c : text) {
    if (MadeOf(std::string_view(reinterpret_cast<char*>(&c), 1), "-._~")) {
      encoded += static_cast<char>(c);
    } else {
      encoded += absl::StrFormat("%%%02x", c);
    }
  }
  return encoded;
}

std::vector<std::string> Cleaned(const std::vector<std::string>& environment) {
  std::vector<std::string> kept;
  for (const std::string& variable : environment) {
    const std::string_view name =
        std::string_view(variable).substr(0, variable.find('='));
    if (std::find(kDroppedVariables.begin(), kDroppedVariables.end(), name) ==
        kDroppedVariables.end()) {
      kept.push_back(variable);
    }
  }
  return kept;
}

// host, host:port or [address]:port.
absl::Status ParseHost(std::string_view text, SshAddress& address) {
  std::string_view port;
  bool has_port = false;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) {
      return absl::InvalidArgumentError("no ] in its address");
    }
    address.host = text.substr(1, close - 1);
    text.remove_prefix(close + 1);
    if (!MadeOf(address.host, ":.") ||
        address.host.find(':') == std::string::npos) {
      return absl::InvalidArgumentError("no IPv6 address in its brackets");
    }
    has_port = text.starts_with(':');
    port = has_port ? text.substr(1) : text;
    if (!has_port && !text.empty()) {
      return absl::InvalidArgumentError("something odd after its ]");
    }
  } else {
    const size_t colon = text.find(':');
    has_port = colon != std::string_view::npos;
    address.host = text.substr(0, colon);
    if (has_port) port = text.substr(colon + 1);
    if (!MadeOf(address.host, "._-") || address.host.starts_with('-')) {
      return absl::InvalidArgumentError("its host is no host name");
    }
  }
  if (address.host.empty() || address.host.size() > 255) {
    return absl::InvalidArgumentError("it has no host");
  }
  const auto number = ParseUint(port);
  if (has_port && (!number.has_value() || *number == 0 || *number > 65535)) {
    return absl::InvalidArgumentError("its port is no port");
  }
  address.port = port;
  return absl::OkStatus();
}

absl::StatusOr<SshAddress> ParseAddress(std::string_view url) {
  SshAddress address;
  const size_t scheme_end = url.find("://");
  address.scheme = url.substr(0, scheme_end);
  if (scheme_end == std::string_view::npos ||
      (address.scheme != "ssh" && address.scheme != "ssh-ng")) {
    return absl::InvalidArgumentError("is not ssh://host or ssh-ng://host");
  }
  std::string_view rest = url.substr(scheme_end + 3);
  if (const size_t query = rest.find('?'); query != std::string_view::npos) {
    const std::string_view parameters = rest.substr(query + 1);
    if (parameters != "compress=true" && parameters != "compress=false") {
      return absl::InvalidArgumentError(
          "of its parameters only compress=true is allowed; the others have "
          "settings of their own");
    }
    address.compress = parameters == "compress=true";
    rest = rest.substr(0, query);
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    address.user = rest.substr(0, at);
    rest.remove_prefix(at + 1);
    if (address.user.empty() || address.user.size() > 255 ||
        address.user.starts_with('-') || !MadeOf(address.user, "._-")) {
      return absl::InvalidArgumentError("its user is no user name");
    }
  }
  NIXQ_RETURN_IF_ERROR(ParseHost(rest, address));
  // Nix then starts the program here, without ssh and by a shell.
  if (address.user.empty() && address.host == "localhost") {
    return absl::InvalidArgumentError(
        "Nix does not use ssh for the host localhost; write 127.0.0.1");
  }
  return address;
}

}  // namespace

absl::StatusOr<SshAddress> SshAddress::Parse(std::string_view url) {
  auto address = ParseAddress(url);
  if (!address.ok()) {
    return Annotate(address.status(), "URL " + Printable(url, 200));
  }
  return address;
}

std::string SshAddress::Destination() const {
  return user.empty() ? host : user + "@" + host;
}

absl::Status ValidateSshOptions(const SshOptions& options) {
  NIXQ_RETURN_IF_ERROR(CheckFile("ssh key file", options.key_file));
  NIXQ_RETURN_IF_ERROR(CheckFile("known-hosts file", options.known_hosts_file));
  for (const std::string& option : options.ssh_options) {
    NIXQ_RETURN_IF_ERROR(CheckOption(option));
  }
  // The other machine's shell reads both.
  if (options.remote_program.size() > kMaxValueBytes ||
      options.remote_program.starts_with('-') ||
      !MadeOf(options.remote_program, "/._+@-")) {
    return Refuse("remote program", options.remote_program,
                  "must be a program of letters, digits and /._+@-");
  }
  if (options.remote_store.size() > kMaxValueBytes ||
      !MadeOf(options.remote_store, "/._+:@,=?&%-")) {
    return Refuse("remote store", options.remote_store,
                  "must be made of letters, digits and /._+:@,=?&%-");
  }
  NIXQ_RETURN_IF_ERROR(
      CheckDirectory("remote roots directory", options.remote_roots_directory));
  if (options.pin_remote &&
      (options.sender.empty() || options.sender.front() == '-' ||
       !MadeOf(options.sender, "-_"))) {
    return Refuse("sender's name", options.sender,
                  "must be made of letters, digits, - and _");
  }
  // It stands unquoted in the script for the roots.
  if (!MadeOf(options.store_dir.path(), "/._+@-")) {
    return Refuse("store directory", options.store_dir.path(),
                  "has characters that no shell should see");
  }
  if (options.stall_limit <= absl::ZeroDuration() ||
      options.connect_limit <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("limits must be positive");
  }
  return absl::OkStatus();
}

uint64_t RekeyBytes(absl::Duration stall_limit) {
  constexpr uint64_t kMiB = 1 << 20;
  const int64_t seconds =
      absl::ToInt64Seconds(std::min(stall_limit, absl::Hours(1)));
  return std::clamp<uint64_t>(static_cast<uint64_t>(seconds) * kMiB / 16, kMiB,
                              64 * kMiB);
}

std::vector<std::string> SshArguments(const SshOptions& options,
                                      const SshAddress& address) {
  const int64_t connect_seconds =
      std::max<int64_t>(1, absl::ToInt64Seconds(options.connect_limit));
  // ssh takes the first value of an option, so that none of these can be
  // undone by what follows or by a configuration file.
  std::vector<std::string> arguments = {
      "-oBatchMode=yes",
      "-oStrictHostKeyChecking=yes",
      "-oNoHostAuthenticationForLocalhost=no",
      "-oControlMaster=no",
      "-oControlPath=none",
      "-oForwardAgent=no",
      "-oForwardX11=no",
      absl::StrFormat("-oConnectTimeout=%d", connect_seconds),
      "-oServerAliveInterval=15",
      "-oServerAliveCountMax=3",
  };
  if (!options.key_file.empty()) {
    arguments.insert(arguments.end(),
                     {"-oIdentitiesOnly=yes", "-i", options.key_file});
  }
  if (!options.known_hosts_file.empty()) {
    arguments.push_back("-oUserKnownHostsFile=" + options.known_hosts_file);
    arguments.push_back("-oGlobalKnownHostsFile=/dev/null");
  }
  if (!address.port.empty()) {
    arguments.insert(arguments.end(), {"-p", address.port});
  }
  for (const std::string& option : options.ssh_options) {
    arguments.push_back("-o" + option);
  }
  return arguments;
}

std::string StoreUrl(const SshOptions& options, const SshAddress& address) {
  const bool is_v6 = address.host.find(':') != std::string::npos;
  std::string url = address.scheme + "://";
  if (!address.user.empty()) url += address.user + "@";
  url += is_v6 ? "[" + address.host + "]" : address.host;
  std::vector<std::string> parameters;
  if (address.compress) parameters.emplace_back("compress=true");
  if (!options.remote_program.empty()) {
    parameters.push_back("remote-program=" +
                         PercentEncoded(options.remote_program));
  }
  if (!options.remote_store.empty()) {
    parameters.push_back("remote-store=" +
                         PercentEncoded(options.remote_store));
  }
  return parameters.empty() ? url : url + "?" + Join(parameters, "&");
}

std::vector<std::string> NixEnvironment(const SshOptions& options,
                                        const SshAddress& address) {
  std::vector<std::string> environment = Cleaned(options.environment);
  std::vector<std::string> arguments = SshArguments(options, address);
  arguments.emplace_back("-oLogLevel=DEBUG1");
  arguments.push_back(
      absl::StrFormat("-oRekeyLimit=%d", RekeyBytes(options.stall_limit)));
  environment.push_back("NIX_SSHOPTS=" + Join(arguments, " "));
  return environment;
}

std::vector<std::string> SshEnvironment(const SshOptions& options) {
  return Cleaned(options.environment);
}

}  // namespace nixq
