#include "queued/config.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_format.h"
#include "queued/config_document.h"
#include "queued/config_keys.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/nix/store_path.h"

// The parser asserts, and with NDEBUG has the compiler assume, that a table's
// name is there before it checks that it is: "[=]" would abort or worse. What
// follows the assertions is sound without them.
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ASSERT(condition) static_assert(true)
#pragma push_macro("NDEBUG")
#undef NDEBUG
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

namespace nixq {
namespace {

constexpr size_t kMaxFileBytes = size_t{1024} * 1024;
// toml++ recurses once for each dot of a key, and a key ends with its line.
constexpr size_t kMaxKeyLineBytes = 4096;
// No key lies deeper than an array in a table in the array of targets.
constexpr int kMaxDepth = 5;
constexpr std::string_view kSystemStateDir = "/var/lib/nix-queued";

ConfigPosition PositionOf(const toml::source_position& position) {
  return {std::max<int>(1, static_cast<int>(position.line)),
          std::max<int>(1, static_cast<int>(position.column))};
}

ConfigNode NodeOf(const toml::node& from, int depth);

void AddEntries(const toml::table& table, int depth, ConfigNode& node) {
  for (auto&& [key, value] : table) {
    node.entries.push_back({std::string(key.str()),
                            PositionOf(key.source().begin),
                            NodeOf(value, depth + 1)});
  }
  std::sort(node.entries.begin(), node.entries.end(),
            [](const ConfigEntry& a, const ConfigEntry& b) {
              return std::tie(a.position.line, a.position.column) <
                     std::tie(b.position.line, b.position.column);
            });
}

ConfigNode NodeOf(const toml::node& from, int depth) {
  ConfigNode node;
  node.position = PositionOf(from.source().begin);
  if (depth > kMaxDepth) return node;
  if (const auto* text = from.as_string()) {
    node.kind = ConfigNode::Kind::kString;
    node.text = text->get();
  } else if (const auto* integer = from.as_integer()) {
    node.kind = ConfigNode::Kind::kInteger;
    node.integer = integer->get();
  } else if (const auto* boolean = from.as_boolean()) {
    node.kind = ConfigNode::Kind::kBoolean;
    node.boolean = boolean->get();
  } else if (const auto* array = from.as_array()) {
    node.kind = ConfigNode::Kind::kArray;
    for (const toml::node& item : *array) {
      node.items.push_back(NodeOf(item, depth + 1));
    }
  } else if (const auto* table = from.as_table()) {
    node.kind = ConfigNode::Kind::kTable;
    AddEntries(*table, depth, node);
  }
  return node;
}

// What the parser would take, but not within bounds.
std::optional<ConfigPosition> TooLongLine(std::string_view text) {
  int line = 1;
  size_t start = 0;
  while (start < text.size()) {
    size_t end = std::min(text.find('\n', start), text.size());
    if (end - start > kMaxKeyLineBytes) {
      return ConfigPosition{line, static_cast<int>(kMaxKeyLineBytes)};
    }
    start = end + 1;
    ++line;
  }
  return std::nullopt;
}

std::optional<ConfigNode> ParseToml(std::string_view text,
                                    const std::string& file,
                                    ConfigProblems& problems) {
  if (text.size() > kMaxFileBytes) {
    problems.Add(
        {}, absl::StrFormat("the file is longer than %d bytes", kMaxFileBytes));
    return std::nullopt;
  }
  if (auto position = TooLongLine(text)) {
    problems.Add(*position, absl::StrFormat("the line is longer than %d bytes",
                                            kMaxKeyLineBytes));
    return std::nullopt;
  }
  toml::parse_result result = toml::parse(text, file);
  if (!result) {
    problems.Add(PositionOf(result.error().source().begin),
                 Printable(result.error().description(), 500));
    return std::nullopt;
  }
  return NodeOf(result.table(), 0);
}

// The variable's value; one that is not absolute is reported and not taken.
std::string DirectoryVariable(const Surroundings& surroundings,
                              std::string_view name, ConfigProblems& problems) {
  std::string value = surroundings.Variable(name);
  if (value.empty() || value.front() == '/') return value;
  problems.Add({}, absl::StrFormat("the environment's %s must be an absolute "
                                   "path, not \"%s\"",
                                   std::string(name), Printable(value, 80)));
  return "";
}

std::string FirstOf(const std::string& a, const std::string& b,
                    const std::string& c = "") {
  if (!a.empty()) return a;
  return b.empty() ? c : b;
}

void FillPlaces(const Surroundings& surroundings, ConfigProblems& problems,
                Config& config) {
  auto variable = [&](std::string_view name) {
    return DirectoryVariable(surroundings, name, problems);
  };
  std::string default_state_dir = config.file == kSystemConfigFile
                                      ? std::string(kSystemStateDir)
                                      : DefaultStateDir(surroundings);
  config.state_dir = FirstOf(variable("NIX_QUEUED_STATE_DIR"), config.state_dir,
                             default_state_dir);
  if (config.store_dir.empty()) {
    absl::StatusOr<StoreDir> store_dir =
        StoreDir::FromEnvironment(surroundings.Variable("NIX_STORE_DIR"),
                                  surroundings.Variable("NIX_STORE"));
    if (store_dir.ok()) {
      config.store_dir = store_dir->path();
    } else {
      problems.Add({},
                   absl::StrFormat("the environment's NIX_STORE_DIR: %s",
                                   std::string(store_dir.status().message())));
    }
  }
  config.real_store_dir = FirstOf(config.real_store_dir, config.store_dir);
  config.nix_state_dir =
      FirstOf(config.nix_state_dir, variable("NIX_STATE_DIR"), "/nix/var/nix");
  config.nix_daemon_socket =
      FirstOf(config.nix_daemon_socket, variable("NIX_DAEMON_SOCKET_PATH"),
              config.nix_state_dir + "/daemon-socket/socket");
  config.roots_directory =
      FirstOf(variable("NIX_QUEUED_ROOTS_DIR"), config.roots_directory,
              config.nix_state_dir + "/gcroots/arm-cache");
}

void FillProxies(const Surroundings& surroundings, Config& config) {
  auto variable = [&](std::string_view name) {
    return surroundings.Variable(name);
  };
  std::string all = FirstOf(variable("all_proxy"), variable("ALL_PROXY"));
  // HTTP_PROXY in capitals is what a CGI server makes of a client's header.
  config.http_proxy = FirstOf(variable("http_proxy"), all);
  config.https_proxy =
      FirstOf(variable("https_proxy"), variable("HTTPS_PROXY"), all);
  config.no_proxy = FirstOf(variable("no_proxy"), variable("NO_PROXY"));
}

}  // namespace

ParsedConfig ParseConfig(std::string_view text, const std::string& file,
                         const Surroundings& surroundings) {
  ParsedConfig parsed;
  parsed.config.file = file;
  ConfigProblems problems(file);
  ConfigScope scope{problems, surroundings.Variable("CREDENTIALS_DIRECTORY")};
  if (auto root = ParseToml(text, file, problems)) {
    ReadSections(*root, scope, parsed.config);
    ReadTargets(*root, scope, parsed.config);
  }
  FillPlaces(surroundings, problems, parsed.config);
  FillProxies(surroundings, parsed.config);
  parsed.problems = problems.Take();
  return parsed;
}

absl::StatusOr<Config> LoadConfig(const std::string& file,
                                  const Surroundings& surroundings) {
  NIXQ_ASSIGN_OR_RETURN(std::string text, ReadFile(file, kMaxFileBytes));
  ParsedConfig parsed = ParseConfig(text, file, surroundings);
  if (parsed.problems.empty()) return std::move(parsed.config);
  std::vector<std::string> lines;
  lines.reserve(parsed.problems.size());
  for (const ConfigProblem& problem : parsed.problems) {
    lines.push_back(problem.text);
  }
  return absl::InvalidArgumentError(Join(lines, "\n"));
}

}  // namespace nixq
