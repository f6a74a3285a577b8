#include "storage/nix/derivation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

// Far deeper than any derivation nests its lists and tuples.
constexpr size_t kMaxNesting = 256;
constexpr size_t kMaxOutputNameBytes = StorePath::kMaxNameLength;

// Reads ATerm text from the front.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  size_t position() const { return position_; }

  absl::Status ErrorAt(size_t position, std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrFormat(
        "not a derivation: byte %d: %s", position, std::string(what)));
  }

  bool Skip(std::string_view literal) {
    if (!text_.substr(position_).starts_with(literal)) return false;
    position_ += literal.size();
    return true;
  }

  absl::Status Expect(std::string_view literal) {
    if (Skip(literal)) return absl::OkStatus();
    return ErrorAt(position_,
                   absl::StrFormat("expected '%s'", std::string(literal)));
  }

  // The string at the front, its escapes undone.
  absl::StatusOr<std::string> String() {
    const size_t begin = position_ + 1;
    NIXQ_RETURN_IF_ERROR(SkipString());
    std::string value;
    for (size_t i = begin; i + 1 < position_; ++i) {
      char c = text_[i];
      if (c == '\\') {
        c = text_[++i];
        if (c == 'n') c = '\n';
        if (c == 'r') c = '\r';
        if (c == 't') c = '\t';
      }
      value += c;
    }
    return value;
  }

  absl::Status SkipString() {
    const size_t begin = position_;
    NIXQ_RETURN_IF_ERROR(Expect("\""));
    size_t unread = position_;
    while (true) {
      const size_t quote = text_.find('"', unread);
      if (quote == std::string_view::npos) {
        return ErrorAt(begin, "a string without an end");
      }
      size_t backslashes = 0;
      while (quote - backslashes > unread &&
             text_[quote - backslashes - 1] == '\\') {
        ++backslashes;
      }
      unread = quote + 1;
      if (backslashes % 2 == 0) {
        position_ = unread;
        return absl::OkStatus();
      }
    }
  }

  // Skips a list with all that is in it, checking only that its brackets and
  // strings are closed.
  absl::Status SkipList() {
    const size_t begin = position_;
    if (position_ >= text_.size() || text_[position_] != '[') {
      return ErrorAt(position_, "expected '['");
    }
    std::string closers;
    do {
      if (position_ >= text_.size()) {
        return ErrorAt(begin, "a list without an end");
      }
      const char c = text_[position_];
      if (c == '"') {
        NIXQ_RETURN_IF_ERROR(SkipString());
        continue;
      }
      if (c == '[' || c == '(') {
        closers += c == '[' ? ']' : ')';
        if (closers.size() > kMaxNesting) {
          return ErrorAt(position_, "nested too deeply");
        }
      } else if (c == closers.back()) {
        closers.pop_back();
      } else if (c != ',') {
        return ErrorAt(position_, "expected a list, a tuple or a string");
      }
      ++position_;
    } while (!closers.empty());
    return absl::OkStatus();
  }

 private:
  std::string_view text_;
  size_t position_ = 0;
};

// One `("name","path","hash algorithm","hash")`.
absl::StatusOr<DerivationOutput> ParseOutput(const StoreDir& store_dir,
                                             Reader* reader) {
  DerivationOutput output;
  NIXQ_RETURN_IF_ERROR(reader->Expect("("));
  const size_t name_position = reader->position();
  NIXQ_ASSIGN_OR_RETURN(output.name, reader->String());
  if (output.name.empty() || output.name.size() > kMaxOutputNameBytes ||
      Printable(output.name) != output.name) {
    return reader->ErrorAt(name_position, "not the name of an output");
  }
  NIXQ_RETURN_IF_ERROR(reader->Expect(","));
  const size_t path_position = reader->position();
  NIXQ_ASSIGN_OR_RETURN(const std::string path, reader->String());
  if (!path.empty()) {
    absl::StatusOr<StorePath> parsed = store_dir.ParsePath(path);
    if (!parsed.ok()) {
      return reader->ErrorAt(path_position,
                             std::string(parsed.status().message()));
    }
    output.path = *std::move(parsed);
  }
  for (int i = 0; i < 2; ++i) {
    NIXQ_RETURN_IF_ERROR(reader->Expect(","));
    NIXQ_RETURN_IF_ERROR(reader->SkipString());
  }
  NIXQ_RETURN_IF_ERROR(reader->Expect(")"));
  return output;
}

}  // namespace

bool DerivationSummary::OutputsAreStatic() const {
  return std::all_of(
      outputs.begin(), outputs.end(),
      [](const DerivationOutput& output) { return output.path.has_value(); });
}

absl::StatusOr<DerivationSummary> ParseDerivation(const StoreDir& store_dir,
                                                  std::string_view text) {
  if (text.size() > kMaxDerivationBytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "not a derivation: longer than %d bytes", kMaxDerivationBytes));
  }
  Reader reader(text);
  if (!reader.Skip("DrvWithVersion(\"xp-dyn-drv\",")) {
    NIXQ_RETURN_IF_ERROR(reader.Expect("Derive("));
  }
  DerivationSummary summary;
  NIXQ_RETURN_IF_ERROR(reader.Expect("["));
  do {
    NIXQ_ASSIGN_OR_RETURN(DerivationOutput output,
                          ParseOutput(store_dir, &reader));
    summary.outputs.push_back(std::move(output));
  } while (reader.Skip(","));
  NIXQ_RETURN_IF_ERROR(reader.Expect("],"));
  NIXQ_RETURN_IF_ERROR(reader.SkipList());  // input derivations
  NIXQ_RETURN_IF_ERROR(reader.Expect(","));
  NIXQ_RETURN_IF_ERROR(reader.SkipList());  // input sources
  NIXQ_RETURN_IF_ERROR(reader.Expect(","));
  NIXQ_ASSIGN_OR_RETURN(summary.system, reader.String());
  NIXQ_RETURN_IF_ERROR(reader.Expect(","));
  return summary;
}

}  // namespace nixq
