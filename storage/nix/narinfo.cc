#include "storage/nix/narinfo.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr size_t kMaxFileBytes = size_t{4} * 1024 * 1024;

template <typename T>
void SortAndUnique(std::vector<T>* values) {
  std::sort(values->begin(), values->end());
  values->erase(std::unique(values->begin(), values->end()), values->end());
}

// Leaves out a value that would become more than one line: what a daemon or a
// cache said must not turn into fields.
void AppendField(std::string_view name, std::string_view value,
                 std::string* text) {
  if (value.find('\n') != std::string_view::npos) return;
  *text += name;
  *text += ": ";
  *text += value;
  *text += '\n';
}

absl::StatusOr<Sha256Digest> ParseHashField(std::string_view value) {
  if (!value.starts_with("sha256:") && !value.starts_with("sha256-")) {
    return absl::InvalidArgumentError("not a SHA-256 hash with its prefix");
  }
  return ParseSha256(value);
}

absl::StatusOr<uint64_t> ParseSizeField(std::string_view value) {
  const std::optional<uint64_t> size = ParseUint(value);
  if (!size) return absl::InvalidArgumentError("not a number of bytes");
  return *size;
}

absl::StatusOr<std::vector<StorePath>> ParseReferences(std::string_view value) {
  std::vector<StorePath> references;
  for (const std::string& word : Split(value, ' ')) {
    if (word.empty()) continue;
    NIXQ_ASSIGN_OR_RETURN(StorePath path, StorePath::FromBaseName(word));
    references.push_back(std::move(path));
  }
  SortAndUnique(&references);
  return references;
}

// Gathers the fields of one narinfo.
class Parser {
 public:
  explicit Parser(const StoreDir& store_dir) : store_dir_(store_dir) {}

  absl::Status Field(std::string_view name, std::string_view value) {
    if (name == "StorePath") {
      NIXQ_ASSIGN_OR_RETURN(path_, store_dir_.ParsePath(value));
    } else if (name == "URL") {
      url_ = value;
    } else if (name == "Compression") {
      compression_ = value;
    } else if (name == "FileHash") {
      return FileHash(value);
    } else if (name == "FileSize") {
      NIXQ_ASSIGN_OR_RETURN(file_size_bytes_, ParseSizeField(value));
    } else if (name == "NarHash") {
      NIXQ_ASSIGN_OR_RETURN(nar_hash_, ParseHashField(value));
    } else if (name == "NarSize") {
      NIXQ_ASSIGN_OR_RETURN(nar_size_bytes_, ParseSizeField(value));
    } else if (name == "References") {
      if (!references_.empty()) return Repeated();
      NIXQ_ASSIGN_OR_RETURN(references_, ParseReferences(value));
    } else if (name == "Deriver") {
      if (value == "unknown-deriver") return absl::OkStatus();
      NIXQ_ASSIGN_OR_RETURN(deriver_, StorePath::FromBaseName(value));
    } else if (name == "Sig") {
      signatures_.emplace_back(value);
    } else if (name == "CA") {
      if (!content_address_.empty()) return Repeated();
      content_address_ = value;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<NarInfo> Finish() && {
    if (!path_) return Missing("StorePath");
    if (url_.empty()) return Missing("URL");
    if (!nar_hash_) return Missing("NarHash");
    if (nar_size_bytes_ == 0) return Missing("NarSize");
    SortAndUnique(&signatures_);
    NarInfo narinfo{.info = {.path = *std::move(path_),
                             .nar_hash = *nar_hash_,
                             .nar_size_bytes = nar_size_bytes_,
                             .references = std::move(references_),
                             .deriver = std::move(deriver_),
                             .registration_time = absl::Time(),
                             .ultimate = false,
                             .signatures = std::move(signatures_),
                             .content_address = std::move(content_address_)},
                    .url = std::move(url_),
                    .compression = std::move(compression_),
                    .file_hash = file_hash_,
                    .file_size_bytes = file_size_bytes_};
    if (narinfo.compression.empty()) narinfo.compression = "bzip2";
    return narinfo;
  }

 private:
  // Nix takes any algorithm here and does not look at it again.
  absl::Status FileHash(std::string_view value) {
    for (const std::string_view other : {"md5", "sha1", "sha512", "blake3"}) {
      if (value.starts_with(other)) return absl::OkStatus();
    }
    NIXQ_ASSIGN_OR_RETURN(file_hash_, ParseHashField(value));
    return absl::OkStatus();
  }

  static absl::Status Repeated() {
    return absl::InvalidArgumentError("given more than once");
  }

  static absl::Status Missing(std::string_view name) {
    return absl::InvalidArgumentError(
        absl::StrFormat("narinfo: %s is missing or empty", std::string(name)));
  }

  const StoreDir& store_dir_;
  std::optional<StorePath> path_;
  std::string url_;
  std::string compression_;
  std::optional<Sha256Digest> file_hash_;
  uint64_t file_size_bytes_ = 0;
  std::optional<Sha256Digest> nar_hash_;
  uint64_t nar_size_bytes_ = 0;
  std::vector<StorePath> references_;
  std::optional<StorePath> deriver_;
  std::vector<std::string> signatures_;
  std::string content_address_;
};

absl::Status CheckSize(std::string_view file, std::string_view text) {
  if (text.size() <= kMaxFileBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: longer than %d bytes", std::string(file), kMaxFileBytes));
}

absl::Status LineError(int line, std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrFormat("narinfo: line %d: %s", line, std::string(what)));
}

}  // namespace

std::string FormatNarInfo(const StoreDir& store_dir, const NarInfo& narinfo) {
  const PathInfo& info = narinfo.info;
  std::string text;
  AppendField("StorePath", store_dir.Print(info.path), &text);
  AppendField("URL", narinfo.url, &text);
  AppendField("Compression", narinfo.compression, &text);
  if (narinfo.file_hash) {
    AppendField("FileHash", ToPrefixedNix32(*narinfo.file_hash), &text);
  }
  if (narinfo.file_size_bytes != 0) {
    AppendField("FileSize", std::to_string(narinfo.file_size_bytes), &text);
  }
  AppendField("NarHash", ToPrefixedNix32(info.nar_hash), &text);
  AppendField("NarSize", std::to_string(info.nar_size_bytes), &text);
  std::vector<StorePath> sorted = info.references;
  SortAndUnique(&sorted);
  std::vector<std::string> references;
  references.reserve(sorted.size());
  for (const StorePath& path : sorted) references.push_back(path.base_name());
  AppendField("References", Join(references, " "), &text);
  if (info.deriver) AppendField("Deriver", info.deriver->base_name(), &text);
  std::vector<std::string> signatures = info.signatures;
  SortAndUnique(&signatures);
  for (const std::string& signature : signatures) {
    AppendField("Sig", signature, &text);
  }
  if (!info.content_address.empty()) {
    AppendField("CA", info.content_address, &text);
  }
  return text;
}

absl::StatusOr<NarInfo> ParseNarInfo(const StoreDir& store_dir,
                                     std::string_view text) {
  NIXQ_RETURN_IF_ERROR(CheckSize("narinfo", text));
  Parser parser(store_dir);
  for (int line = 1; !text.empty(); ++line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      return LineError(line, "cut off: no newline at its end");
    }
    const std::string_view content = text.substr(0, end);
    text.remove_prefix(end + 1);
    const size_t colon = content.find(": ");
    if (colon == std::string_view::npos) {
      return LineError(line, "not 'Name: value'");
    }
    const std::string_view name = content.substr(0, colon);
    const absl::Status read = parser.Field(name, content.substr(colon + 2));
    if (!read.ok()) {
      return LineError(line, absl::StrFormat("%s: %s", Printable(name, 40),
                                             std::string(read.message())));
    }
  }
  return std::move(parser).Finish();
}

std::string FormatCacheInfo(const CacheInfo& info) {
  std::string text;
  AppendField("StoreDir", info.store_dir, &text);
  AppendField("WantMassQuery", info.want_mass_query ? "1" : "0", &text);
  if (info.priority) {
    AppendField("Priority", std::to_string(*info.priority), &text);
  }
  return text;
}

absl::StatusOr<CacheInfo> ParseCacheInfo(std::string_view text) {
  NIXQ_RETURN_IF_ERROR(CheckSize("nix-cache-info", text));
  CacheInfo info;
  for (const std::string& line : Split(text, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string_view name = std::string_view(line).substr(0, colon);
    const std::string_view value =
        Trim(std::string_view(line).substr(colon + 1));
    if (name == "StoreDir") {
      info.store_dir = value;
    } else if (name == "WantMassQuery") {
      info.want_mass_query = value == "1";
    } else if (name == "Priority") {
      int priority = 0;
      const char* end = value.data() + value.size();
      const auto parsed = std::from_chars(value.data(), end, priority);
      if (parsed.ec != std::errc() || parsed.ptr != end) {
        return absl::InvalidArgumentError(
            absl::StrFormat("nix-cache-info: Priority '%s' is not an integer",
                            Printable(value, 40)));
      }
      info.priority = priority;
    }
  }
  return info;
}

}  // namespace nixq
