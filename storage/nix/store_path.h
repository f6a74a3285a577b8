// The names of store objects: `<store dir>/<32 nix32 characters>-<name>`.
#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace nixq {

// The alphabet of Nix's base 32: no e, o, t, u.
inline constexpr std::string_view kNix32Alphabet =
    "0123456789abcdfghijklmnpqrsvwxyz";

// The base name of a store path, checked: 32 characters of nix32, '-', and a
// name of 1 to 211 characters of [0-9A-Za-z+\-._?=], not "." nor "..".
// Compares bytewise, which is the order of fingerprints and NAR references.
class StorePath {
 public:
  static constexpr size_t kHashPartLength = 32;
  static constexpr size_t kMaxNameLength = 211;

  // INVALID_ARGUMENT says which rule `base_name` breaks.
  static absl::StatusOr<StorePath> FromBaseName(std::string_view base_name);

  const std::string& base_name() const { return base_name_; }
  std::string_view hash_part() const {
    return std::string_view(base_name_).substr(0, kHashPartLength);
  }
  std::string_view name() const {
    return std::string_view(base_name_).substr(kHashPartLength + 1);
  }
  bool IsDerivation() const { return base_name_.ends_with(".drv"); }

  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 sees a 0 in it.
  auto operator<=>(const StorePath&) const = default;
  bool operator==(const StorePath&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const StorePath& path) {
    return H::combine(std::move(h), path.base_name_);
  }

 private:
  explicit StorePath(std::string base_name)
      : base_name_(std::move(base_name)) {}
  std::string base_name_;
};

// A store directory, such as /nix/store: turns full paths into StorePaths and
// back. Absolute, no trailing slash, no "." or ".." components.
class StoreDir {
 public:
  static absl::StatusOr<StoreDir> Parse(std::string_view path);
  // $NIX_STORE_DIR, else $NIX_STORE, else /nix/store, where each is given as
  // the value of that variable ("" if unset).
  static absl::StatusOr<StoreDir> FromEnvironment(std::string_view store_dir,
                                                  std::string_view store);

  const std::string& path() const { return path_; }
  std::string Print(const StorePath& path) const {
    return path_ + "/" + path.base_name();
  }
  // A store path exactly: no trailing slash, nothing below it.
  absl::StatusOr<StorePath> ParsePath(std::string_view full_path) const;
  // The store path that `full_path` is or lies in (`<path>/bin/sh`).
  absl::StatusOr<StorePath> PathContaining(std::string_view full_path) const;

  bool operator==(const StoreDir&) const = default;

 private:
  explicit StoreDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace nixq

template <>
struct std::hash<nixq::StorePath> {
  size_t operator()(const nixq::StorePath& path) const noexcept {
    return std::hash<std::string>()(path.base_name());
  }
};
