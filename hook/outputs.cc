#include "hook/outputs.h"

#include <sys/stat.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/text.h"
#include "storage/queue/nix_database.h"

namespace nixq {
namespace {

constexpr size_t kMaxRefusalBytes = 300;

void SortUnique(std::vector<StorePath>& paths) {
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
}

std::string Refusal(const char* variable, const absl::Status& why) {
  return absl::StrFormat(
      "refused in %s: %s", variable,
      Printable(std::string(why.message()), kMaxRefusalBytes));
}

void ParseOutPaths(const HookSettings& settings, BuildOutputs& outputs,
                   Complaints& complaints) {
  std::string_view rest = settings.out_paths;
  if (rest.size() > kMaxOutPathsBytes) {
    // The token that the limit cuts through goes too.
    rest = rest.substr(0, kMaxOutPathsBytes);
    size_t last_space = rest.rfind(' ');
    rest = rest.substr(0, last_space == rest.npos ? 0 : last_space);
    outputs.out_paths_empty = false;
    complaints.Add(absl::StrFormat(
        "OUT_PATHS has %d bytes; only the first %d are looked at",
        settings.out_paths.size(), kMaxOutPathsBytes));
  }
  const std::string prefix = settings.store_dir.path() + "/";
  // Nix separates with spaces; any other white space is part of a bad name.
  while (!rest.empty()) {
    size_t space = rest.find(' ');
    std::string_view token = rest.substr(0, space);
    rest.remove_prefix(space == rest.npos ? rest.size() : space + 1);
    if (token.empty()) continue;
    outputs.out_paths_empty = false;
    // Explaining each of 100,000 tokens would take longer than we have.
    if (complaints.full() && !token.starts_with(prefix)) {
      complaints.AddUnshown();
      continue;
    }
    absl::StatusOr<StorePath> path = settings.store_dir.ParsePath(token);
    if (path.ok()) {
      outputs.named.push_back(*std::move(path));
    } else {
      complaints.Add(Refusal("OUT_PATHS", path.status()));
    }
  }
  SortUnique(outputs.named);
}

void ParseDrvPath(const HookSettings& settings, BuildOutputs& outputs,
                  Complaints& complaints) {
  if (settings.drv_path.empty()) return;
  absl::StatusOr<StorePath> path =
      settings.store_dir.ParsePath(settings.drv_path);
  if (path.ok() && !path->IsDerivation()) {
    path = absl::InvalidArgumentError(
        absl::StrFormat("'%s' is not a derivation", path->base_name()));
  }
  if (path.ok()) {
    outputs.derivation = *std::move(path);
  } else {
    complaints.Add(Refusal("DRV_PATH", path.status()));
  }
}

std::string RealPath(const HookSettings& settings, const StorePath& path) {
  return settings.real_store_dir + "/" + path.base_name();
}

// The name that Nix gives the store path of an output: that of the derivation
// for "out", with "-<output>" for others.
std::string OutputPathName(const StorePath& derivation,
                           const std::string& output) {
  std::string_view name = derivation.name();
  name.remove_suffix(std::string_view(".drv").size());
  return output == "out" ? std::string(name) : std::string(name) + "-" + output;
}

// What is known of a .drv: nothing if it could not be read or understood.
struct DerivationText {
  bool read = false;
  bool absent = false;
  DerivationSummary summary;
};

DerivationText ReadDerivation(const HookSettings& settings,
                              const StorePath& derivation) {
  DerivationText result;
  absl::StatusOr<std::string> text =
      ReadFile(RealPath(settings, derivation), kMaxDerivationBytes);
  result.absent = absl::IsNotFound(text.status());
  if (!text.ok()) return result;
  absl::StatusOr<DerivationSummary> summary =
      ParseDerivation(settings.store_dir, *text);
  if (!summary.ok()) return result;
  result.read = true;
  result.summary = *std::move(summary);
  return result;
}

// Whether there is a path of each of these names.
bool AllNamed(const std::vector<std::string>& names,
              const BuildOutputs& outputs) {
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    const auto has_it = [&](const StorePath& path) {
      return path.name() == name;
    };
    return std::any_of(outputs.named.begin(), outputs.named.end(), has_it) ||
           std::any_of(outputs.found.begin(), outputs.found.end(), has_it);
  });
}

// Returns whether the database could be read; if not, more may be missing.
bool AddRegistered(const HookSettings& settings, BuildOutputs& outputs) {
  absl::StatusOr<std::vector<StorePath>> registered = RegisteredOutputs(
      settings.nix_state_dir, settings.store_dir, *outputs.derivation);
  if (!registered.ok()) return false;
  outputs.found.insert(outputs.found.end(), registered->begin(),
                       registered->end());
  return true;
}

}  // namespace

void Complaints::Add(std::string line) {
  if (full()) {
    AddUnshown();
  } else {
    lines_.push_back(std::move(line));
  }
}

std::vector<std::string> Complaints::Lines() const {
  std::vector<std::string> lines = lines_;
  if (more_ > 0) lines.push_back(absl::StrFormat("and %d more like it", more_));
  return lines;
}

BuildOutputs ParseEnvironment(const HookSettings& settings,
                              Complaints& complaints) {
  BuildOutputs outputs;
  ParseOutPaths(settings, outputs, complaints);
  ParseDrvPath(settings, outputs, complaints);
  return outputs;
}

void FindOutputs(const HookSettings& settings, BuildOutputs& outputs) {
  if (!outputs.derivation.has_value()) return;
  DerivationText text = ReadDerivation(settings, *outputs.derivation);
  std::vector<std::string> open_names;
  for (const DerivationOutput& output : text.summary.outputs) {
    if (!output.path.has_value()) {
      open_names.push_back(OutputPathName(*outputs.derivation, output.name));
    } else if (struct stat ignored;
               lstat(RealPath(settings, *output.path).c_str(), &ignored) == 0) {
      outputs.found.push_back(*output.path);
    }
  }
  if (!text.read || !AllNamed(open_names, outputs)) {
    const bool told = AddRegistered(settings, outputs);
    // Of a .drv that is not there nobody can ask for more, once Nix's database
    // has told.
    outputs.ask_daemon = text.absent && told
                             ? outputs.named.empty() && outputs.found.empty()
                             : !text.read || !AllNamed(open_names, outputs);
  }
  SortUnique(outputs.found);
  std::erase_if(outputs.found, [&](const StorePath& path) {
    return std::binary_search(outputs.named.begin(), outputs.named.end(), path);
  });
}

std::vector<InboxEntry> InboxEntries(const HookSettings& settings,
                                     const BuildOutputs& outputs,
                                     int64_t now_unix_ms) {
  InboxEntry entry;
  entry.created_unix_ms = now_unix_ms;
  if (outputs.derivation.has_value()) {
    entry.deriver = settings.store_dir.Print(*outputs.derivation);
  }
  std::vector<InboxEntry> entries;
  entries.reserve(outputs.named.size() + outputs.found.size() + 1);
  for (const StorePath& path : outputs.named) {
    entry.path = settings.store_dir.Print(path);
    entries.push_back(entry);
  }
  entry.named = outputs.out_paths_empty;
  for (const StorePath& path : outputs.found) {
    entry.path = settings.store_dir.Print(path);
    entries.push_back(entry);
  }
  if (outputs.ask_daemon && outputs.derivation.has_value()) {
    entry.kind = InboxKind::kDerivation;
    entry.path = entry.deriver;
    entry.deriver.clear();
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace nixq
