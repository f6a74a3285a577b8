// ParseNarInfo and ParseCacheInfo, on what a cache may answer.
#include <string>
#include <string_view>

#include "storage/nix/narinfo.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const nixq::StoreDir store = *nixq::StoreDir::Parse("/nix/store");
  const std::string_view text(reinterpret_cast<const char*>(data), size);

  if (const auto info = nixq::ParseCacheInfo(text); info.ok()) {
    const std::string formatted = nixq::FormatCacheInfo(*info);
    const auto again = nixq::ParseCacheInfo(formatted);
    nixq::Require(again.ok() && nixq::FormatCacheInfo(*again) == formatted,
                  "a nix-cache-info comes back");
  }

  const auto narinfo = nixq::ParseNarInfo(store, text);
  if (!narinfo.ok()) {
    nixq::Require(narinfo.status().code() == absl::StatusCode::kInvalidArgument,
                  "a text is a narinfo or an invalid argument");
    return 0;
  }
  nixq::Require(narinfo->info.nar_size_bytes > 0 && !narinfo->url.empty(),
                "what is required is there");
  const std::string formatted = nixq::FormatNarInfo(store, *narinfo);
  const auto again = nixq::ParseNarInfo(store, formatted);
  nixq::Require(again.ok(), "a narinfo comes back");
  nixq::Require(nixq::FormatNarInfo(store, *again) == formatted,
                "a narinfo comes back the same");
  return 0;
}
