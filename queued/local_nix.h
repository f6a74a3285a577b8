// How the daemon's configuration turns into the things that it names: the
// local store's client and the environment of children.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "queued/config.h"
#include "storage/nix/daemon_client.h"

namespace nixq {

// The whole environment of `nix` and `ssh` children: where Nix is (its own
// variables, as configured), a PATH, a home below the state directory. None
// of our variables, no NIX_CONFIG, no credentials.
std::vector<std::string> ChildEnvironment(const Config& config,
                                          const Surroundings& surroundings);

// A client for the configured store: the daemon's socket, or a child speaking
// the same protocol where nobody listens there.
std::unique_ptr<DaemonClient> MakeDaemonClient(const Config& config,
                                               const Surroundings& surroundings,
                                               const StoreDir& store_dir);

}  // namespace nixq
