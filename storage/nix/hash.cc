#include "storage/nix/hash.h"

#include <openssl/evp.h>

#include <cstdlib>
#include <optional>

#include "absl/strings/str_format.h"
#include "storage/base/text.h"
#include "storage/nix/store_path.h"

namespace nixq {
namespace {

constexpr size_t kBase16Length = 64;
constexpr size_t kNix32Length = 52;
constexpr size_t kBase64Length = 44;
constexpr std::string_view kBase16Alphabet = "0123456789abcdef";

// libcrypto fails here only when it is out of memory or built without
// SHA-256; there is nothing to go on with.
void Check(int result) {
  if (result != 1) std::abort();
}

std::optional<Sha256Digest> FromBase16(std::string_view text) {
  Sha256Digest digest;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char lower =
        c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
    const size_t digit = kBase16Alphabet.find(lower);
    if (digit == std::string_view::npos) return std::nullopt;
    uint8_t& byte = digest[i / 2];
    byte = static_cast<uint8_t>(i % 2 == 0 ? digit << 4 : byte | digit);
  }
  return digest;
}

// Nix's base 32 is the little-endian number written with its most significant
// digit first: the n-th digit from the end has the bits from 5n upwards.
std::optional<Sha256Digest> FromNix32(std::string_view text) {
  Sha256Digest digest{};
  for (size_t n = 0; n < text.size(); ++n) {
    const size_t digit = kNix32Alphabet.find(text[text.size() - 1 - n]);
    if (digit == std::string_view::npos) return std::nullopt;
    const size_t byte = n * 5 / 8;
    const size_t shift = n * 5 % 8;
    digest[byte] |= static_cast<uint8_t>(digit << shift);
    const auto carry = static_cast<uint8_t>(digit >> (8 - shift));
    if (byte + 1 < digest.size()) {
      digest[byte + 1] |= carry;
    } else if (carry != 0) {
      return std::nullopt;  // more than 256 bits
    }
  }
  return digest;
}

std::optional<Sha256Digest> FromBase64(std::string_view text) {
  const std::optional<std::string> bytes = Base64Decode(text);
  Sha256Digest digest;
  if (!bytes || bytes->size() != digest.size()) return std::nullopt;
  for (size_t i = 0; i < digest.size(); ++i) {
    digest[i] = static_cast<uint8_t>((*bytes)[i]);
  }
  return digest;
}

}  // namespace

struct Sha256::State {
  State() : context(EVP_MD_CTX_new()) {
    Check(context != nullptr);
    Check(EVP_DigestInit_ex(context, EVP_sha256(), nullptr));
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }

  EVP_MD_CTX* context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::Update(std::string_view bytes) {
  Check(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()));
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest;
  Check(EVP_DigestFinal_ex(state_->context, digest.data(), nullptr));
  return digest;
}

Sha256Digest Sha256::Of(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

std::string ToBase16(const Sha256Digest& digest) {
  std::string text;
  text.reserve(kBase16Length);
  for (const uint8_t byte : digest) {
    text += kBase16Alphabet[byte >> 4];
    text += kBase16Alphabet[byte & 15];
  }
  return text;
}

std::string ToNix32(const Sha256Digest& digest) {
  std::string text;
  text.reserve(kNix32Length);
  for (size_t n = kNix32Length; n-- > 0;) {
    const size_t byte = n * 5 / 8;
    const size_t shift = n * 5 % 8;
    unsigned digit = digest[byte] >> shift;
    if (byte + 1 < digest.size()) digit |= digest[byte + 1] << (8 - shift);
    text += kNix32Alphabet[digit & 31];
  }
  return text;
}

std::string ToPrefixedNix32(const Sha256Digest& digest) {
  return "sha256:" + ToNix32(digest);
}

absl::StatusOr<Sha256Digest> ParseSha256(std::string_view text) {
  std::string_view digits = text;
  const bool sri = text.starts_with("sha256-");
  if (sri || text.starts_with("sha256:")) {
    digits.remove_prefix(std::string_view("sha256:").size());
  }
  std::optional<Sha256Digest> digest;
  if (digits.size() == kBase64Length) {
    digest = FromBase64(digits);
  } else if (!sri && digits.size() == kBase16Length) {
    digest = FromBase16(digits);
  } else if (!sri && digits.size() == kNix32Length) {
    digest = FromNix32(digits);
  }
  if (digest) return *digest;
  return absl::InvalidArgumentError(
      absl::StrFormat("'%s' is not a SHA-256 hash", Printable(text, 80)));
}

}  // namespace nixq
