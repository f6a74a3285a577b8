// A configuration file as a tree of plain values that know where they stand.
//
// config.cc makes it from what toml++ has parsed; everything that gives the
// values a meaning works on this tree and knows nothing of the parser.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "queued/config.h"

namespace nixq {

// Both count from 1; columns count characters.
struct ConfigPosition {
  int line = 1;
  int column = 1;
};

struct ConfigEntry;

struct ConfigNode {
  // kOther: what no key takes (floats, dates, what is nested too deeply).
  enum class Kind { kString, kInteger, kBoolean, kArray, kTable, kOther };

  Kind kind = Kind::kOther;
  ConfigPosition position;
  std::string text;  // of a string
  int64_t integer = 0;
  bool boolean = false;
  std::vector<ConfigNode> items;     // of an array
  std::vector<ConfigEntry> entries;  // of a table, in the file's order

  // nullptr: there is no such key.
  const ConfigEntry* Find(std::string_view key) const;
};

struct ConfigEntry {
  std::string key;
  ConfigPosition position;
  ConfigNode value;
};

inline const ConfigEntry* ConfigNode::Find(std::string_view key) const {
  for (const ConfigEntry& entry : entries) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

// Collects what is wrong with one file. Bounded: after kMost problems the
// rest is only counted.
class ConfigProblems {
 public:
  static constexpr size_t kMost = 100;

  explicit ConfigProblems(std::string file) : file_(std::move(file)) {}

  void Add(ConfigPosition position, std::string text) {
    if (found_.size() < kMost) {
      found_.push_back({position, std::move(text)});
    } else {
      ++more_;
    }
  }

  // In the file's order.
  std::vector<ConfigProblem> Take() {
    std::stable_sort(found_.begin(), found_.end(),
                     [](const Found& a, const Found& b) {
                       return std::tie(a.position.line, a.position.column) <
                              std::tie(b.position.line, b.position.column);
                     });
    std::vector<ConfigProblem> problems;
    problems.reserve(found_.size() + 1);
    for (const Found& found : found_) {
      problems.push_back(
          {absl::StrFormat("%s:%d:%d: %s", file_, found.position.line,
                           found.position.column, found.text)});
    }
    if (more_ > 0) {
      problems.push_back({absl::StrFormat("%s: and %d more", file_, more_)});
    }
    return problems;
  }

 private:
  struct Found {
    ConfigPosition position;
    std::string text;
  };
  std::string file_;
  std::vector<Found> found_;
  int more_ = 0;
};

}  // namespace nixq
