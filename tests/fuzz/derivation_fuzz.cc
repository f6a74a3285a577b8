// ParseDerivation, on what a hook may be pointed at.
#include <string>
#include <string_view>

#include "storage/nix/derivation.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const nixq::StoreDir store = *nixq::StoreDir::Parse("/nix/store");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto summary = nixq::ParseDerivation(store, text);
  if (!summary.ok()) {
    nixq::Require(summary.status().code() == absl::StatusCode::kInvalidArgument,
                  "a text is a derivation or an invalid argument");
    return 0;
  }
  nixq::Require(!summary->outputs.empty(), "a derivation has outputs");
  bool all_known = true;
  for (const nixq::DerivationOutput& output : summary->outputs) {
    nixq::Require(!output.name.empty(), "an output has a name");
    all_known = all_known && output.path.has_value();
    nixq::Require(
        !output.path || store.ParsePath(store.Print(*output.path)).ok(),
        "an output's path is one");
  }
  nixq::Require(all_known == summary->OutputsAreStatic(),
                "static is all known");
  return 0;
}
