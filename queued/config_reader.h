// Reading typed values out of a configuration, with a good answer for every
// mistake.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "queued/config_document.h"

namespace nixq {

// What reading needs beside the value itself.
struct ConfigScope {
  ConfigProblems& problems;
  // Replaces $CREDENTIALS_DIRECTORY at the start of file names; "" leaves
  // them as they are written.
  std::string credentials_directory;
};

// Checks one string; the error's message goes on the sentence "'key' ...".
using TextCheck = absl::Status (*)(std::string_view text);

// One `key = value`. Every reader gives nullopt after having reported why the
// value is not what it must be.
class ConfigValue {
 public:
  ConfigValue(const ConfigEntry& entry, const ConfigScope& scope)
      : entry_(entry), scope_(scope) {}

  const std::string& key() const { return entry_.key; }
  const ConfigNode& node() const { return entry_.value; }

  std::optional<bool> Boolean() const;
  // Both bounds included.
  std::optional<int64_t> Integer(int64_t least, int64_t most) const;
  // Not empty, without control characters, and as `check` wants it.
  std::optional<std::string> Text(TextCheck check = nullptr) const;
  std::optional<std::vector<std::string>> Texts(
      TextCheck check = nullptr) const;
  // The index of the text in `choices`.
  std::optional<size_t> Choice(
      const std::vector<std::string_view>& choices) const;
  // An absolute path without "." and ".."; trailing slashes are dropped.
  std::optional<std::string> Directory() const;
  // An absolute path, or one below $CREDENTIALS_DIRECTORY.
  std::optional<std::string> File() const;
  std::optional<std::vector<std::string>> Files() const;
  // "500ms", "30s", "5m", "12h", "30d"; both bounds included.
  std::optional<absl::Duration> Duration(absl::Duration least,
                                         absl::Duration most) const;
  // Bytes as an integer or as text: "2 GiB". At least 1.
  std::optional<uint64_t> Size() const;

  // Reports "'key' " and `what`, where the value stands.
  void Problem(std::string_view what) const;

 private:
  std::optional<std::string> TextOf(const ConfigNode& node,
                                    TextCheck check) const;
  std::optional<std::string> FileOf(const ConfigNode& node) const;
  void ProblemAt(const ConfigNode& node, std::string_view what) const;
  void WrongKind(const ConfigNode& node, std::string_view wanted) const;

  const ConfigEntry& entry_;
  const ConfigScope& scope_;
};

// Puts what was read, if it was, where it belongs.
template <typename T, typename V>
void Assign(T& into, std::optional<V> value) {
  if (value) into = static_cast<T>(*std::move(value));
}

// The one of `known` that `word` probably meant, by edit distance.
std::optional<std::string_view> Closest(
    std::string_view word, const std::vector<std::string_view>& known);

// "500ms", "30s", "5m", "12h", "30d"; nullopt for anything else.
std::optional<absl::Duration> ParseDuration(std::string_view text);

// As the file would have it, in the largest unit that divides it: "90s".
std::string DurationText(absl::Duration duration);

// "a string", "an integer", "a table"...
std::string_view KindName(const ConfigNode& node);

}  // namespace nixq
