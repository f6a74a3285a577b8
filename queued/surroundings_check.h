// Whether the configuration fits what others assume who do not read it: Nix's
// garbage collector, and the hook.
#pragma once

#include <string>

#include "queued/config.h"

namespace nixq {

// Why links in the roots directory hold nothing; "" if they do. Nix's collector
// walks `gcroots` and `profiles` of its state directory, and follows no
// symlinked directories there.
std::string RootsTrouble(const Config& config);

// Where the hook writes that Nix runs, unless the environment of nix-daemon
// says otherwise. It runs as the owner of the store.
struct HookPlaces {
  std::string state_dir;
  std::string roots_directory;
};
HookPlaces HookDefaults(const Config& config, const Surroundings& surroundings);

// Whether two directories are the same place, or the same name.
bool SamePlace(const std::string& one, const std::string& other);

}  // namespace nixq
