// Small fakes that the daemon's tests share.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/nix/store.h"
#include "storage/queue/queue.h"

namespace nixq {

inline StoreDir TestStoreDir() { return *StoreDir::Parse("/nix/store"); }

// "aaa...a-<name>", its hash part made from `name` so that names differ.
inline StorePath TestPath(const std::string& name) {
  std::string hash;
  uint64_t seed = 1469598103934665603ull;
  for (char c : name) seed = (seed ^ static_cast<uint8_t>(c)) * 1099511628211u;
  for (size_t i = 0; i < StorePath::kHashPartLength; ++i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    hash += kNix32Alphabet[(seed >> 33) % kNix32Alphabet.size()];
  }
  return *StorePath::FromBaseName(hash + "-" + name);
}

inline PathInfo TestInfo(const std::string& name, uint64_t nar_size,
                         const std::vector<std::string>& references = {}) {
  PathInfo info{.path = TestPath(name),
                .nar_hash = Sha256::Of(name),
                .nar_size_bytes = nar_size,
                .references = {},
                .deriver = std::nullopt,
                .registration_time = absl::UnixEpoch(),
                .ultimate = true,
                .signatures = {},
                .content_address = ""};
  for (const std::string& reference : references) {
    info.references.push_back(TestPath(reference));
  }
  std::sort(info.references.begin(), info.references.end());
  return info;
}

// Time that goes on only when told to.
class FakeClock : public Clock {
 public:
  absl::Time Now() override { return now_; }
  void Advance(absl::Duration duration) { now_ += duration; }

 private:
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
};

// Seeded: a test that prints its seed can be run again.
class SeededRandom : public Random {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed * 2 + 1) {}
  double NextUnit() override {
    return static_cast<double>(Next() >> 11) * 0x1.0p-53;
  }
  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15ull;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

// A store in memory.
class FakeStore : public Store {
 public:
  void Add(PathInfo info) {
    StorePath path = info.path;
    paths.insert_or_assign(std::move(path), std::move(info));
  }

  absl::StatusOr<std::vector<std::optional<PathInfo>>> QueryPathInfos(
      const std::vector<StorePath>& wanted) override {
    if (!status.ok()) return status;
    std::vector<std::optional<PathInfo>> infos;
    for (const StorePath& path : wanted) {
      if (unreadable.contains(path)) {
        return BlamePath(
            absl::UnavailableError(path.base_name() + " is odd to Nix"));
      }
      auto it = paths.find(path);
      infos.push_back(it == paths.end() ? std::nullopt
                                        : std::optional<PathInfo>(it->second));
    }
    return infos;
  }
  absl::StatusOr<std::map<std::string, std::optional<StorePath>>>
  QueryDerivationOutputs(const StorePath&) override {
    return absl::NotFoundError("no derivations here");
  }
  absl::Status AddSignatures(
      const std::vector<std::pair<StorePath, std::vector<std::string>>>&
          signatures) override {
    if (!sign_status.ok()) return sign_status;
    for (const auto& [path, added] : signatures) {
      auto& all = paths.at(path).signatures;
      all.insert(all.end(), added.begin(), added.end());
    }
    return absl::OkStatus();
  }
  absl::Status AddTempRoots(const std::vector<StorePath>&) override {
    return status;
  }
  absl::StatusOr<std::vector<StorePath>> QueryAllValidPaths() override {
    std::vector<StorePath> all;
    for (const auto& [path, info] : paths) all.push_back(path);
    return all;
  }

  std::map<StorePath, PathInfo> paths;
  std::set<StorePath> unreadable;  // the daemon has trouble with these
  absl::Status status;
  absl::Status sign_status;
};

}  // namespace nixq
