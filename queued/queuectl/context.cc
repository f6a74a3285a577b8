#include "queued/queuectl/context.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

// Where systemd has put what LoadCredential= of the service names. Root may
// look there, and a person who runs queuectl does not have the variable.
constexpr char kServiceCredentials[] = "/run/credentials/nix-queued.service";

// As many as Linux follows.
constexpr int kMostLinks = 40;

void KnowCredentials(Surroundings& surroundings) {
  if (access(kServiceCredentials, F_OK) == 0) {
    surroundings.variables.emplace("CREDENTIALS_DIRECTORY",
                                   kServiceCredentials);
  }
}

// The contents of a symlink; nullopt for what is none, or is not there.
std::optional<std::string> ReadLink(const std::string& file) {
  std::string target(PATH_MAX, '\0');
  const ssize_t size = readlink(file.c_str(), target.data(), target.size());
  if (size <= 0) return std::nullopt;
  target.resize(static_cast<size_t>(size));
  return target;
}

// The first store path on the way of `argument` through its symlinks. One link
// is followed at a time, since an output may itself be a link to another one.
// NOT_FOUND: the way does not lead into the store. INVALID_ARGUMENT: it does
// not end.
absl::StatusOr<StorePath> FollowToStore(const StoreDir& store_dir,
                                        const std::string& argument) {
  std::unique_ptr<char, decltype(&free)> here(realpath(".", nullptr), &free);
  std::string behind;  // without symlinks; "" is the root
  if (here != nullptr && !argument.starts_with('/')) behind = here.get();
  if (behind == "/") behind.clear();
  std::string ahead = argument;
  int links = 0;
  while (true) {
    ahead.erase(0, std::min(ahead.find_first_not_of('/'), ahead.size()));
    absl::StatusOr<StorePath> found =
        store_dir.PathContaining(absl::StrFormat("%s/%s", behind, ahead));
    if (found.ok()) return found;
    if (ahead.empty()) break;
    const std::string name = ahead.substr(0, ahead.find('/'));
    ahead.erase(0, name.size());
    if (name == ".") continue;
    if (name == "..") {
      behind.erase(std::min(behind.rfind('/'), behind.size()));
      continue;
    }
    std::string entry = absl::StrFormat("%s/%s", behind, name);
    std::optional<std::string> target = ReadLink(entry);
    if (!target.has_value()) {
      behind = std::move(entry);
      continue;
    }
    if (++links > kMostLinks) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: more than %d symlinks, or a loop of them",
                          argument, kMostLinks));
    }
    if (target->starts_with('/')) behind.clear();
    ahead.insert(0, *target);
  }
  return absl::NotFoundError(argument + ": not in the store");
}

}  // namespace

Context::Context(Config config, Surroundings surroundings, StoreDir store_dir,
                 bool json)
    : config_(std::move(config)),
      surroundings_(std::move(surroundings)),
      store_dir_(std::move(store_dir)),
      json_(json),
      now_(SystemClock().Now()) {}

absl::StatusOr<Context> Context::Make(const std::string& config_file,
                                      const std::string& state_dir, bool json) {
  Surroundings surroundings = SurroundingsOfProcess();
  KnowCredentials(surroundings);
  const std::string file =
      config_file.empty() ? DefaultConfigFile(surroundings) : config_file;
  absl::StatusOr<Config> config = LoadConfig(file, surroundings);
  if (absl::IsNotFound(config.status()) && config_file.empty()) {
    // No file at all: everything as it is by default, and no targets.
    ParsedConfig defaults = ParseConfig("", file, surroundings);
    config = std::move(defaults.config);
  }
  NIXQ_RETURN_IF_ERROR(config.status());
  if (!state_dir.empty()) config->state_dir = state_dir;
  NIXQ_ASSIGN_OR_RETURN(StoreDir store_dir, StoreDir::Parse(config->store_dir));
  return Context(*std::move(config), std::move(surroundings),
                 std::move(store_dir), json);
}

QueueOptions Context::queue_options() const {
  QueueOptions options;
  options.state_dir = config_.state_dir;
  return options;
}

absl::StatusOr<std::string> Context::Resolve(
    const std::string& argument) const {
  absl::StatusOr<StorePath> path = store_dir_.PathContaining(argument);
  if (path.ok()) return store_dir_.Print(*path);
  if (argument.find('/') == std::string::npos) {
    path = StorePath::FromBaseName(argument);
    if (path.ok()) return store_dir_.Print(*path);
  }
  path = FollowToStore(store_dir_, argument);
  if (path.ok()) return store_dir_.Print(*path);
  if (!absl::IsNotFound(path.status())) return path.status();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: neither a store path nor a link to one (the store is %s)", argument,
      store_dir_.path()));
}

absl::StatusOr<std::vector<std::string>> Context::ResolveAll(
    const std::vector<std::string>& arguments) const {
  std::vector<std::string> paths;
  for (const std::string& argument : arguments) {
    NIXQ_ASSIGN_OR_RETURN(std::string path, Resolve(argument));
    paths.push_back(std::move(path));
  }
  return paths;
}

int Complain(const absl::Status& status) {
  fprintf(stderr, "queuectl: %s\n", std::string(status.message()).c_str());
  return kExitFailed;
}

void PrintJson(const nlohmann::json& document, int indent) {
  printf("%s\n",
         document
             .dump(indent, ' ', false, nlohmann::json::error_handler_t::replace)
             .c_str());
}

std::string HumanDuration(absl::Duration duration) {
  constexpr int64_t kHour = 3600;
  const int64_t seconds = absl::ToInt64Seconds(duration);
  if (seconds < 1) {
    return absl::StrFormat("%d ms", absl::ToInt64Milliseconds(duration));
  }
  if (seconds < 120) return absl::StrFormat("%d s", seconds);
  if (seconds < 2 * kHour) return absl::StrFormat("%d min", seconds / 60);
  if (seconds < 48 * kHour) return absl::StrFormat("%d h", seconds / kHour);
  return absl::StrFormat("%d d", seconds / (24 * kHour));
}

std::string HumanTime(absl::Time time) {
  if (time <= absl::UnixEpoch()) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", time, absl::UTCTimeZone());
}

std::string HumanWhen(absl::Time time, absl::Time now) {
  return time <= now ? "now" : "in " + HumanDuration(time - now);
}

void PrintTable(const std::vector<std::string>& headings,
                const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> lines = {headings};
  std::vector<bool> right;
  for (std::string& heading : lines.front()) {
    right.push_back(heading.starts_with(">"));
    if (right.back()) heading.erase(0, 1);
  }
  lines.insert(lines.end(), rows.begin(), rows.end());
  std::vector<size_t> widths(headings.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], line[i].size());
    }
  }
  for (const auto& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      text += right[i] ? padding + line[i] : line[i] + padding;
      text += "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    printf("%s\n", text.c_str());
  }
}

}  // namespace nixq
