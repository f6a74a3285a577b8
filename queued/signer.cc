#include "queued/signer.h"

#include <algorithm>
#include <utility>

#include "storage/base/status.h"

namespace nixq {
namespace {

bool HasSignatureOf(const PathInfo& info, const std::string& key_name) {
  return std::any_of(info.signatures.begin(), info.signatures.end(),
                     [&](const std::string& signature) {
                       return signature.starts_with(key_name + ":");
                     });
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
      if (!HasSignatureOf(*info, key.name())) {
        fresh.push_back(key.Sign(Fingerprint(store_dir_, *info)));
      }
    }
    if (fresh.empty()) continue;
    info->signatures.insert(info->signatures.end(), fresh.begin(), fresh.end());
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
