#include "queued/target.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "queued/seen_caches.h"
#include "queued/sender_name.h"
#include "storage/base/status.h"
#include "storage/cache/directory_cache.h"
#include "storage/cache/http_cache.h"

namespace nixq {
namespace {

constexpr size_t kMostKnownPaths = 200'000;
constexpr absl::Duration kKnownFor = absl::Hours(1);
constexpr std::string_view kFileScheme = "file://";
constexpr std::string_view kLocalScheme = "local:";

int Cores() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

void KnownPaths::ForgetIfStale(absl::Time now) {
  if (now - since_ < kKnownFor && paths_.size() < kMostKnownPaths) return;
  paths_.clear();
  since_ = now;
}

bool KnownPaths::Contains(const StorePath& path, absl::Time now) {
  std::lock_guard lock(mutex_);
  ForgetIfStale(now);
  return paths_.contains(path);
}

void KnownPaths::Add(const StorePath& path, absl::Time now) {
  std::lock_guard lock(mutex_);
  ForgetIfStale(now);
  paths_.insert(path);
}

void KnownPaths::Forget() {
  std::lock_guard lock(mutex_);
  paths_.clear();
}

Target::Target(int64_t id, TargetConfig config, const Config& daemon_config,
               std::vector<std::string> child_environment, HttpClient& http,
               Random& random)
    : id_(id),
      config_(std::move(config)),
      daemon_config_(daemon_config),
      child_environment_(std::move(child_environment)),
      http_(http),
      random_(random) {}

TargetLimits Target::Limits() const {
  TargetLimits limits;
  switch (config_.kind) {
    case TargetKind::kDirectory:
    case TargetKind::kHttp:
      limits.flow = TargetLimits::Flow::kGraph;
      break;
    case TargetKind::kLocal:
      limits.flow = TargetLimits::Flow::kVerify;
      break;
    case TargetKind::kSsh:
      limits.flow = TargetLimits::Flow::kBatch;
      limits.window = static_cast<size_t>(config_.batch_paths);
      limits.batch_bytes = config_.batch_bytes;
      break;
  }
  limits.in_flight = std::min(daemon_config_.uploads, config_.max_connections);
  limits.large_in_flight =
      daemon_config_.compressions > 0 ? daemon_config_.compressions : Cores();
  return limits;
}

HttpOptions Target::MakeHttpOptions(const std::string& url,
                                    bool credentials) const {
  HttpOptions options;
  if (credentials) {
    options.netrc_file = config_.netrc_file;
    options.bearer_token_file = config_.bearer_token_file;
    options.client_certificate_file = config_.client_certificate_file;
    options.client_key_file = config_.client_key_file;
  }
  options.ca_file = config_.ca_file;
  options.proxy = url.starts_with("https:") ? daemon_config_.https_proxy
                                            : daemon_config_.http_proxy;
  options.no_proxy = daemon_config_.no_proxy;
  options.connect_limit = config_.connect_limit;
  options.stall_limit = config_.stall_limit;
  options.max_connections = config_.max_connections;
  return options;
}

absl::StatusOr<std::unique_ptr<BlobStore>> Target::OpenBlobs(
    const std::string& url) {
  if (url.starts_with(kFileScheme)) {
    return OpenDirectoryStore(url.substr(kFileScheme.size()), random_,
                              LoadSenderName(daemon_config_.state_dir));
  }
  return MakeHttpStore(url, MakeHttpOptions(url, /*credentials=*/true), http_);
}

absl::Status Target::Prepare(const Cancellation& cancel) {
  std::lock_guard lock(mutex_);
  absl::Status status;
  if (!prepared_) {
    status = PrepareLocked(cancel);
    prepared_ = status.ok();
  } else if (config_.kind == TargetKind::kDirectory) {
    status = cache_->Prepare(/*create=*/false, cancel);
    if (!status.ok()) {
      known_.Forget();
      // The same, with what to do about it.
      absl::Status seen = CheckCacheSeen(
          daemon_config_.state_dir, config_.url.substr(kFileScheme.size()));
      if (!seen.ok()) status = std::move(seen);
    }
  }
  return Annotate(status, "target " + config_.name);
}

absl::Status Target::PrepareLocked(const Cancellation& cancel) {
  NIXQ_ASSIGN_OR_RETURN(StoreDir store_dir,
                        StoreDir::Parse(daemon_config_.store_dir));
  if (config_.kind == TargetKind::kSsh) {
    SshOptions options{
        .store_dir = store_dir,
        .url = config_.url,
        .key_file = config_.ssh_key_file,
        .known_hosts_file = config_.ssh_known_hosts_file,
        .ssh_options = config_.ssh_options,
        .remote_program = config_.ssh_remote_program,
        .remote_store = config_.ssh_remote_store,
        .substitute_on_destination = config_.substitute_on_destination,
        .closure = config_.closure,
        .pin_remote = config_.pin_remote,
        .remote_roots_directory = config_.remote_roots_directory,
        .sender = LoadSenderName(daemon_config_.state_dir),
        .connect_limit = config_.connect_limit,
        .environment = child_environment_};
    options.stall_limit = std::max(config_.stall_limit, absl::Seconds(1));
    if (!daemon_config_.nix_bin_dir.empty()) {
      options.nix_program = daemon_config_.nix_bin_dir + "/nix";
    }
    NIXQ_ASSIGN_OR_RETURN(SshCache ssh, SshCache::Make(std::move(options)));
    ssh_.emplace(std::move(ssh));
    return absl::OkStatus();
  }
  return MakeCache(store_dir, cancel);
}

absl::Status Target::MakeCache(const StoreDir& store_dir,
                               const Cancellation& cancel) {
  std::string url = config_.url;
  const bool local = config_.kind == TargetKind::kLocal;
  if (local) url = url.substr(kLocalScheme.size());
  if (local && url.empty()) return absl::OkStatus();
  BinaryCacheOptions options{.store_dir = store_dir,
                             .real_store_dir = daemon_config_.real_store_dir,
                             .compression = config_.compression,
                             .priority = config_.priority,
                             .want_mass_query = config_.want_mass_query,
                             .threads = Cores()};
  const std::string directory =
      url.starts_with(kFileScheme) ? url.substr(kFileScheme.size()) : "";
  if (!directory.empty()) {
    NIXQ_RETURN_IF_ERROR(CheckCacheSeen(daemon_config_.state_dir, directory));
  }
  NIXQ_ASSIGN_OR_RETURN(std::unique_ptr<BlobStore> blobs, OpenBlobs(url));
  auto cache = std::make_unique<BinaryCache>(options, std::move(blobs));
  NIXQ_RETURN_IF_ERROR(cache->Prepare(/*create=*/!local, cancel));
  if (!directory.empty()) {
    NoteCacheSeen(daemon_config_.state_dir, directory);
  }
  std::vector<std::unique_ptr<BinaryCache>> upstreams;
  for (const std::string& upstream : config_.upstreams) {
    NIXQ_ASSIGN_OR_RETURN(
        std::unique_ptr<BlobStore> upstream_blobs,
        MakeHttpStore(upstream, MakeHttpOptions(upstream, false), http_));
    upstreams.push_back(
        std::make_unique<BinaryCache>(options, std::move(upstream_blobs)));
  }
  cache_ = std::move(cache);
  upstreams_ = std::move(upstreams);
  return absl::OkStatus();
}

}  // namespace nixq
