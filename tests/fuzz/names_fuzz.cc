// ParseSha256, StorePath and StoreDir, on what an environment or a row holds.
#include <string>
#include <string_view>

#include "storage/nix/hash.h"
#include "storage/nix/store_path.h"
#include "tests/fuzz/fuzz.h"

namespace {

void CheckHash(std::string_view text) {
  const auto digest = nixq::ParseSha256(text);
  if (!digest.ok()) return;
  nixq::Require(
      *nixq::ParseSha256(nixq::ToBase16(*digest)) == *digest &&
          *nixq::ParseSha256(nixq::ToPrefixedNix32(*digest)) == *digest,
      "a digest comes back");
}

void CheckPaths(const nixq::StoreDir& store, std::string_view text) {
  if (const auto path = nixq::StorePath::FromBaseName(text); path.ok()) {
    nixq::Require(path->base_name() == text, "a name is itself");
    nixq::Require(*store.ParsePath(store.Print(*path)) == *path,
                  "a path comes back");
  }
  if (const auto path = store.ParsePath(text); path.ok()) {
    nixq::Require(store.Print(*path) == text, "a full path is itself");
    nixq::Require(*store.PathContaining(text) == *path,
                  "a path contains itself");
  }
  if (const auto path = store.PathContaining(text); path.ok()) {
    nixq::Require(text.starts_with(store.Print(*path)),
                  "what lies in a path begins with it");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const nixq::StoreDir store = *nixq::StoreDir::Parse("/nix/store");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckHash(text);
  CheckPaths(store, text);
  if (const auto dir = nixq::StoreDir::FromEnvironment(text, ""); dir.ok()) {
    nixq::Require(*nixq::StoreDir::Parse(dir->path()) == *dir,
                  "a store directory comes back");
    CheckPaths(*dir, text);
  }
  return 0;
}
