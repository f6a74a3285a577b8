// The command lines of `nix copy` and `ssh`: what may be in them, and how.
//
// A value passes through Nix's splitting of NIX_SSHOPTS, a URL, ssh's own
// parser and the other machine's shell. So each is checked against what all
// of them leave alone, and refused rather than quoted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nixq {

struct SshOptions;

// ssh://[user@]host[:port][?compress=true], or ssh-ng://; taken apart.
struct SshAddress {
  std::string scheme;  // "ssh" or "ssh-ng"
  std::string user;    // "" the default
  std::string host;    // an IPv6 address without its brackets
  std::string port;    // "" the default
  bool compress = false;

  // INVALID_ARGUMENT says what is wrong.
  static absl::StatusOr<SshAddress> Parse(std::string_view url);

  // What ssh takes: user@host.
  std::string Destination() const;
};

// Everything in `options` that ends up in a command line or in a script.
absl::Status ValidateSshOptions(const SshOptions& options);

// After how many bytes ssh is told to change its keys: often enough for a
// line of its log within a stall limit at 64 KiB a second.
uint64_t RekeyBytes(absl::Duration stall_limit);

// Options of ssh that both it and NIX_SSHOPTS take, without white space
// in any.
std::vector<std::string> SshArguments(const SshOptions& options,
                                      const SshAddress& address);

// The store as Nix's command line names it, without the port, which Nix 2.8
// does not know; the remote program and store are its parameters.
std::string StoreUrl(const SshOptions& options, const SshAddress& address);

// The environment of `nix`: what `options` gives without what would lead
// around it (NIX_CONFIG, SSH_ASKPASS and alike), and NIX_SSHOPTS.
std::vector<std::string> NixEnvironment(const SshOptions& options,
                                        const SshAddress& address);
// The same for `ssh`.
std::vector<std::string> SshEnvironment(const SshOptions& options);

}  // namespace nixq
