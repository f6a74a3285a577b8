#include "storage/cache/ssh_errors.h"

#include <array>
#include <optional>

#include "storage/base/text.h"

namespace nixq {
namespace {

using Code = absl::StatusCode;
using Scope = SshFailure::Scope;

// A phrase and its meaning. No phrase can be part of a store path: those have
// no spaces.
struct Phrase {
  std::string_view words;
  Code code;
  Scope scope;
  std::string_view advice;
};

constexpr std::string_view kHostKeyAdvice =
    "if the new key is right, put it into the known-hosts file";
constexpr std::string_view kLoginAdvice =
    "the key must be in the other account's authorized_keys and readable here";
constexpr std::string_view kSignatureAdvice =
    "sign with a key that is in the receiver's trusted-public-keys";
constexpr std::string_view kProgramAdvice =
    "put Nix into that account's PATH or set the remote program";

// By rank: what ssh says of the login, then what Nix says of a path, then
// what broke off.
constexpr std::array kPhrases = {
    Phrase{"REMOTE HOST IDENTIFICATION HAS CHANGED", Code::kUnauthenticated,
           Scope::kTarget, kHostKeyAdvice},
    Phrase{"host key is known for", Code::kUnauthenticated, Scope::kTarget,
           kHostKeyAdvice},
    Phrase{"Host key verification failed", Code::kUnauthenticated,
           Scope::kTarget, kHostKeyAdvice},
    Phrase{"Permission denied (", Code::kUnauthenticated, Scope::kTarget,
           kLoginAdvice},
    Phrase{"Too many authentication failures", Code::kUnauthenticated,
           Scope::kTarget, kLoginAdvice},
    Phrase{"No supported authentication methods", Code::kUnauthenticated,
           Scope::kTarget, kLoginAdvice},
    Phrase{"Unable to negotiate with", Code::kUnauthenticated, Scope::kTarget,
           ""},
    Phrase{"This account is currently not available", Code::kUnauthenticated,
           Scope::kTarget, "give that account a shell"},
    Phrase{"is not allowed to connect to the Nix daemon",
           Code::kPermissionDenied, Scope::kTarget,
           "add it to allowed-users over there"},

    Phrase{"lacks a signature by a trusted key", Code::kPermissionDenied,
           Scope::kPath, kSignatureAdvice},
    Phrase{"lacks a valid signature", Code::kPermissionDenied, Scope::kPath,
           kSignatureAdvice},
    Phrase{"hash mismatch importing path", Code::kDataLoss, Scope::kPath, ""},
    Phrase{"size mismatch importing path", Code::kDataLoss, Scope::kPath, ""},
    Phrase{"No space left on device", Code::kResourceExhausted, Scope::kTarget,
           ""},
    Phrase{"Disk quota exceeded", Code::kResourceExhausted, Scope::kTarget, ""},
    Phrase{"is required, but there is no substituter that can build it",
           Code::kNotFound, Scope::kPath, ""},
    Phrase{"is not valid", Code::kNotFound, Scope::kPath, ""},
    Phrase{"don't know how to build", Code::kNotFound, Scope::kPath, ""},
    Phrase{"does not exist in the store", Code::kNotFound, Scope::kPath, ""},
    Phrase{"is not in the Nix store", Code::kInvalidArgument, Scope::kPath, ""},

    Phrase{"Connection refused", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"Could not resolve hostname", Code::kUnavailable, Scope::kTarget,
           ""},
    Phrase{"No route to host", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"Network is unreachable", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"timed out", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"not responding", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"Connection reset", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"Connection closed by", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"closed by remote host", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"client_loop: send disconnect", Code::kUnavailable, Scope::kTarget,
           ""},
    Phrase{"kex_exchange_identification", Code::kUnavailable, Scope::kTarget,
           ""},
    Phrase{"ssh_exchange_identification", Code::kUnavailable, Scope::kTarget,
           ""},
    Phrase{"banner exchange", Code::kUnavailable, Scope::kTarget, ""},
    Phrase{"cannot connect to socket", Code::kUnavailable, Scope::kTarget,
           "the Nix daemon is away"},
    Phrase{"daemon disconnected unexpectedly", Code::kUnavailable,
           Scope::kTarget, "the Nix daemon is away"},
    Phrase{"command not found", Code::kUnavailable, Scope::kTarget,
           kProgramAdvice},
    Phrase{"Unknown command", Code::kUnavailable, Scope::kTarget,
           kProgramAdvice},  // fish
    Phrase{": not found", Code::kUnavailable, Scope::kTarget, kProgramAdvice},
    Phrase{"protocol mismatch", Code::kUnavailable, Scope::kTarget,
           "something other than Nix answers: a forced command, or a login "
           "script that prints"},
    Phrase{": Permission denied", Code::kPermissionDenied, Scope::kUnknown, ""},
    Phrase{"No such file or directory", Code::kUnknown, Scope::kUnknown, ""},

    Phrase{"failed to start SSH connection", Code::kUnavailable, Scope::kTarget,
           ""},
    Phrase{"cannot open connection to remote store", Code::kUnavailable,
           Scope::kTarget, ""},
    Phrase{"cannot connect to '", Code::kUnavailable, Scope::kTarget, ""},
};

// What follows when the other side goes away without a word.
constexpr std::array<std::string_view, 3> kBrokenOff = {
    "unexpected end-of-file", "Broken pipe", "unexpected EOF"};

constexpr size_t kMaxTextBytes = 1024;

bool Contains(std::string_view text, std::string_view words) {
  return text.find(words) != std::string_view::npos;
}

// "bash: line 1: /opt/nix-store: No such file or directory" is the shell's
// word on the program, not Nix's on a file.
bool IsShellsWord(std::string_view line) {
  for (std::string_view shell :
       {"bash:", "sh:", "zsh:", "dash:", "ash:", "ksh:", "fish:", "exec"}) {
    if (line.starts_with(shell)) return true;
  }
  return Contains(line, "sh: ");
}

// What ssh tells of itself and nobody needs for understanding a failure.
bool IsChatter(std::string_view line) {
  for (std::string_view start :
       {"debug1:", "debug2:", "debug3:", "OpenSSH_", "Authenticated to ",
        "Transferred: ", "Bytes per second", "Warning: Permanently added",
        "** ", "copying ", "@@@"}) {
    if (line.starts_with(start)) return true;
  }
  return Trim(line).empty();
}

std::string_view WithoutPrefix(std::string_view line) {
  line = Trim(line);
  while (line.starts_with("error:")) line = Trim(line.substr(6));
  return line;
}

std::string Worded(std::string_view line, std::string_view advice) {
  std::string text = Printable(WithoutPrefix(line), kMaxTextBytes);
  if (!advice.empty()) text.append(" (").append(advice).append(")");
  return text;
}

std::optional<SshFailure> ByPhrase(const std::vector<std::string>& lines,
                                   const StoreDir& store_dir) {
  for (const Phrase& phrase : kPhrases) {
    for (const std::string& line : lines) {
      if (IsChatter(line) && !Contains(line, "IDENTIFICATION")) continue;
      if (!Contains(line, phrase.words)) continue;
      SshFailure failure{phrase.code, phrase.scope, Worded(line, phrase.advice),
                         StorePathIn(line, store_dir)};
      if (phrase.scope == Scope::kPath && failure.path.empty()) {
        failure.scope = Scope::kUnknown;
      }
      if (Contains(phrase.words, "No such file") && IsShellsWord(line)) {
        failure.code = Code::kUnavailable;
        failure.scope = Scope::kTarget;
        failure.text = Worded(line, kProgramAdvice);
      }
      return failure;
    }
  }
  return std::nullopt;
}

bool IsBrokenOff(std::string_view line) {
  for (std::string_view words : kBrokenOff) {
    if (Contains(line, words)) return true;
  }
  return false;
}

}  // namespace

std::string StorePathIn(std::string_view text, const StoreDir& store_dir) {
  const std::string prefix = store_dir.path() + "/";
  for (size_t at = text.find(prefix); at != std::string_view::npos;
       at = text.find(prefix, at + 1)) {
    std::string_view name = text.substr(at + prefix.size());
    name = name.substr(
        0, name.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="));
    if (auto path = StorePath::FromBaseName(name); path.ok()) {
      return path->base_name();
    }
  }
  return "";
}

SshFailure ClassifySshFailure(const std::vector<std::string>& lines,
                              const StoreDir& store_dir) {
  std::vector<std::string> plain;
  plain.reserve(lines.size());
  for (const std::string& line : lines) {
    plain.push_back(Printable(line, kMaxTextBytes));
  }
  if (auto known = ByPhrase(plain, store_dir)) return *std::move(known);

  // Unknown words are kept as they are; the first "error:" is the nearest to
  // the cause. Nobody said anything: the connection broke.
  std::string_view telling;
  std::string_view broken;
  for (const std::string& line : plain) {
    if (IsChatter(line)) continue;
    if (IsBrokenOff(line)) {
      broken = line;
    } else if (telling.empty() ||
               (Contains(line, "error:") && !Contains(telling, "error:"))) {
      telling = line;
    }
  }
  if (!telling.empty()) {
    return {Code::kUnknown, Scope::kUnknown, Worded(telling, ""),
            StorePathIn(telling, store_dir)};
  }
  if (!broken.empty()) {
    return {Code::kUnavailable, Scope::kUnknown,
            Worded(broken, "the other side broke off"), ""};
  }
  return {Code::kUnknown, Scope::kUnknown, "it failed without a word", ""};
}

SshFailure ClassifyRunFailure(const absl::Status& status) {
  const std::string text{status.message()};
  if (status.code() == Code::kDeadlineExceeded) {
    return {status.code(), Scope::kTarget, text, ""};
  }
  return {Code::kUnavailable, Scope::kTarget, text, ""};
}

}  // namespace nixq
