#include "queued/config_reader.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_format.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr std::string_view kCredentials = "$CREDENTIALS_DIRECTORY/";
constexpr size_t kMaxPathBytes = 4096;

// How a value is shown in a message.
std::string Quoted(std::string_view text) {
  return "\"" + Printable(text, 80) + "\"";
}

bool HasControlCharacter(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

// "..." and "." as whole components only; "a..b" is a name like others.
bool HasDotComponent(std::string_view path) {
  for (const std::string& piece : Split(path, '/')) {
    if (piece == "." || piece == "..") return true;
  }
  return false;
}

absl::Status CheckAbsolutePath(std::string_view text) {
  if (text.starts_with("~")) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "must be an absolute path; '~' is not expanded in %s", Quoted(text)));
  }
  if (text.starts_with("$")) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "must be an absolute path; no variable is expanded here in %s",
        Quoted(text)));
  }
  if (!text.starts_with("/")) {
    return absl::InvalidArgumentError(
        absl::StrFormat("must be an absolute path, not %s", Quoted(text)));
  }
  if (HasDotComponent(text)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("must be a path without '.' and '..' components, "
                        "not %s",
                        Quoted(text)));
  }
  if (text.size() >= kMaxPathBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("must be a path of less than %d bytes", kMaxPathBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckFile(std::string_view text) {
  if (text.starts_with(kCredentials)) {
    return CheckAbsolutePath(text.substr(kCredentials.size() - 1));
  }
  if (text.starts_with("$")) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "must be an absolute path; only $CREDENTIALS_DIRECTORY/ is expanded, "
        "not %s",
        Quoted(text)));
  }
  if (text.ends_with("/")) {
    return absl::InvalidArgumentError(
        absl::StrFormat("must be a file, not the directory %s", Quoted(text)));
  }
  return CheckAbsolutePath(text);
}

std::string WithoutTrailingSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

struct Unit {
  std::string_view name;
  uint64_t factor;
};
constexpr std::array<Unit, 5> kTimeUnits = {{{"ms", 1},
                                             {"s", 1000},
                                             {"m", 60'000},
                                             {"h", 3'600'000},
                                             {"d", 86'400'000}}};
constexpr std::array<Unit, 5> kSizeUnits = {{{"B", 1},
                                             {"KiB", 1ull << 10},
                                             {"MiB", 1ull << 20},
                                             {"GiB", 1ull << 30},
                                             {"TiB", 1ull << 40}}};

// A decimal and a unit, multiplied, at most `most`.
template <size_t kUnits>
std::optional<uint64_t> ParseWithUnit(std::string_view text,
                                      const std::array<Unit, kUnits>& units,
                                      uint64_t most) {
  size_t digits = text.find_first_not_of("0123456789");
  if (digits == std::string_view::npos) return std::nullopt;
  std::optional<uint64_t> number = ParseUint(text.substr(0, digits));
  std::string_view name = Trim(text.substr(digits));
  for (const Unit& unit : units) {
    if (unit.name != name || !number) continue;
    if (*number > most / unit.factor) return std::nullopt;
    return *number * unit.factor;
  }
  return std::nullopt;
}

// Optimal string alignment: insert, delete, replace, swap neighbours.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> before;
  std::vector<size_t> last(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replaced, last[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before = std::exchange(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::optional<std::string_view> Closest(
    std::string_view word, const std::vector<std::string_view>& known) {
  constexpr size_t kLongest = 64;
  if (word.size() > kLongest) return std::nullopt;
  std::optional<std::string_view> best;
  size_t best_distance = std::min<size_t>(3, word.size() / 4 + 1) + 1;
  for (std::string_view candidate : known) {
    size_t distance = EditDistance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string DurationText(absl::Duration duration) {
  uint64_t ms = static_cast<uint64_t>(absl::ToInt64Milliseconds(duration));
  for (auto unit = kTimeUnits.rbegin(); unit != kTimeUnits.rend(); ++unit) {
    if (ms >= unit->factor && ms % unit->factor == 0) {
      return absl::StrFormat("%d%s", ms / unit->factor,
                             std::string(unit->name));
    }
  }
  return "0s";
}

std::string_view KindName(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kString:
      return "a string";
    case ConfigNode::Kind::kInteger:
      return "an integer";
    case ConfigNode::Kind::kBoolean:
      return "a boolean";
    case ConfigNode::Kind::kArray:
      return "an array";
    case ConfigNode::Kind::kTable:
      return "a table";
    case ConfigNode::Kind::kOther:
      break;
  }
  return "a float or a date";
}

void ConfigValue::ProblemAt(const ConfigNode& node,
                            std::string_view what) const {
  scope_.problems.Add(
      node.position, absl::StrFormat("'%s' %s", entry_.key, std::string(what)));
}

void ConfigValue::Problem(std::string_view what) const {
  ProblemAt(entry_.value, what);
}

void ConfigValue::WrongKind(const ConfigNode& node,
                            std::string_view wanted) const {
  ProblemAt(node, absl::StrFormat("must be %s, not %s", std::string(wanted),
                                  std::string(KindName(node))));
}

std::optional<bool> ConfigValue::Boolean() const {
  if (node().kind != ConfigNode::Kind::kBoolean) {
    WrongKind(node(), "true or false");
    return std::nullopt;
  }
  return node().boolean;
}

std::optional<int64_t> ConfigValue::Integer(int64_t least, int64_t most) const {
  if (node().kind != ConfigNode::Kind::kInteger) {
    WrongKind(node(), "an integer");
    return std::nullopt;
  }
  if (node().integer < least || node().integer > most) {
    Problem(absl::StrFormat("must be from %d to %d, not %d", least, most,
                            node().integer));
    return std::nullopt;
  }
  return node().integer;
}

std::optional<std::string> ConfigValue::TextOf(const ConfigNode& node,
                                               TextCheck check) const {
  if (node.kind != ConfigNode::Kind::kString) {
    WrongKind(node, "a string");
    return std::nullopt;
  }
  if (node.text.empty()) {
    ProblemAt(node, "must not be empty");
    return std::nullopt;
  }
  if (HasControlCharacter(node.text)) {
    ProblemAt(node, "must not contain line ends or control characters");
    return std::nullopt;
  }
  if (check != nullptr) {
    if (absl::Status status = check(node.text); !status.ok()) {
      ProblemAt(node, std::string(status.message()));
      return std::nullopt;
    }
  }
  return node.text;
}

std::optional<std::string> ConfigValue::Text(TextCheck check) const {
  return TextOf(node(), check);
}

std::optional<std::vector<std::string>> ConfigValue::Texts(
    TextCheck check) const {
  if (node().kind != ConfigNode::Kind::kArray) {
    WrongKind(node(), "an array of strings");
    return std::nullopt;
  }
  std::vector<std::string> texts;
  for (const ConfigNode& item : node().items) {
    if (auto text = TextOf(item, check)) texts.push_back(*std::move(text));
  }
  return texts;
}

std::optional<size_t> ConfigValue::Choice(
    const std::vector<std::string_view>& choices) const {
  std::string wanted;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) wanted += i + 1 == choices.size() ? " or " : ", ";
    wanted += Quoted(choices[i]);
  }
  if (node().kind != ConfigNode::Kind::kString) {
    WrongKind(node(), wanted);
    return std::nullopt;
  }
  auto found = std::find(choices.begin(), choices.end(), node().text);
  if (found != choices.end()) {
    return static_cast<size_t>(found - choices.begin());
  }
  std::string problem =
      absl::StrFormat("must be %s, not %s", wanted, Quoted(node().text));
  if (auto meant = Closest(node().text, choices)) {
    problem += "; did you mean " + Quoted(*meant) + "?";
  }
  Problem(problem);
  return std::nullopt;
}

std::optional<std::string> ConfigValue::Directory() const {
  std::optional<std::string> text = TextOf(node(), CheckAbsolutePath);
  if (!text) return std::nullopt;
  return WithoutTrailingSlashes(*std::move(text));
}

std::optional<std::string> ConfigValue::FileOf(const ConfigNode& node) const {
  std::optional<std::string> text = TextOf(node, CheckFile);
  if (text && text->starts_with(kCredentials) &&
      !scope_.credentials_directory.empty()) {
    return scope_.credentials_directory + text->substr(kCredentials.size() - 1);
  }
  return text;
}

std::optional<std::string> ConfigValue::File() const { return FileOf(node()); }

std::optional<std::vector<std::string>> ConfigValue::Files() const {
  if (node().kind != ConfigNode::Kind::kArray) {
    WrongKind(node(), "an array of strings");
    return std::nullopt;
  }
  std::vector<std::string> files;
  for (const ConfigNode& item : node().items) {
    if (auto file = FileOf(item)) files.push_back(*std::move(file));
  }
  return files;
}

std::optional<absl::Duration> ParseDuration(std::string_view text) {
  const std::optional<uint64_t> ms = ParseWithUnit(text, kTimeUnits, INT64_MAX);
  if (!ms) return std::nullopt;
  return absl::Milliseconds(static_cast<int64_t>(*ms));
}

std::optional<absl::Duration> ConfigValue::Duration(absl::Duration least,
                                                    absl::Duration most) const {
  constexpr std::string_view kWanted =
      "a duration such as \"30s\" (units: ms, s, m, h, d)";
  if (node().kind != ConfigNode::Kind::kString) {
    WrongKind(node(), kWanted);
    return std::nullopt;
  }
  std::optional<absl::Duration> duration = ParseDuration(node().text);
  if (!duration) {
    Problem(absl::StrFormat("must be %s, not %s", std::string(kWanted),
                            Quoted(node().text)));
    return std::nullopt;
  }
  if (*duration < least || *duration > most) {
    Problem(absl::StrFormat("must be from \"%s\" to \"%s\", not %s",
                            DurationText(least), DurationText(most),
                            Quoted(node().text)));
    return std::nullopt;
  }
  return duration;
}

std::optional<uint64_t> ConfigValue::Size() const {
  constexpr std::string_view kWanted =
      "a number of bytes, or a size such as \"2 GiB\" (units: B, KiB, MiB, "
      "GiB, TiB)";
  std::optional<uint64_t> bytes;
  if (node().kind == ConfigNode::Kind::kInteger) {
    if (node().integer > 0) bytes = static_cast<uint64_t>(node().integer);
  } else if (node().kind == ConfigNode::Kind::kString) {
    bytes = ParseWithUnit(node().text, kSizeUnits, INT64_MAX);
    if (!bytes) {
      Problem(absl::StrFormat("must be %s, not %s", std::string(kWanted),
                              Quoted(node().text)));
      return std::nullopt;
    }
  } else {
    WrongKind(node(), kWanted);
    return std::nullopt;
  }
  if (!bytes || *bytes == 0) {
    Problem("must be at least 1 byte");
    return std::nullopt;
  }
  return bytes;
}

}  // namespace nixq
