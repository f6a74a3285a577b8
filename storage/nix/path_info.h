// What a Nix store knows about a valid path.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "storage/nix/hash.h"
#include "storage/nix/store_path.h"

namespace nixq {

struct PathInfo {
  StorePath path;
  Sha256Digest nar_hash{};
  uint64_t nar_size_bytes = 0;
  std::vector<StorePath> references;  // sorted; has `path` if self-referring
  std::optional<StorePath> deriver;
  absl::Time registration_time;
  bool ultimate = false;                // built here
  std::vector<std::string> signatures;  // "name:base64"
  std::string content_address;          // "" unless content-addressed
};

}  // namespace nixq
