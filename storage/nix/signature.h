// Ed25519 signatures on narinfo fingerprints, and the keys that make them.
//
// Key files hold one line, `name:base64`, as `nix-store
// --generate-binary-cache-key` writes them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "storage/nix/path_info.h"

namespace nixq {

// The text that signatures cover:
// `1;<path>;sha256:<nix32>;<nar size>;<references, comma separated, sorted>`.
std::string Fingerprint(const StoreDir& store_dir, const PathInfo& info);

// A secret key, in memory that is locked, kept out of core dumps and wiped.
// Immutable after loading; Sign is thread-safe.
class SecretKey {
 public:
  // Reads a key file (trailing white space allowed). Errors never contain
  // the key: NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT.
  static absl::StatusOr<SecretKey> Load(const std::string& file);
  static absl::StatusOr<SecretKey> Parse(std::string_view text);

  const std::string& name() const { return name_; }
  // "name:base64" of the public half, as trusted-public-keys has it.
  std::string PublicKeyText() const;
  // "name:base64" of the detached signature (RFC 8032) over `message`.
  std::string Sign(std::string_view message) const;

 private:
  struct Wipe {
    void operator()(unsigned char* key) const;
  };
  SecretKey() = default;
  std::string name_;
  std::unique_ptr<unsigned char, Wipe> key_;  // 64 bytes, from sodium_malloc
};

class PublicKey {
 public:
  static absl::StatusOr<PublicKey> Parse(std::string_view text);
  const std::string& name() const { return name_; }
  // True if `signature` ("name:base64") is by this key over `message`.
  bool Verify(std::string_view message, std::string_view signature) const;

 private:
  PublicKey() = default;
  std::string name_;
  std::string key_;  // 32 bytes
};

}  // namespace nixq
