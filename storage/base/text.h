// The string helpers that the rest uses, over std types only: the packaged
// absl::string_view is std::string_view on some systems and not on others, so
// absl's own helpers stay behind this header.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nixq {

// Pieces between separators, empty ones included.
std::vector<std::string> Split(std::string_view text, char separator);
// Runs of anything but ASCII white space.
std::vector<std::string_view> SplitWords(std::string_view text);
std::string Join(const std::vector<std::string>& pieces,
                 std::string_view separator);
std::string_view Trim(std::string_view text);
// ASCII letters in lower case, other bytes as they are.
std::string Lower(std::string_view text);
// A decimal without sign, spaces or overflow.
std::optional<uint64_t> ParseUint(std::string_view text);

// `text` with ANSI escapes removed and control characters shown as '?', cut
// to `max_bytes`: fit for a row, a log line or a terminal.
std::string Printable(std::string_view text, size_t max_bytes = 4096);

// Shell-style match: `*`, `?` and `[a-z]`, the whole of `text`.
bool GlobMatch(std::string_view pattern, std::string_view text);

// Standard base64 with padding; decoding is strict.
std::string Base64Encode(std::string_view bytes);
std::optional<std::string> Base64Decode(std::string_view text);

// "1.5 GiB", "812 KiB", "17 B".
std::string HumanBytes(uint64_t bytes);

}  // namespace nixq
