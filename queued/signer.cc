#include "queued/signer.h"

#include <utility>
#include <vector>

#include "storage/base/status.h"

namespace nixq {
namespace {

// Makes `signature` the only one of its key's name, and tells whether it is
// new. What another of that name says, an older key's or one over other
// contents, nobody believes who trusts this key: signatures are deterministic.
bool Replace(PathInfo& info, const std::string& key_name,
             const std::string& signature) {
  bool is_new = true;
  std::erase_if(info.signatures, [&](const std::string& found) {
    if (found == signature) is_new = false;
    return found.starts_with(key_name + ":");
  });
  info.signatures.push_back(signature);
  return is_new;
}

}  // namespace

absl::StatusOr<std::vector<SecretKey>> Signer::LoadKeys(
    const std::vector<std::string>& files) {
  std::vector<SecretKey> keys;
  for (const std::string& file : files) {
    absl::StatusOr<SecretKey> key = SecretKey::Load(file);
    if (!key.ok()) return Annotate(key.status(), "signing key " + file);
    keys.push_back(*std::move(key));
  }
  return keys;
}

Signer::Signer(std::vector<SecretKey> keys, StoreDir store_dir, Store& store,
               Log& log)
    : keys_(std::move(keys)),
      store_dir_(std::move(store_dir)),
      store_(store),
      log_(log) {}

absl::Status Signer::Sign(const std::vector<PathInfo*>& infos) {
  std::vector<std::pair<StorePath, std::vector<std::string>>> added;
  for (PathInfo* info : infos) {
    std::vector<std::string> fresh;
    for (const SecretKey& key : keys_) {
      std::string signature = key.Sign(Fingerprint(store_dir_, *info));
      if (Replace(*info, key.name(), signature)) {
        fresh.push_back(std::move(signature));
      }
    }
    if (fresh.empty()) continue;
    added.emplace_back(info->path, std::move(fresh));
  }
  if (added.empty()) return absl::OkStatus();
  absl::Status status = store_.AddSignatures(added);
  store_refuses_ = absl::IsPermissionDenied(status);
  if (absl::IsPermissionDenied(status)) {
    if (!refusal_said_.exchange(true)) {
      log_.Warning("store-not-signed",
                   {{"why", std::string(status.message())},
                    {"hint", "add the daemon's user to trusted-users"}});
    }
    return absl::OkStatus();
  }
  return status;
}

}  // namespace nixq
