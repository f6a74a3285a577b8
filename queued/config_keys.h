// The keys of queued.toml.
//
// Each table's keys are one array of ConfigKey: it reads the table, finds what
// a misspelt key meant, and is what queued.toml(5) is compared with.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "queued/config.h"
#include "queued/config_document.h"
#include "queued/config_reader.h"

namespace nixq {

template <typename T>
struct ConfigKey {
  std::string_view name;
  void (*read)(const ConfigValue& value, T& into);
};

// All keys: those of the top level as they are, others with their table,
// "nix.store-dir", "target.url".
std::vector<std::string> ConfigKeys();

// Reads everything but the targets into `config`.
void ReadSections(const ConfigNode& root, const ConfigScope& scope,
                  Config& config);

// Reads `target`, which has to be there, into `config`.
void ReadTargets(const ConfigNode& root, const ConfigScope& scope,
                 Config& config);
std::vector<std::string_view> TargetKeyNames();

// Reports a key that `table` ("" for the top level), which knows `known`,
// does not know.
void ReportUnknownKey(const ConfigEntry& entry, std::string_view table,
                      const std::vector<std::string_view>& known,
                      const ConfigScope& scope);

// A Nix system such as "x86_64-linux": a TextCheck.
absl::Status CheckSystem(std::string_view text);

}  // namespace nixq
