// One configured target as the daemon holds it: how to reach it, and what it
// is known to have.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "queued/config.h"
#include "queued/scheduler.h"
#include "storage/base/clock.h"
#include "storage/cache/binary_cache.h"
#include "storage/cache/http_client.h"
#include "storage/cache/ssh_cache.h"

namespace nixq {

// Paths that a cache has shown lately, so that it is not asked again for every
// build that references them. Forgets everything once an hour, or when it has
// grown too large: a cache may lose paths behind our back. Thread-safe.
class KnownPaths {
 public:
  bool Contains(const StorePath& path, absl::Time now);
  void Add(const StorePath& path, absl::Time now);
  void Forget();

 private:
  void ForgetIfStale(absl::Time now);

  std::mutex mutex_;
  std::unordered_set<StorePath> paths_;
  absl::Time since_ = absl::InfinitePast();
};

// Thread-safe once made. Workers use it while the daemon lives.
class Target {
 public:
  // `http` and `random` must outlive the target. Looks at nothing yet.
  Target(int64_t id, TargetConfig config, const Config& daemon_config,
         std::vector<std::string> child_environment, HttpClient& http,
         Random& random);

  int64_t id() const { return id_; }
  const TargetConfig& config() const { return config_; }
  TargetLimits Limits() const;

  // Opens what is to be opened (the directory, the upstreams) and makes sure
  // that there is a cache of our store directory. Blocks. Once it has
  // succeeded it only looks whether a directory is still there: UNAVAILABLE if
  // not, and what was known to be there is forgotten.
  absl::Status Prepare(const Cancellation& cancel);

  // After Prepare, for everything but SSH.
  BinaryCache& cache() { return *cache_; }
  // The target is the local store itself ("local:"): what is signed is done,
  // and there is no cache().
  bool only_signs() const { return config_.url == "local:"; }
  std::vector<std::unique_ptr<BinaryCache>>& upstreams() { return upstreams_; }
  SshCache& ssh() { return *ssh_; }
  KnownPaths& known() { return known_; }

 private:
  absl::StatusOr<std::unique_ptr<BlobStore>> OpenBlobs(const std::string& url);
  absl::Status PrepareLocked(const Cancellation& cancel);
  absl::Status MakeCache(const StoreDir& store_dir, const Cancellation& cancel);
  HttpOptions MakeHttpOptions(const std::string& url, bool credentials) const;

  const int64_t id_;
  const TargetConfig config_;
  const Config& daemon_config_;
  const std::vector<std::string> child_environment_;
  HttpClient& http_;
  Random& random_;
  KnownPaths known_;

  std::mutex mutex_;
  bool prepared_ = false;
  std::unique_ptr<BinaryCache> cache_;
  std::vector<std::unique_ptr<BinaryCache>> upstreams_;
  std::optional<SshCache> ssh_;
};

}  // namespace nixq
