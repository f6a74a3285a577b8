#include "storage/nix/store_path.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <unordered_set>
#include <vector>

namespace nixq {
namespace {

constexpr char kHash[] = "0123456789abcdfghijklmnpqrsvwxyz";

std::string Named(const std::string& name) {
  return std::string(kHash) + "-" + name;
}

StorePath Path(const std::string& name) {
  return *StorePath::FromBaseName(Named(name));
}

StoreDir Dir(const std::string& path) { return *StoreDir::Parse(path); }

TEST(StorePathTest, TakesEveryAllowedCharacter) {
  const std::string name =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-._?=";
  const StorePath path = Path(name);
  EXPECT_EQ(path.base_name(), Named(name));
  EXPECT_EQ(path.hash_part(), kHash);
  EXPECT_EQ(path.name(), name);
}

TEST(StorePathTest, TakesNamesOfOneTo211Characters) {
  EXPECT_TRUE(StorePath::FromBaseName(Named("x")).ok());
  EXPECT_TRUE(StorePath::FromBaseName(Named(std::string(211, 'x'))).ok());
  EXPECT_FALSE(StorePath::FromBaseName(Named("")).ok());
  EXPECT_FALSE(StorePath::FromBaseName(Named(std::string(212, 'x'))).ok());
}

TEST(StorePathTest, TakesLeadingDotsAsOldNixMadeThem) {
  for (const char* name : {".hidden", "...", ".-x", "..-x"}) {
    EXPECT_TRUE(StorePath::FromBaseName(Named(name)).ok()) << name;
  }
}

TEST(StorePathTest, RefusesTheRest) {
  using namespace std::string_literals;
  for (const std::string& text : {
           ""s,
           "-"s,
           "hello"s,
           std::string(kHash),
           std::string(kHash) + "_hello",
           std::string(kHash).substr(1) + "-hello",
           "e" + Named("hello").substr(1),  // not in the alphabet
           "o" + Named("hello").substr(1),
           "t" + Named("hello").substr(1),
           "u" + Named("hello").substr(1),
           "A" + Named("hello").substr(1),
           "/" + Named("hello").substr(1),
           Named("."),
           Named(".."),
           Named("a/b"),
           Named("a b"),
           Named("a\nb"),
           Named("a\0b"s),
           Named("a~b"),
           Named("caf\xc3\xa9"),
           Named("a*"),
           std::string(1 << 20, 'a'),
       }) {
    const absl::StatusOr<StorePath> path = StorePath::FromBaseName(text);
    EXPECT_EQ(path.status().code(), absl::StatusCode::kInvalidArgument)
        << text.substr(0, 100);
    // One printable line, however long or strange the text.
    const std::string message(path.status().message());
    EXPECT_LT(message.size(), 300u);
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_EQ(message.find('\0'), std::string::npos);
  }
}

TEST(StorePathTest, EveryByteElsewhereIsRefused) {
  const std::string allowed =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-._?=";
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const bool in_name = allowed.find(c) != std::string::npos;
    const bool in_hash = kNix32Alphabet.find(c) != std::string_view::npos;
    EXPECT_EQ(StorePath::FromBaseName(Named(std::string("x") + c)).ok(),
              in_name)
        << byte;
    EXPECT_EQ(StorePath::FromBaseName(c + Named("x").substr(1)).ok(), in_hash)
        << byte;
  }
}

TEST(StorePathTest, KnowsDerivations) {
  EXPECT_TRUE(Path("hello.drv").IsDerivation());
  EXPECT_FALSE(Path("hello.drv.bak").IsDerivation());
  EXPECT_FALSE(Path("hello").IsDerivation());
}

TEST(StorePathTest, SortsBytesAndHashes) {
  const std::set<StorePath> sorted = {Path("b"), Path("a"), Path("B"),
                                      Path("a-1")};
  std::string order;
  for (const StorePath& path : sorted) {
    order += std::string(path.name()) + " ";
  }
  EXPECT_EQ(order, "B a a-1 b ");
  EXPECT_EQ(Path("a"), Path("a"));
  EXPECT_NE(Path("a"), Path("b"));
  EXPECT_EQ(std::hash<StorePath>()(Path("a")),
            std::hash<StorePath>()(Path("a")));
  const std::unordered_set<StorePath> hashed = {Path("a"), Path("a"),
                                                Path("b")};
  EXPECT_EQ(hashed.size(), 2u);
}

TEST(StoreDirTest, IsAbsoluteAndPlain) {
  for (const char* good :
       {"/nix/store", "/s", "/tmp/a b/store", "/...", "/é"}) {
    EXPECT_TRUE(StoreDir::Parse(good).ok()) << good;
  }
  using namespace std::string_literals;
  for (const std::string& bad :
       {""s, "/"s, "nix/store"s, "/nix/store/"s, "//nix"s, "/nix//store"s,
        "/nix/./store"s, "/nix/../store"s, "/nix/.."s, "/nix/."s,
        "/nix\nstore"s, "/nix\0store"s, "/" + std::string(5000, 'x')}) {
    EXPECT_EQ(StoreDir::Parse(bad).status().code(),
              absl::StatusCode::kInvalidArgument)
        << bad.substr(0, 100);
  }
}

TEST(StoreDirTest, ComesFromTheEnvironmentAsNixReadsIt) {
  struct Row {
    const char* store_dir;
    const char* store;
    const char* path;
  };
  for (const Row& row : {
           Row{"", "", "/nix/store"},
           Row{"/a", "", "/a"},
           Row{"/a", "/b", "/a"},
           Row{"", "/b", "/b"},
           Row{"/a//b/./c/", "", "/a/b/c"},
       }) {
    EXPECT_EQ(StoreDir::FromEnvironment(row.store_dir, row.store)->path(),
              row.path);
  }
  for (const char* bad : {"relative", "/", "/a/../b", "//"}) {
    EXPECT_FALSE(StoreDir::FromEnvironment(bad, "").ok()) << bad;
  }
}

TEST(StoreDirTest, PrintsAndParsesFullPaths) {
  const StoreDir dir = Dir("/nix/store");
  const std::string full = dir.Print(Path("hello"));
  EXPECT_EQ(full, "/nix/store/" + Named("hello"));
  EXPECT_EQ(*dir.ParsePath(full), Path("hello"));
}

TEST(StoreDirTest, ParsePathTakesAStorePathExactly) {
  const StoreDir dir = Dir("/nix/store");
  for (const std::string& bad : std::vector<std::string>{
           std::string(),
           std::string("/"),
           std::string("/nix/store"),
           std::string("/nix/store/"),
           Named("hello"),
           "/nix/store/" + Named("hello") + "/",
           "/nix/store/" + Named("hello") + "/bin",
           "/nix/store//" + Named("hello"),
           "/nix/store/./" + Named("hello"),
           "/nix/store/../store/" + Named("hello"),
           "/nix/stores/" + Named("hello"),
           "/nix/store-" + Named("hello"),
           "/other/" + Named("hello"),
           "nix/store/" + Named("hello"),
           " /nix/store/" + Named("hello"),
           "/nix/store/.links",
           "/nix/store/" + Named("hello") + ".lock\n",
       }) {
    EXPECT_EQ(dir.ParsePath(bad).status().code(),
              absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

TEST(StoreDirTest, PathContainingCutsBehindTheName) {
  const StoreDir dir = Dir("/nix/store");
  const std::string full = dir.Print(Path("hello"));
  for (const char* below : {"", "/", "/bin/sh", "/a..b/...", "/bin//x/"}) {
    const absl::StatusOr<StorePath> path = dir.PathContaining(full + below);
    ASSERT_TRUE(path.ok()) << below << ": " << path.status();
    EXPECT_EQ(*path, Path("hello"));
  }
  for (const std::string& bad : std::vector<std::string>{
           full + "/..", full + "/../" + Named("other"), full + "/bin/../..",
           std::string("/nix/store/"), std::string("/nix/store"),
           std::string("/nix"), std::string("/bin/sh")}) {
    EXPECT_EQ(dir.PathContaining(bad).status().code(),
              absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

}  // namespace
}  // namespace nixq
