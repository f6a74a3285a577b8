#include "storage/cache/secrets.h"

#include <algorithm>
#include <optional>

#include "absl/strings/cord.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr size_t kShortest = 4;
constexpr std::string_view kInstead = "***";

std::optional<int> HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

std::string PercentDecoded(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const auto high = HexDigit(text[i + 1]);
      const auto low = HexDigit(text[i + 2]);
      if (high.has_value() && low.has_value()) {
        decoded += static_cast<char>(*high * 16 + *low);
        i += 2;
        continue;
      }
    }
    decoded += text[i];
  }
  return decoded;
}

// The words of a netrc file; one in quotes may have spaces in it.
std::vector<std::string> NetrcWords(std::string_view text) {
  std::vector<std::string> words;
  for (size_t i = 0; i < text.size();) {
    if (std::string_view(" \t\r\n").find(text[i]) != std::string_view::npos) {
      ++i;
      continue;
    }
    const bool quoted = text[i] == '"';
    if (quoted) ++i;
    const std::string_view ends = quoted ? "\"" : " \t\r\n";
    std::string word;
    while (i < text.size() && ends.find(text[i]) == std::string_view::npos) {
      if (quoted && text[i] == '\\' && i + 1 < text.size()) ++i;
      word += text[i++];
    }
    if (quoted) ++i;
    words.push_back(std::move(word));
  }
  return words;
}

void ReplaceAll(std::string& text, const std::string& word) {
  for (size_t at = text.find(word); at != std::string::npos;
       at = text.find(word, at + kInstead.size())) {
    text.replace(at, word.size(), kInstead);
  }
}

// "scheme://user:password@host": what is between "://" and the last '@' before
// the host's end. A password may have any character that is not one of those.
void ReplaceUsers(std::string& text) {
  constexpr std::string_view kStart = "://";
  for (size_t at = text.find(kStart); at != std::string::npos;
       at = text.find(kStart, at + kStart.size())) {
    const size_t begin = at + kStart.size();
    const std::string_view rest = std::string_view(text).substr(
        begin, text.find_first_of("/ \t\n\"'<>()", begin) - begin);
    if (const size_t end = rest.rfind('@'); end != std::string_view::npos) {
      text.replace(begin, end, kInstead);
    }
  }
}

}  // namespace

void Secrets::Add(std::string_view secret) {
  if (secret.size() < kShortest) return;
  std::string word(secret);
  const auto place = std::find_if(
      words_.begin(), words_.end(),
      [&](const std::string& other) { return other.size() <= word.size(); });
  if (place == words_.end() || *place != word) {
    words_.insert(place, std::move(word));
  }
}

void Secrets::AddLogin(std::string_view user, std::string_view password) {
  Add(password);
  Add(Base64Encode(std::string(user) + ":" + std::string(password)));
}

void Secrets::AddNetrc(std::string_view text) {
  std::string user;
  const std::vector<std::string> words = NetrcWords(text);
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "login") user = words[i + 1];
    if (words[i] == "password") AddLogin(user, words[i + 1]);
  }
}

void Secrets::AddUserOf(std::string_view url) {
  const size_t scheme = url.find("://");
  std::string_view rest =
      scheme == std::string_view::npos ? url : url.substr(scheme + 3);
  const size_t end = rest.rfind('@');
  if (end == std::string_view::npos) return;
  rest = rest.substr(0, end);
  Add(rest);
  const size_t colon = rest.find(':');
  if (colon == std::string_view::npos) return;
  AddLogin(rest.substr(0, colon), rest.substr(colon + 1));
  AddLogin(PercentDecoded(rest.substr(0, colon)),
           PercentDecoded(rest.substr(colon + 1)));
}

std::string Secrets::RemovedFrom(std::string_view text) const {
  std::string shown(text);
  for (const std::string& word : words_) ReplaceAll(shown, word);
  ReplaceUsers(shown);
  return shown;
}

absl::Status Secrets::RemovedFrom(const absl::Status& status) const {
  if (status.ok()) return status;
  const std::string message(status.message());
  absl::Status shown(status.code(), RemovedFrom(message));
  status.ForEachPayload(
      [&shown](const auto& type_url, const absl::Cord& payload) {
        shown.SetPayload(type_url, payload);
      });
  return shown;
}

}  // namespace nixq
