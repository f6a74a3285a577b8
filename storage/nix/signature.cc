#include "storage/nix/signature.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

// A name of any sensible length and 88 characters; more is no key file.
constexpr size_t kMaxKeyFileBytes = 4096;

// Memory for secrets: locked, between guard pages, out of core dumps, wiped
// when it goes.
struct SecretFree {
  void operator()(unsigned char* memory) const { sodium_free(memory); }
};
using SecretMemory = std::unique_ptr<unsigned char, SecretFree>;

absl::StatusOr<SecretMemory> AllocateSecret(size_t bytes) {
  if (sodium_init() < 0) {
    return absl::InternalError("libsodium cannot be initialised");
  }
  SecretMemory memory(static_cast<unsigned char*>(sodium_malloc(bytes)));
  if (memory == nullptr) {
    return absl::ResourceExhaustedError("no memory for a secret key");
  }
  return memory;
}

// "name:value" apart. The name is shown in errors, the value never.
struct NamedValue {
  std::string_view name;
  std::string_view value;
};

absl::StatusOr<NamedValue> SplitNamed(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return absl::InvalidArgumentError("not a key: no ':' after its name");
  }
  const std::string_view name = text.substr(0, colon);
  // Names stand in lists that white space separates and in lines.
  const bool clean = std::none_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f;
  });
  if (name.empty() || !clean) {
    return absl::InvalidArgumentError(
        "not a key: its name is empty or has white space");
  }
  return NamedValue{name, text.substr(colon + 1)};
}

// Decodes exactly `size` bytes of strict base64 into `out`, in constant time
// and without a copy elsewhere.
bool DecodeExactly(std::string_view text, unsigned char* out, size_t size) {
  size_t decoded = 0;
  return sodium_base642bin(out, size, text.data(), text.size(), nullptr,
                           &decoded, nullptr,
                           sodium_base64_VARIANT_ORIGINAL) == 0 &&
         decoded == size;
}

std::string_view AsText(const unsigned char* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

const unsigned char* AsBytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

// Reads a whole small regular file into `buffer`; its size, or an error.
absl::StatusOr<size_t> ReadInto(const std::string& file, unsigned char* buffer,
                                size_t capacity) {
  const std::string doing = absl::StrFormat("read key file %s", file);
  struct stat info;
  if (stat(file.c_str(), &info) != 0) return ErrnoError(errno, doing);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: not a regular file", doing));
  }
  UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return ErrnoError(errno, doing);
  size_t used = 0;
  while (used < capacity) {
    const ssize_t got = read(fd.get(), buffer + used, capacity - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, doing);
    if (got == 0) return used;
    used += static_cast<size_t>(got);
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: too long for a key", doing));
}

}  // namespace

std::string Fingerprint(const StoreDir& store_dir, const PathInfo& info) {
  std::vector<StorePath> references = info.references;
  std::sort(references.begin(), references.end());
  references.erase(std::unique(references.begin(), references.end()),
                   references.end());
  std::string text =
      absl::StrFormat("1;%s;%s;%d;", store_dir.Print(info.path),
                      ToPrefixedNix32(info.nar_hash), info.nar_size_bytes);
  for (size_t i = 0; i < references.size(); ++i) {
    if (i > 0) text += ',';
    text += store_dir.Print(references[i]);
  }
  return text;
}

void SecretKey::Wipe::operator()(unsigned char* key) const { sodium_free(key); }

absl::StatusOr<SecretKey> SecretKey::Load(const std::string& file) {
  NIXQ_ASSIGN_OR_RETURN(const SecretMemory buffer,
                        AllocateSecret(kMaxKeyFileBytes));
  NIXQ_ASSIGN_OR_RETURN(const size_t size,
                        ReadInto(file, buffer.get(), kMaxKeyFileBytes));
  absl::StatusOr<SecretKey> key = Parse(AsText(buffer.get(), size));
  if (!key.ok()) {
    return Annotate(key.status(), absl::StrFormat("key file %s", file));
  }
  return key;
}

absl::StatusOr<SecretKey> SecretKey::Parse(std::string_view text) {
  const std::string_view trimmed = Trim(text);
  // Leading white space would be part of the name.
  if (trimmed.data() != text.data()) {
    return absl::InvalidArgumentError("not a key: white space before its name");
  }
  NIXQ_ASSIGN_OR_RETURN(const NamedValue parts, SplitNamed(trimmed));
  NIXQ_ASSIGN_OR_RETURN(SecretMemory secret,
                        AllocateSecret(crypto_sign_SECRETKEYBYTES));
  if (!DecodeExactly(parts.value, secret.get(), crypto_sign_SECRETKEYBYTES)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("secret key '%s' is not 64 bytes of base64",
                        Printable(parts.name, 80)));
  }
  // The second half is the public key. Signing with one that does not belong
  // to the first half would give the secret away.
  NIXQ_ASSIGN_OR_RETURN(const SecretMemory derived,
                        AllocateSecret(crypto_sign_SECRETKEYBYTES));
  unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
  crypto_sign_seed_keypair(public_key, derived.get(), secret.get());
  if (sodium_memcmp(secret.get(), derived.get(), crypto_sign_SECRETKEYBYTES) !=
      0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "secret key '%s' is damaged: its halves do not belong together",
        Printable(parts.name, 80)));
  }
  sodium_mprotect_readonly(secret.get());
  SecretKey key;
  key.name_ = std::string(parts.name);
  key.key_.reset(secret.release());
  return key;
}

std::string SecretKey::PublicKeyText() const {
  const unsigned char* public_half = key_.get() + crypto_sign_SEEDBYTES;
  return name_ + ":" +
         Base64Encode(AsText(public_half, crypto_sign_PUBLICKEYBYTES));
}

std::string SecretKey::Sign(std::string_view message) const {
  unsigned char signature[crypto_sign_BYTES];
  crypto_sign_detached(signature, nullptr, AsBytes(message), message.size(),
                       key_.get());
  return name_ + ":" + Base64Encode(AsText(signature, sizeof signature));
}

absl::StatusOr<PublicKey> PublicKey::Parse(std::string_view text) {
  NIXQ_ASSIGN_OR_RETURN(const NamedValue parts, SplitNamed(Trim(text)));
  unsigned char bytes[crypto_sign_PUBLICKEYBYTES];
  if (!DecodeExactly(parts.value, bytes, sizeof bytes)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("public key '%s' is not 32 bytes of base64",
                        Printable(parts.name, 80)));
  }
  PublicKey key;
  key.name_ = std::string(parts.name);
  key.key_ = std::string(AsText(bytes, sizeof bytes));
  return key;
}

bool PublicKey::Verify(std::string_view message,
                       std::string_view signature) const {
  const absl::StatusOr<NamedValue> parts = SplitNamed(signature);
  unsigned char bytes[crypto_sign_BYTES];
  return parts.ok() && parts->name == name_ &&
         DecodeExactly(parts->value, bytes, sizeof bytes) &&
         crypto_sign_verify_detached(bytes, AsBytes(message), message.size(),
                                     AsBytes(key_)) == 0;
}

}  // namespace nixq
