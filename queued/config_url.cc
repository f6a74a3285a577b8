#include "queued/config_url.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_format.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr size_t kMaxUrlBytes = 2048;
constexpr size_t kMaxNameBytes = 64;
constexpr std::string_view kLocalPrefix = "local:";

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(std::string(what));
}

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool IsSchemeCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '+' || c == '-';
}

std::string NameFrom(std::string_view text) {
  std::string name(text.substr(0, kMaxNameBytes));
  for (char& c : name) {
    if (!IsNameCharacter(c)) c = '-';
  }
  return name.empty() ? "target" : name;
}

// "scheme://authority/path".
struct Pieces {
  std::string scheme;
  std::string_view authority;
  std::string_view path;  // from its slash, or ""
};

std::optional<Pieces> Cut(std::string_view url) {
  size_t colon = url.find("://");
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  std::string_view rest = url.substr(colon + 3);
  size_t slash = std::min(rest.find('/'), rest.size());
  return Pieces{std::string(url.substr(0, colon)), rest.substr(0, slash),
                rest.substr(slash)};
}

absl::Status CheckCharacters(std::string_view url) {
  if (url.size() > kMaxUrlBytes) {
    return Bad(absl::StrFormat("must have at most %d bytes", kMaxUrlBytes));
  }
  for (unsigned char c : url) {
    if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\') {
      return Bad("must be ASCII without spaces, quotes and backslashes");
    }
  }
  if (url.find('?') != std::string_view::npos ||
      url.find('#') != std::string_view::npos) {
    return Bad(
        "must not have parameters ('?' or '#'): they are keys here, "
        "such as compression and ssh-key-file");
  }
  return absl::OkStatus();
}

// host, host:port or [v6]:port.
absl::StatusOr<std::string> CheckHost(std::string_view text) {
  std::string_view host = text;
  std::optional<std::string_view> port;
  if (text.starts_with("[")) {
    size_t end = text.find(']');
    if (end == std::string_view::npos) {
      return Bad("has a '[' without its ']'");
    }
    host = text.substr(1, end - 1);
    std::string_view rest = text.substr(end + 1);
    if (!rest.empty() && !rest.starts_with(":")) {
      return Bad("has something between ']' and the port");
    }
    if (!rest.empty()) port = rest.substr(1);
  } else if (size_t colon = text.find(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (host.empty()) return Bad("must name a host after '://'");
  bool v6 = text.starts_with("[");
  bool good = std::all_of(host.begin(), host.end(), [&](char c) {
    return IsNameCharacter(c) || (v6 && (c == ':' || c == '%'));
  });
  // A host that starts with '-' would be an option for ssh.
  if (!good || host.starts_with("-")) {
    return Bad("has a host that is not a name or an address");
  }
  if (port) {
    std::optional<uint64_t> number = ParseUint(*port);
    if (!number || *number < 1 || *number > 65535) {
      return Bad("must have a port from 1 to 65535 after the host");
    }
  }
  return NameFrom(host);
}

absl::StatusOr<std::string> CheckDirectory(const Pieces& pieces) {
  if (!pieces.authority.empty()) {
    return Bad(absl::StrFormat(
        "must have three slashes before an absolute path; did you mean "
        "\"file:///%s%s\"?",
        std::string(pieces.authority), std::string(pieces.path)));
  }
  std::string_view path = pieces.path;
  while (path.size() > 1 && path.ends_with("/")) path.remove_suffix(1);
  if (path.empty() || path == "/") {
    return Bad("must name a directory: \"file:///srv/cache\"");
  }
  if (path.find('%') != std::string_view::npos) {
    return Bad("must not have '%' in a file URL: nothing is unescaped there");
  }
  for (const std::string& piece : Split(path, '/')) {
    if (piece == "." || piece == "..") {
      return Bad("must be a path without '.' and '..' components");
    }
  }
  return NameFrom(path.substr(path.rfind('/') + 1));
}

absl::StatusOr<std::string> CheckHttp(const Pieces& pieces) {
  if (pieces.authority.find('@') != std::string_view::npos) {
    return Bad(
        "must not contain a user or password: put them in a file and "
        "name it with netrc-file or bearer-token-file");
  }
  return CheckHost(pieces.authority);
}

absl::StatusOr<std::string> CheckSsh(const Pieces& pieces) {
  std::string_view host = pieces.authority;
  if (size_t at = host.rfind('@'); at != std::string_view::npos) {
    std::string_view user = host.substr(0, at);
    if (user.find(':') != std::string_view::npos) {
      return Bad(
          "must not contain a password: ssh uses the key in "
          "ssh-key-file");
    }
    if (user.empty() || user.starts_with("-") ||
        !std::all_of(user.begin(), user.end(), IsNameCharacter)) {
      return Bad("has a user that is not a user's name");
    }
    host.remove_prefix(at + 1);
  }
  if (!pieces.path.empty() && pieces.path != "/") {
    return Bad(
        "must not have a path after the host: another store on that "
        "machine is ssh-remote-store");
  }
  return CheckHost(host);
}

bool IsHttp(const Pieces& pieces) {
  return pieces.scheme == "http" || pieces.scheme == "https";
}

absl::Status UnknownScheme(std::string_view url,
                           const std::optional<Pieces>& pieces) {
  constexpr std::string_view kKnown =
      "file://, http://, https://, ssh://, ssh-ng:// or local:http://";
  if (url.starts_with("/")) {
    return Bad(absl::StrFormat("must be a URL; did you mean \"file://%s\"?",
                               Printable(url, 200)));
  }
  // Only what is a scheme is shown: anything else might be a password.
  if (!pieces || !std::all_of(pieces->scheme.begin(), pieces->scheme.end(),
                              IsSchemeCharacter)) {
    return Bad(absl::StrFormat("must start with %s", std::string(kKnown)));
  }
  return Bad(absl::StrFormat("must start with %s, not %s://",
                             std::string(kKnown),
                             Printable(pieces->scheme, 40)));
}

}  // namespace

absl::StatusOr<TargetUrl> ParseTargetUrl(std::string_view url) {
  if (absl::Status status = CheckCharacters(url); !status.ok()) return status;
  if (url == kLocalPrefix)
    return TargetUrl{.kind = TargetKind::kLocal, .name = "local"};
  bool local = url.starts_with(kLocalPrefix);
  std::optional<Pieces> pieces =
      Cut(local ? url.substr(kLocalPrefix.size()) : url);
  if (local && (!pieces || !IsHttp(*pieces))) {
    return Bad(
        "must have http:// or https:// after \"local:\": the address "
        "at which this machine's store is served");
  }
  bool ssh = pieces && (pieces->scheme == "ssh" || pieces->scheme == "ssh-ng");
  TargetUrl result;
  absl::StatusOr<std::string> name = UnknownScheme(url, pieces);
  if (pieces && pieces->scheme == "file") {
    result.kind = TargetKind::kDirectory;
    name = CheckDirectory(*pieces);
  } else if (pieces && IsHttp(*pieces)) {
    result.kind = local ? TargetKind::kLocal : TargetKind::kHttp;
    name = CheckHttp(*pieces);
  } else if (ssh) {
    result.kind = TargetKind::kSsh;
    name = CheckSsh(*pieces);
  }
  if (!name.ok()) return name.status();
  result.name = *std::move(name);
  return result;
}

absl::Status CheckUpstreamUrl(std::string_view url) {
  if (absl::Status status = CheckCharacters(url); !status.ok()) return status;
  std::optional<Pieces> pieces = Cut(url);
  if (pieces && IsHttp(*pieces)) {
    if (pieces->authority.find('@') != std::string_view::npos) {
      return Bad(
          "must not contain a user or password: upstreams are asked "
          "without");
    }
    return CheckHttp(*pieces).status();
  }
  return Bad("must be URLs that start with http:// or https://");
}

}  // namespace nixq
