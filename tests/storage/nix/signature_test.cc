#include "storage/nix/signature.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <random>
#include <vector>

#include "absl/time/clock.h"
#include "storage/base/io.h"
#include "storage/base/text.h"
#include "tests/support/private_nix.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

// RFC 8032, section 7.1: secret key (seed), public key, message, signature.
struct Vector {
  const char* seed;
  const char* public_key;
  const char* message;
  const char* signature;
};
constexpr Vector kVectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb882159"
     "0"
     "a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43"
     "e"
     "15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538"
     "d"
     "16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
};

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(
        std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

std::string SecretText(const Vector& vector, const std::string& name = "key") {
  return name + ":" +
         Base64Encode(FromHex(vector.seed) + FromHex(vector.public_key));
}

std::string PublicText(const Vector& vector, const std::string& name = "key") {
  return name + ":" + Base64Encode(FromHex(vector.public_key));
}

TEST(SecretKeyTest, SignsAsTheStandardSays) {
  for (const Vector& vector : kVectors) {
    const auto key = SecretKey::Parse(SecretText(vector, "cache.example-1"));
    ASSERT_TRUE(key.ok()) << key.status();
    EXPECT_EQ(key->name(), "cache.example-1");
    EXPECT_EQ(key->PublicKeyText(), PublicText(vector, "cache.example-1"));
    const std::string message = FromHex(vector.message);
    const std::string signature = key->Sign(message);
    EXPECT_EQ(signature,
              "cache.example-1:" + Base64Encode(FromHex(vector.signature)));
    const auto public_key = PublicKey::Parse(key->PublicKeyText());
    ASSERT_TRUE(public_key.ok()) << public_key.status();
    EXPECT_TRUE(public_key->Verify(message, signature));
  }
}

TEST(SecretKeyTest, LoadsFilesWithTrailingWhiteSpace) {
  const TemporaryDirectory dir;
  for (const std::string end : {"", "\n", "\r\n", " \n\n"}) {
    std::ofstream(dir / "key") << SecretText(kVectors[0]) << end;
    const auto key = SecretKey::Load(dir / "key");
    ASSERT_TRUE(key.ok()) << key.status();
    EXPECT_EQ(key->PublicKeyText(), PublicText(kVectors[0]));
  }
}

TEST(SecretKeyTest, MovesWithItsMemory) {
  auto first = SecretKey::Parse(SecretText(kVectors[0]));
  ASSERT_TRUE(first.ok());
  const SecretKey second = *std::move(first);
  EXPECT_EQ(second.PublicKeyText(), PublicText(kVectors[0]));
}

// What every error of a key that was refused must be like.
void ExpectRefusal(const absl::Status& status, const std::string& text) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  const std::string message(status.message());
  for (size_t at = text.find(':'); at != std::string::npos && at < text.size();
       ++at) {
    const std::string piece = text.substr(at + 1, 6);
    if (piece.size() < 6) break;
    ASSERT_EQ(message.find(piece), std::string::npos)
        << "the error shows key material: " << message;
  }
}

TEST(SecretKeyTest, RefusesWhatIsNoKeyWithoutShowingIt) {
  using namespace std::string_literals;
  const std::string good = SecretText(kVectors[0]);
  const std::string seed = FromHex(kVectors[0].seed);
  const std::string half = FromHex(kVectors[0].public_key);
  for (const std::string& text : std::vector<std::string>{
           "",
           "\n",
           ":",
           "key",
           "key:",
           good.substr(4),  // no name
           good.substr(3),  // an empty name
           " " + good,      // white space in the name
           "my " + good,
           "my\n" + good,
           "my\0"s + good,
           good.substr(0, good.size() - 1),
           good.substr(0, good.size() - 4),
           good + "AAAA",
           good + "=",
           good + "\nkey2:" + good.substr(4),
           "key: " + good.substr(4),
           "key:" + Base64Encode(seed),
           PublicText(kVectors[0]),
           "key:" + Base64Encode(seed + half + "x"),
           "key:" + Base64Encode(seed + std::string(32, '\0')),
           SecretText({kVectors[0].seed, kVectors[1].public_key, "", ""}),
           "key:" + std::string(88, '!'),
           "key:" + std::string(1 << 20, 'A'),
       }) {
    ExpectRefusal(SecretKey::Parse(text).status(), text);
  }
}

TEST(SecretKeyTest, FileErrorsSayWhichFile) {
  const TemporaryDirectory dir;
  const absl::Status missing = SecretKey::Load(dir / "none").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(missing.message()).find(dir / "none"),
            std::string::npos);
  EXPECT_EQ(SecretKey::Load(dir.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(SecretKey::Load(dir / "fifo").status().code(),
            absl::StatusCode::kInvalidArgument);
  std::ofstream(dir / "long")
      << SecretText(kVectors[0]) << std::string(5000, ' ');
  EXPECT_EQ(SecretKey::Load(dir / "long").status().code(),
            absl::StatusCode::kInvalidArgument);
  std::ofstream(dir / "bad") << "key:c2VjcmV0c2VjcmV0";
  const absl::Status bad = SecretKey::Load(dir / "bad").status();
  ExpectRefusal(bad, "key:c2VjcmV0c2VjcmV0");
  EXPECT_NE(std::string(bad.message()).find(dir / "bad"), std::string::npos);
}

TEST(SecretKeyTest, AnUnreadableFileIsDenied) {
  const TemporaryDirectory dir;
  ASSERT_EQ(chmod(dir.path().c_str(), 0755), 0);
  std::ofstream(dir / "key") << SecretText(kVectors[0]);
  ASSERT_EQ(chmod((dir / "key").c_str(), 0), 0);
  // Root may read everything, so it becomes somebody else for a moment.
  const uid_t self = geteuid();
  if (self == 0) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  const absl::Status status = SecretKey::Load(dir / "key").status();
  ASSERT_EQ(seteuid(self), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
}

TEST(PublicKeyTest, AcceptsOnlyItsOwnSignatures) {
  const auto secret = SecretKey::Parse(SecretText(kVectors[0]));
  const auto other = SecretKey::Parse(SecretText(kVectors[1]));
  const auto key = PublicKey::Parse(PublicText(kVectors[0]));
  ASSERT_TRUE(secret.ok() && other.ok() && key.ok());
  const std::string good = secret->Sign("message");
  EXPECT_TRUE(key->Verify("message", good));
  EXPECT_FALSE(key->Verify("massage", good));
  EXPECT_FALSE(key->Verify("", good));
  EXPECT_FALSE(key->Verify("message", other->Sign("message")));
  EXPECT_FALSE(key->Verify("message", "key2" + good.substr(3)));
  EXPECT_FALSE(key->Verify("message", good.substr(4)));
  EXPECT_FALSE(key->Verify("message", good.substr(0, good.size() - 4)));
  EXPECT_FALSE(key->Verify("message", good + "AAAA"));
  EXPECT_FALSE(key->Verify("message", good + "\n"));
  EXPECT_FALSE(key->Verify("message", ""));
  EXPECT_FALSE(key->Verify("message", "key:"));
  EXPECT_FALSE(key->Verify("message", std::string(1 << 20, ':')));
  for (size_t i = 4; i < good.size() - 2; ++i) {
    std::string flipped = good;
    flipped[i] = flipped[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(key->Verify("message", flipped)) << i;
  }
}

TEST(PublicKeyTest, RefusesWhatIsNoKey) {
  const std::string good = PublicText(kVectors[0]);
  EXPECT_EQ(PublicKey::Parse(good + "\n")->name(), "key");
  for (const std::string& text : std::vector<std::string>{
           "", "key", "key:", ":" + good.substr(4), good.substr(4),
           "a b:" + good.substr(4), good + "AAAA", good.substr(0, 40),
           SecretText(kVectors[0]), std::string(1 << 20, 'A')}) {
    EXPECT_EQ(PublicKey::Parse(text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text.substr(0, 100);
  }
}

TEST(FingerprintTest, HasItsFieldsInOrder) {
  const StoreDir store = *StoreDir::Parse("/nix/store");
  const auto path = [](const std::string& name) {
    return *StorePath::FromBaseName("0123456789abcdfghijklmnpqrsvwxyz-" + name);
  };
  PathInfo info{.path = path("hello"),
                .nar_hash = Sha256::Of(""),
                .nar_size_bytes = 18446744073709551615u,
                .references = {},
                .deriver = path("hello.drv"),
                .registration_time = absl::Now(),
                .ultimate = true,
                .signatures = {"key:AAAA"},
                .content_address = "fixed:r:sha256:x"};
  const std::string begin =
      "1;/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello;sha256:"
      "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73;"
      "18446744073709551615;";
  EXPECT_EQ(Fingerprint(store, info), begin);
  // Sorted, each once, whatever the order they came in.
  info.references = {path("b"), path("a"), path("b"), path("a-1")};
  const std::string reference = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-";
  EXPECT_EQ(Fingerprint(store, info),
            begin + reference + "a," + reference + "a-1," + reference + "b");
}

// Against the Nix that is installed: its keys are read, and what is derived
// of them is what Nix derives.
TEST(SignatureGoldenTest, ReadsTheKeysOfNix) {
  const auto nix = PrivateNix::Create();
  ASSERT_TRUE(nix.ok()) << nix.status();
  for (const std::string name : {"k", "cache.example.org-1", "with=+/signs"}) {
    const std::string secret = (*nix)->base() + "/secret";
    const std::string public_key = (*nix)->base() + "/public";
    ASSERT_TRUE((*nix)
                    ->Run({"nix-store", "--generate-binary-cache-key", name,
                           secret, public_key})
                    .ok());
    const auto key = SecretKey::Load(secret);
    ASSERT_TRUE(key.ok()) << key.status();
    EXPECT_EQ(key->name(), name);
    EXPECT_EQ(key->PublicKeyText(), *ReadFile(public_key, 1000));
    EXPECT_TRUE(PublicKey::Parse(*ReadFile(public_key, 1000))
                    ->Verify("message", key->Sign("message")));
  }
}

// Sanitizers map terabytes of shadow memory, which cannot be searched.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NIXQ_TEST_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define NIXQ_TEST_SANITIZED
#endif
#endif

#if defined(__linux__) && !defined(NIXQ_TEST_SANITIZED)

constexpr char kMask = 0x55;

// Runs `make` in a child and returns what it gives, masked on the way: the
// bytes themselves never are in this process.
template <typename Make>
std::string MaskedFromChild(Make make) {
  int ends[2];
  if (pipe(ends) != 0) return "";
  const pid_t child = fork();
  if (child == 0) {
    std::string bytes = make();
    for (char& byte : bytes) byte = static_cast<char>(byte ^ kMask);
    _exit(WriteAll(ends[1], bytes).ok() ? 0 : 1);
  }
  close(ends[1]);
  const UniqueFd from(ends[0]);
  std::string masked;
  char buffer[4096];
  for (ssize_t got; (got = read(from.get(), buffer, sizeof buffer)) > 0;) {
    masked.append(buffer, static_cast<size_t>(got));
  }
  waitpid(child, nullptr, 0);
  return masked;
}

bool IsMaskedAt(const char* memory, const std::string& masked) {
  for (size_t i = 0; i < masked.size(); ++i) {
    if (static_cast<char>(memory[i] ^ kMask) != masked[i]) return false;
  }
  return true;
}

// How often the bytes that `masked` hides are in the writable or readable
// private memory of this process, apart from those in memory that core dumps
// leave out.
struct Sightings {
  int dumped = 0;
  int kept_out = 0;
};

Sightings Search(const std::string& masked) {
  struct Mapping {
    uintptr_t begin;
    uintptr_t end;
    bool readable;
    bool kept_out;
  };
  std::vector<Mapping> mappings;
  mappings.reserve(10000);  // growing would reuse the memory to be searched
  std::ifstream smaps("/proc/self/smaps");
  for (std::string line; std::getline(smaps, line);) {
    uintptr_t begin = 0;
    uintptr_t end = 0;
    char mode[5] = "";
    if (sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, mode) == 3) {
      const bool special = line.find("[v") != std::string::npos;
      mappings.push_back({begin, end, mode[0] == 'r' && !special, false});
    } else if (line.starts_with("VmFlags:") && !mappings.empty()) {
      mappings.back().kept_out = line.find(" dd") != std::string::npos;
    }
  }
  Sightings seen;
  for (const Mapping& mapping : mappings) {
    if (!mapping.readable || mapping.end - mapping.begin < masked.size()) {
      continue;
    }
    // Through the kernel: a mapping may go away, or have holes.
    std::vector<char> memory(1 << 16);
    const UniqueFd self(open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
    for (uintptr_t at = mapping.begin; at < mapping.end;
         at += memory.size() - masked.size()) {
      const size_t wanted =
          std::min<uintptr_t>(memory.size(), mapping.end - at);
      const ssize_t got =
          pread(self.get(), memory.data(), wanted, static_cast<off_t>(at));
      for (ssize_t i = 0; i + static_cast<ssize_t>(masked.size()) <= got; ++i) {
        if (!IsMaskedAt(memory.data() + i, masked)) continue;
        // The copy that this search itself has just made.
        if (mapping.begin <= reinterpret_cast<uintptr_t>(memory.data()) &&
            reinterpret_cast<uintptr_t>(memory.data()) < mapping.end &&
            at + static_cast<uintptr_t>(i) >=
                reinterpret_cast<uintptr_t>(memory.data()) &&
            at + static_cast<uintptr_t>(i) <
                reinterpret_cast<uintptr_t>(memory.data() + memory.size())) {
          continue;
        }
        ++(mapping.kept_out ? seen.kept_out : seen.dumped);
      }
      std::fill(memory.begin(), memory.end(), '\0');
    }
  }
  return seen;
}

TEST(SecretMemoryTest, TheSearchFindsWhatIsThere) {
  std::string masked(40, '\0');
  std::mt19937 random(std::random_device{}());
  for (char& byte : masked) byte = static_cast<char>(random());
  EXPECT_EQ(Search(masked).dumped, 0);
  auto plain = std::make_unique<std::string>(masked);
  for (char& byte : *plain) byte = static_cast<char>(byte ^ kMask);
  EXPECT_EQ(Search(masked).dumped, 1);
}

// The secret is in this process only where core dumps do not look, and not
// even there once the key is gone.
TEST(SecretMemoryTest, HoldsOneCopyOutOfCoreDumps) {
  const TemporaryDirectory dir;
  const std::string file = dir / "key";
  const auto nix = PrivateNix::Create();
  ASSERT_TRUE(nix.ok()) << nix.status();
  ASSERT_TRUE((*nix)
                  ->Run({"nix-store", "--generate-binary-cache-key", "name",
                         file, dir / "public"})
                  .ok());
  // Of the text's middle: freeing memory overwrites the beginning.
  const std::string text = MaskedFromChild(
      [&] { return ReadFile(file, 1000)->substr(sizeof "name:" + 30, 24); });
  const std::string seed = MaskedFromChild([&] {
    const std::string whole = *ReadFile(file, 1000);
    return Base64Decode(whole.substr(sizeof "name:" - 1))->substr(16, 16);
  });
  ASSERT_EQ(text.size(), 24u);
  ASSERT_EQ(seed.size(), 16u);
  EXPECT_EQ(Search(seed).dumped + Search(seed).kept_out, 0);
  {
    const auto key = SecretKey::Load(file);
    ASSERT_TRUE(key.ok()) << key.status();
    for (int round = 0; round < 2; ++round) {
      SCOPED_TRACE(round == 0 ? "after loading" : "after signing");
      const Sightings of_text = Search(text);
      EXPECT_EQ(of_text.dumped, 0);
      EXPECT_EQ(of_text.kept_out, 0);
      const Sightings of_seed = Search(seed);
      EXPECT_EQ(of_seed.dumped, 0);
      EXPECT_EQ(of_seed.kept_out, 1);
      EXPECT_TRUE(key->Sign("message").starts_with("name:"));
    }
  }
  EXPECT_EQ(Search(seed).dumped, 0);
  EXPECT_EQ(Search(seed).kept_out, 0);
}

#endif  // __linux__, not sanitized

}  // namespace
}  // namespace nixq
