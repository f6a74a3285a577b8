#include "storage/nix/hash.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "storage/base/text.h"
#include "tests/support/private_nix.h"

namespace nixq {
namespace {

// The same digest in the forms that Nix documents.
constexpr char kBase16[] =
    "7364f2b39b55274e3a3e1ee06ae5f299ed5b0a9b8d33f7871109aba7f80e47fc";
constexpr char kNix32[] =
    "1z271vwagaq9263zfcwdkc55pvcrybjnmq0y7qx4w9smkfrz4r3k";
constexpr char kBase64[] = "c2Tys5tVJ046Ph7gauXyme1bCpuNM/eHEQmrp/gOR/w=";

std::string Base64Of(const Sha256Digest& digest) {
  return Base64Encode(std::string(digest.begin(), digest.end()));
}

Sha256Digest RandomDigest(std::mt19937* random) {
  Sha256Digest digest;
  for (uint8_t& byte : digest) byte = static_cast<uint8_t>((*random)());
  return digest;
}

TEST(Sha256Test, FollowsTheStandardsVectors) {
  EXPECT_EQ(ToBase16(Sha256::Of("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(ToBase16(Sha256::Of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(ToBase16(Sha256::Of(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, PiecesDoNotMatter) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::string bytes(100000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  const Sha256Digest whole = Sha256::Of(bytes);
  for (int round = 0; round < 20; ++round) {
    Sha256 hash;
    std::string_view left = bytes;
    while (!left.empty()) {
      const size_t piece = random() % 3000;
      hash.Update(left.substr(0, piece));
      left.remove_prefix(std::min(piece, left.size()));
    }
    Sha256 moved = std::move(hash);
    EXPECT_EQ(moved.Finish(), whole);
  }
}

TEST(HashTextTest, ReadsEveryForm) {
  const Sha256Digest digest = *ParseSha256(kBase16);
  EXPECT_EQ(ToBase16(digest), kBase16);
  EXPECT_EQ(ToNix32(digest), kNix32);
  EXPECT_EQ(ToPrefixedNix32(digest), std::string("sha256:") + kNix32);
  for (const std::string& text :
       {std::string(kNix32), std::string("sha256:") + kNix32,
        std::string("sha256:") + kBase16, std::string("sha256:") + kBase64,
        std::string(kBase64), std::string("sha256-") + kBase64,
        std::string("7364F2B39B55274E3A3E1EE06AE5F299"
                    "ED5B0A9B8D33F7871109ABA7F80E47FC")}) {
    EXPECT_EQ(ParseSha256(text).value_or(Sha256Digest{}), digest) << text;
  }
}

TEST(HashTextTest, RefusesTheRest) {
  const std::string base16 = kBase16;
  const std::string nix32 = kNix32;
  const std::string base64 = kBase64;
  for (const std::string& text : {
           std::string(),
           std::string("sha256:"),
           std::string("sha256-"),
           "sha256-" + base16,  // SRI is base 64
           "sha256-" + nix32,
           "sha512:" + base16,
           "md5:" + base16,
           "SHA256:" + base16,
           "sha256:sha256:" + base16,
           "sha256 " + base16,
           base16.substr(1),
           base16 + "0",
           "g" + base16.substr(1),
           " " + base16.substr(1),
           base16.substr(0, 63) + "\n",
           std::string(64, '\0'),
           nix32.substr(1),
           nix32 + "0",
           "e" + nix32.substr(1),
           "Z" + nix32.substr(1),
           "2" + nix32.substr(1),  // bit 256
           "z" + nix32.substr(1),
           base64.substr(0, 43),
           base64.substr(0, 43) + "A",  // 33 bytes
           "-" + base64.substr(1),
           base64.substr(0, 42) + "x=",  // bits beyond the last byte
           base64.substr(0, 42) + "==",  // 31 bytes
           std::string(100000, 'a'),
       }) {
    EXPECT_EQ(ParseSha256(text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text.substr(0, 100);
  }
}

TEST(HashTextTest, EveryDigestComesBack) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<Sha256Digest> digests = {Sha256Digest{}};
  digests.emplace_back().fill(0xff);
  for (int i = 0; i < 500; ++i) digests.push_back(RandomDigest(&random));
  for (const Sha256Digest& digest : digests) {
    EXPECT_EQ(*ParseSha256(ToBase16(digest)), digest);
    EXPECT_EQ(*ParseSha256(ToNix32(digest)), digest);
    EXPECT_EQ(*ParseSha256(ToPrefixedNix32(digest)), digest);
    EXPECT_EQ(*ParseSha256("sha256-" + Base64Of(digest)), digest);
  }
}

// Against the Nix that is installed.
TEST(HashGoldenTest, ConvertsAsNixDoes) {
  const auto nix = PrivateNix::Create();
  ASSERT_TRUE(nix.ok()) << nix.status();
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<Sha256Digest> digests = {Sha256Digest{}};
  digests.emplace_back().fill(0xff);
  for (int i = 0; i < 200; ++i) digests.push_back(RandomDigest(&random));

  std::vector<std::string> to_base32 = {"nix-hash", "--type", "sha256",
                                        "--to-base32"};
  std::vector<std::string> to_base16 = {"nix-hash", "--type", "sha256",
                                        "--to-base16"};
  std::vector<std::string> to_sri = {"nix", "hash", "to-sri", "--type",
                                     "sha256"};
  std::string base16;
  std::string base32;
  std::string sri;
  for (const Sha256Digest& digest : digests) {
    to_base32.push_back(ToBase16(digest));
    to_base16.push_back(ToNix32(digest));
    to_sri.push_back(ToNix32(digest));
    base16 += ToBase16(digest) + "\n";
    base32 += ToNix32(digest) + "\n";
    sri += "sha256-" + Base64Of(digest) + "\n";
  }
  EXPECT_EQ((*nix)->Run(to_base32).value_or(""), base32);
  EXPECT_EQ((*nix)->Run(to_base16).value_or(""), base16);
  EXPECT_EQ((*nix)->Run(to_sri).value_or(""), sri);
}

}  // namespace
}  // namespace nixq
