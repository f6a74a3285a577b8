// Signs paths with every configured key, once, here and in the local store.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/log.h"
#include "storage/nix/signature.h"
#include "storage/nix/store.h"

namespace nixq {

// Thread-safe. Without keys everything is a no-op.
class Signer {
 public:
  // Reads the key files. Errors name the file, never its contents.
  static absl::StatusOr<std::vector<SecretKey>> LoadKeys(
      const std::vector<std::string>& files);

  // `store` and `log` must outlive this object.
  Signer(std::vector<SecretKey> keys, StoreDir store_dir, Store& store,
         Log& log);

  // Adds the missing signatures to each of `infos` and to the local store, so
  // that whatever serves the store serves them signed. Signatures of our keys'
  // names that are not our keys' leave `infos`; the store keeps them. A store
  // that refuses (Nix before 2.17 wants a trusted user) is a warning, said
  // once: binary caches get the signatures all the same. Blocks on the store.
  // UNAVAILABLE and alike: the store cannot be asked now.
  absl::Status Sign(const std::vector<PathInfo*>& infos);

  bool has_keys() const { return !keys_.empty(); }

  // Whether the local store did not let us add the signatures last time.
  bool store_refuses() const { return store_refuses_; }

 private:
  std::vector<SecretKey> keys_;
  StoreDir store_dir_;
  Store& store_;
  Log& log_;
  std::atomic<bool> store_refuses_{false};
  std::atomic<bool> refusal_said_{false};
};

}  // namespace nixq
