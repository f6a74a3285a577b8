#include "storage/cache/nix_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "storage/base/text.h"

namespace nixq {
namespace {

using Json = nlohmann::json;

// Numbers of Nix's logger, the same in all versions.
constexpr uint64_t kActivityCopyPath = 100;
constexpr uint64_t kResultProgress = 105;
constexpr uint64_t kLevelWarning = 1;

constexpr size_t kMaxWords = 100;  // at either end
constexpr size_t kMaxActivities = 10000;
constexpr size_t kMaxLineBytes = 4096;

std::optional<uint64_t> Number(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) {
    return std::nullopt;
  }
  // Identifiers use the upper half too, and may be written as negative.
  return found->is_number_unsigned()
             ? found->get<uint64_t>()
             : static_cast<uint64_t>(found->get<int64_t>());
}

std::string Text(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return "";
  return found->get<std::string>();
}

// One line of it: messages may have several.
std::string OneLine(std::string_view text) {
  std::string line;
  for (std::string_view word : SplitWords(text)) {
    if (!line.empty()) line += ' ';
    line += word;
  }
  return line.substr(0, kMaxLineBytes);
}

}  // namespace

bool NixLog::Add(std::string_view line) {
  constexpr std::string_view kNix = "@nix ";
  if (line.starts_with(kNix)) return AddActivity(line.substr(kNix.size()));
  if (line.starts_with("debug")) {
    const bool rekeyed =
        line.find("SSH2_MSG_NEWKEYS sent") != std::string_view::npos;
    rekeys_ += rekeyed ? 1 : 0;
    return rekeyed;
  }
  Keep(OneLine(line));
  return false;
}

bool NixLog::AddActivity(std::string_view json) {
  const Json event = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object()) return false;
  const std::string action = Text(event, "action");
  if (action == "msg") {
    if (Number(event, "level").value_or(0) <= kLevelWarning) {
      Keep(OneLine(Text(event, "msg")));
    }
    return false;
  }
  const auto id = Number(event, "id");
  if (!id.has_value()) return false;
  if (action == "start") {
    if (Number(event, "type") == kActivityCopyPath &&
        copying_.size() < kMaxActivities) {
      copying_.emplace(*id, 0);
    }
    return false;
  }
  const auto copying = copying_.find(*id);
  if (copying == copying_.end()) return false;
  if (action == "stop") {
    finished_bytes_ += copying->second;
    copying_.erase(copying);
    return false;
  }
  if (action != "result" || Number(event, "type") != kResultProgress) {
    return false;
  }
  const auto fields = event.find("fields");
  if (fields == event.end() || !fields->is_array() || fields->empty() ||
      !fields->front().is_number_unsigned()) {
    return false;
  }
  const auto done = fields->front().get<uint64_t>();
  const bool more = done > copying->second;
  copying->second = std::max(copying->second, done);
  return more;
}

uint64_t NixLog::bytes_sent() const {
  uint64_t told = finished_bytes_;
  for (const auto& [id, bytes] : copying_) told += bytes;
  // The first keys are those of the beginning.
  return told > 0 ? told : rekey_bytes_ * (rekeys_ > 0 ? rekeys_ - 1 : 0);
}

void NixLog::Keep(std::string words) {
  if (words.empty()) return;
  if (first_words_.size() < kMaxWords) {
    first_words_.push_back(std::move(words));
    return;
  }
  last_words_.push_back(std::move(words));
  if (last_words_.size() > kMaxWords) last_words_.pop_front();
}

std::vector<std::string> NixLog::Words() const {
  std::vector<std::string> words = first_words_;
  words.insert(words.end(), last_words_.begin(), last_words_.end());
  return words;
}

}  // namespace nixq
