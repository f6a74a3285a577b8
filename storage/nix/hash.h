// SHA-256 and the text forms in which Nix writes it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace nixq {

using Sha256Digest = std::array<uint8_t, 32>;

// SHA-256 of a stream (libcrypto, which uses the CPU's SHA instructions).
// Single use: Update any number of times, Finish once. One thread at a time.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void Update(std::string_view bytes);
  Sha256Digest Finish();

  static Sha256Digest Of(std::string_view bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 64 lowercase hexadecimal digits.
std::string ToBase16(const Sha256Digest& digest);
// 52 characters of Nix's base 32.
std::string ToNix32(const Sha256Digest& digest);
// "sha256:<nix32>", as narinfos and fingerprints have it.
std::string ToPrefixedNix32(const Sha256Digest& digest);

// Reads every form: base16, nix32 or base64, bare, after "sha256:" or (SRI)
// after "sha256-". INVALID_ARGUMENT for another algorithm, length or alphabet.
absl::StatusOr<Sha256Digest> ParseSha256(std::string_view text);

}  // namespace nixq
