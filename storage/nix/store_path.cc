#include "storage/nix/store_path.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_format.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

// What of a refused text is worth showing.
constexpr size_t kShownBytes = 80;
constexpr size_t kMaxStoreDirBytes = 4096;

// One lookup for a byte instead of a search: every token of every hook and
// every reference of every narinfo passes here.
using ByteSet = std::array<bool, 256>;

constexpr ByteSet SetOf(std::string_view members) {
  ByteSet set{};
  for (const char c : members) set[static_cast<unsigned char>(c)] = true;
  return set;
}

constexpr ByteSet kHashBytes = SetOf(kNix32Alphabet);
constexpr ByteSet kNameBytes = SetOf(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-._?=");

bool AllIn(const ByteSet& set, std::string_view text) {
  return std::all_of(text.begin(), text.end(), [&set](char c) {
    return set[static_cast<unsigned char>(c)];
  });
}

absl::Status Invalid(std::string_view kind, std::string_view text,
                     std::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrFormat("'%s' is not a %s: %s", Printable(text, kShownBytes),
                      std::string(kind), std::string(why)));
}

// Why `path` is no store directory; "" if it is one.
std::string_view StoreDirFault(std::string_view path) {
  if (path.empty() || path.front() != '/') return "it is not absolute";
  if (path.size() > kMaxStoreDirBytes) return "it is too long";
  if (path.back() == '/') return "it ends in a slash";
  if (std::any_of(path.begin(), path.end(), [](char c) {
        return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
      })) {
    return "it has control characters";
  }
  for (const std::string& component : Split(path.substr(1), '/')) {
    if (component.empty()) return "it has an empty component";
    if (component == "." || component == "..") {
      return "it has a component '.' or '..'";
    }
  }
  return "";
}

// `path` without doubled and trailing slashes and "." components, which Nix
// takes in its environment variables.
std::string WithoutNoise(std::string_view path) {
  std::string clean;
  for (const std::string& component : Split(path, '/')) {
    if (component.empty() || component == ".") continue;
    clean += '/';
    clean += component;
  }
  return clean;
}

}  // namespace

absl::StatusOr<StorePath> StorePath::FromBaseName(std::string_view base_name) {
  constexpr std::string_view kKind = "store path name";
  if (base_name.size() < kHashPartLength + 2) {
    return Invalid(kKind, base_name, "it is too short");
  }
  if (!AllIn(kHashBytes, base_name.substr(0, kHashPartLength))) {
    return Invalid(kKind, base_name,
                   "its first 32 characters are not all base 32 of Nix");
  }
  if (base_name[kHashPartLength] != '-') {
    return Invalid(kKind, base_name, "there is no '-' after 32 characters");
  }
  const std::string_view name = base_name.substr(kHashPartLength + 1);
  if (name.size() > kMaxNameLength) {
    return Invalid(kKind, base_name, "its name is longer than 211 characters");
  }
  if (!AllIn(kNameBytes, name)) {
    return Invalid(kKind, base_name,
                   "its name has a character outside [0-9A-Za-z+-._?=]");
  }
  if (name == "." || name == "..") {
    return Invalid(kKind, base_name, "its name is '.' or '..'");
  }
  return StorePath(std::string(base_name));
}

absl::StatusOr<StoreDir> StoreDir::Parse(std::string_view path) {
  const std::string_view fault = StoreDirFault(path);
  if (!fault.empty()) return Invalid("store directory", path, fault);
  return StoreDir(std::string(path));
}

absl::StatusOr<StoreDir> StoreDir::FromEnvironment(std::string_view store_dir,
                                                   std::string_view store) {
  const std::string_view given = store_dir.empty() ? store : store_dir;
  if (given.empty()) return Parse("/nix/store");
  if (given.front() != '/' || given.size() > kMaxStoreDirBytes) {
    return Parse(given);
  }
  return Parse(WithoutNoise(given));
}

absl::StatusOr<StorePath> StoreDir::ParsePath(
    std::string_view full_path) const {
  const std::string_view text = full_path;
  if (!full_path.starts_with(path_) || full_path.size() == path_.size() ||
      full_path[path_.size()] != '/') {
    return Invalid("store path", text,
                   absl::StrFormat("it is not in %s", path_));
  }
  full_path.remove_prefix(path_.size() + 1);
  if (full_path.find('/') != std::string_view::npos) {
    return Invalid("store path", text, "it lies below one");
  }
  return StorePath::FromBaseName(full_path);
}

absl::StatusOr<StorePath> StoreDir::PathContaining(
    std::string_view full_path) const {
  // "<path>/../other" lies in no store path, whatever it starts with.
  for (size_t at = full_path.find("/.."); at != std::string_view::npos;
       at = full_path.find("/..", at + 1)) {
    if (at + 3 == full_path.size() || full_path[at + 3] == '/') {
      return Invalid("path in the store", full_path, "it has a component '..'");
    }
  }
  const size_t end = full_path.find('/', path_.size() + 1);
  return ParsePath(full_path.substr(0, end));
}

}  // namespace nixq
