#include "storage/nix/narinfo.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "storage/base/io.h"
#include "storage/base/text.h"
#include "storage/nix/nar.h"
#include "storage/nix/signature.h"
#include "tests/support/private_nix.h"

namespace nixq {
namespace {

constexpr size_t kEnough = 1 << 20;

StoreDir NixStore() { return *StoreDir::Parse("/nix/store"); }

StorePath Path(const std::string& name) {
  return *StorePath::FromBaseName("0123456789abcdfghijklmnpqrsvwxyz-" + name);
}

absl::StatusOr<NarInfo> Parse(std::string_view text) {
  return ParseNarInfo(NixStore(), text);
}

// Lines of a narinfo by name; "Sig" and the like may be added.
std::string Text(
    const std::vector<std::pair<std::string, std::string>>& lines) {
  std::string text;
  for (const auto& [name, value] : lines) {
    text.append(name).append(": ").append(value).append("\n");
  }
  return text;
}

constexpr char kHash[] =
    "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
constexpr char kFull[] =
    "StorePath: /nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello\n"
    "URL: nar/x.nar.zst\n"
    "Compression: zstd\n"
    "FileHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n"
    "FileSize: 18446744073709551615\n"
    "NarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n"
    "NarSize: 120\n"
    "References: 0123456789abcdfghijklmnpqrsvwxyz-a "
    "0123456789abcdfghijklmnpqrsvwxyz-hello\n"
    "Deriver: 0123456789abcdfghijklmnpqrsvwxyz-hello.drv\n"
    "Sig: a:AAAA\n"
    "Sig: b:BBBB\n"
    "CA: fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n";

// What a narinfo needs at least.
std::vector<std::pair<std::string, std::string>> Least() {
  return {{"StorePath", NixStore().Print(Path("hello"))},
          {"URL", "nar/x.nar"},
          {"NarHash", kHash},
          {"NarSize", "120"}};
}

TEST(NarInfoTest, EveryFieldIsReadAndWritten) {
  const auto narinfo = Parse(kFull);
  ASSERT_TRUE(narinfo.ok()) << narinfo.status();
  EXPECT_EQ(narinfo->info.path, Path("hello"));
  EXPECT_EQ(narinfo->url, "nar/x.nar.zst");
  EXPECT_EQ(narinfo->compression, "zstd");
  EXPECT_EQ(narinfo->file_hash, Sha256::Of(""));
  EXPECT_EQ(narinfo->file_size_bytes, 18446744073709551615u);
  EXPECT_EQ(narinfo->info.nar_hash, Sha256::Of(""));
  EXPECT_EQ(narinfo->info.nar_size_bytes, 120u);
  EXPECT_EQ(narinfo->info.references,
            (std::vector<StorePath>{Path("a"), Path("hello")}));
  EXPECT_EQ(narinfo->info.deriver, Path("hello.drv"));
  EXPECT_EQ(narinfo->info.signatures,
            (std::vector<std::string>{"a:AAAA", "b:BBBB"}));
  EXPECT_TRUE(narinfo->info.content_address.starts_with("fixed:r:sha256:"));
  EXPECT_EQ(FormatNarInfo(NixStore(), *narinfo), kFull);
}

TEST(NarInfoTest, WritesEmptyReferencesAndLeavesOutTheUnknown) {
  NarInfo narinfo = *Parse(Text(Least()));
  narinfo.compression = "none";
  EXPECT_EQ(FormatNarInfo(NixStore(), narinfo),
            "StorePath: /nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello\n"
            "URL: nar/x.nar\n"
            "Compression: none\n"
            "NarHash: " +
                std::string(kHash) +
                "\n"
                "NarSize: 120\n"
                "References: \n");
}

TEST(NarInfoTest, WritesSetsSortedAndOnce) {
  NarInfo narinfo = *Parse(kFull);
  narinfo.info.signatures = {"b:BBBB", "a:AAAA", "b:BBBB"};
  narinfo.info.references = {Path("hello"), Path("a"), Path("a")};
  EXPECT_EQ(FormatNarInfo(NixStore(), narinfo), kFull);
}

TEST(NarInfoTest, AValueCannotBecomeMoreFields) {
  NarInfo narinfo = *Parse(kFull);
  narinfo.info.signatures.push_back("c:CCCC\nStorePath: /nix/store/evil");
  narinfo.info.content_address += "\nSig: evil:AAAA";
  const std::string text = FormatNarInfo(NixStore(), narinfo);
  EXPECT_EQ(text.find("evil"), std::string::npos) << text;
  EXPECT_TRUE(Parse(text).ok());
}

TEST(NarInfoTest, ReadsWhatNixReads) {
  using Lines = std::vector<std::pair<std::string, std::string>>;
  const auto with = [](const Lines& more) {
    Lines lines = Least();
    lines.insert(lines.end(), more.begin(), more.end());
    return Parse(Text(lines));
  };
  EXPECT_EQ(with({})->compression, "bzip2");
  EXPECT_EQ(with({{"Compression", ""}})->compression, "bzip2");
  EXPECT_EQ(with({{"Compression", "br"}})->compression, "br");
  EXPECT_EQ(with({})->file_hash, std::nullopt);
  EXPECT_EQ(with({})->file_size_bytes, 0u);
  EXPECT_EQ(with({{"Deriver", "unknown-deriver"}})->info.deriver, std::nullopt);
  EXPECT_TRUE(with({{"System", "x86_64-linux"}, {"X-New", "a: b: c"}}).ok());
  EXPECT_TRUE(with({{"", ""}}).ok());
  EXPECT_EQ(with({{"FileHash", "sha512:whatever"}})->file_hash, std::nullopt);
  EXPECT_EQ(with({{"FileHash",
                   "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e"
                   "4649b934ca495991b7852b855"}})
                ->file_hash,
            Sha256::Of(""));
  EXPECT_EQ(
      with({{"NarHash", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}})
          ->info.nar_hash,
      Sha256::Of(""));
  // Empty References may be followed by the real ones.
  EXPECT_EQ(with({{"References", ""}, {"References", Path("a").base_name()}})
                ->info.references.size(),
            1u);
  // Sets, whatever the order they came in.
  const auto sets = with(
      {{"References", Path("b").base_name() + "  " + Path("a").base_name() +
                          " " + Path("b").base_name()},
       {"Sig", "b:B"},
       {"Sig", "a:A"},
       {"Sig", "b:B"}});
  EXPECT_EQ(sets->info.references,
            (std::vector<StorePath>{Path("a"), Path("b")}));
  EXPECT_EQ(sets->info.signatures, (std::vector<std::string>{"a:A", "b:B"}));
}

TEST(NarInfoTest, SaysWhichLineAndFieldIsWrong) {
  struct Row {
    std::string name;
    std::string value;
    std::string message;
  };
  using namespace std::string_literals;
  for (const Row& row : std::vector<Row>{
           {"StorePath", Path("hello").base_name(), "StorePath: "},
           {"StorePath", "/other/" + Path("hello").base_name(), "StorePath: "},
           {"StorePath", NixStore().Print(Path("hello")) + "/bin",
            "StorePath: "},
           {"StorePath", NixStore().Print(Path("hello")) + "\r", "StorePath: "},
           {"StorePath", "", "StorePath: "},
           {"FileHash", "sha256:", "FileHash: "},
           {"FileHash", "garbage", "FileHash: "},
           {"FileSize", "", "FileSize: not a number"},
           {"FileSize", "-1", "FileSize: not a number"},
           {"FileSize", "1 ", "FileSize: not a number"},
           {"FileSize", "18446744073709551616", "FileSize: not a number"},
           {"NarHash", std::string(kHash).substr(7), "NarHash: "},
           {"NarHash", "sha512:" + std::string(86, 'A') + "==", "NarHash: "},
           {"NarHash", std::string(kHash) + "0", "NarHash: "},
           {"NarSize", "0x78", "NarSize: not a number"},
           {"References", "hello", "References: "},
           {"References", NixStore().Print(Path("a")), "References: "},
           {"References", Path("a").base_name() + "\0"s, "References: "},
           {"Deriver", "", "Deriver: "},
           {"Deriver", "x", "Deriver: "},
       }) {
    auto lines = Least();
    lines.emplace_back(row.name, row.value);
    const absl::Status status = Parse(Text(lines)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row.name;
    EXPECT_NE(std::string(status.message()).find("line 5: " + row.message),
              std::string::npos)
        << status;
  }
  for (const char* once : {"References", "CA"}) {
    auto lines = Least();
    lines.emplace_back(once, Path("a").base_name());
    lines.emplace_back(once, Path("a").base_name());
    EXPECT_NE(std::string(Parse(Text(lines)).status().message())
                  .find("line 6: " + std::string(once) + ": given more than"),
              std::string::npos);
  }
}

TEST(NarInfoTest, SaysWhatIsMissing) {
  for (const auto& field : Least()) {
    const std::string& missing = field.first;
    auto lines = Least();
    lines.erase(std::find_if(lines.begin(), lines.end(), [&](const auto& line) {
      return line.first == missing;
    }));
    const absl::Status status = Parse(Text(lines)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find(missing + " is missing"),
              std::string::npos)
        << status;
  }
  for (const auto& [name, empty] :
       std::map<std::string, std::string>{{"URL", ""}, {"NarSize", "0"}}) {
    auto lines = Least();
    lines.emplace_back(name, empty);
    EXPECT_FALSE(Parse(Text(lines)).ok()) << name;
  }
}

TEST(NarInfoTest, RefusesWhatIsNoNarinfo) {
  const std::string full = kFull;
  using namespace std::string_literals;
  for (const std::string& text : std::vector<std::string>{
           "",
           "\n",
           "<html>404</html>\n",
           full.substr(0, full.size() - 1),  // the last newline is missing
           full + "X",
           full + "X: y",
           full + "no colon\n",
           full + "Name:no space\n",
           full + "References:\n",
           "\xef\xbb\xbf" + full,  // a byte order mark
           full + std::string(100, '\0'),
           std::string((size_t{4} << 20) + 1, '\n'),
           full + "X: " + std::string(size_t{4} << 20, 'x') + "\n",
       }) {
    EXPECT_EQ(Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text.substr(0, 100);
  }
}

TEST(NarInfoTest, NoTruncationLooksLikeAWholeOne) {
  const std::string full = kFull;
  for (size_t length = 0; length < full.size(); ++length) {
    const auto narinfo = Parse(full.substr(0, length));
    // Whole lines missing at the end cannot be noticed; cut lines can.
    if (length > 0 && full[length - 1] == '\n') continue;
    EXPECT_FALSE(narinfo.ok()) << length;
  }
}

TEST(CacheInfoTest, IsReadAndWritten) {
  const std::string text =
      "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n";
  const auto info = ParseCacheInfo(text);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->store_dir, "/nix/store");
  EXPECT_TRUE(info->want_mass_query);
  EXPECT_EQ(info->priority, 40);
  EXPECT_EQ(FormatCacheInfo(*info), text);
  EXPECT_EQ(FormatCacheInfo(
                {.store_dir = "/s", .want_mass_query = false, .priority = {}}),
            "StoreDir: /s\nWantMassQuery: 0\n");
}

TEST(CacheInfoTest, ReadsWhatNixReads) {
  const auto info = ParseCacheInfo(
      "no colon\n\nStoreDir:/a b/store \r\nPriority:  -3\nX: y\n"
      "WantMassQuery: 1\nWantMassQuery: true");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->store_dir, "/a b/store");
  EXPECT_EQ(info->priority, -3);
  EXPECT_FALSE(info->want_mass_query);
  const auto empty = ParseCacheInfo("");
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->store_dir, "");
  EXPECT_EQ(empty->priority, std::nullopt);
}

TEST(CacheInfoTest, RefusesBadNumbersAndSizes) {
  for (const char* priority : {"", "x", "40x", "4.0", "99999999999", "+1"}) {
    EXPECT_EQ(ParseCacheInfo("Priority: " + std::string(priority) + "\n")
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument)
        << priority;
  }
  EXPECT_FALSE(ParseCacheInfo(std::string(4 * 1024 * 1024 + 1, 'x')).ok());
}

// Against the Nix that is installed: a cache that it has written.
class NarInfoGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    auto nix = PrivateNix::Create();
    ASSERT_TRUE(nix.ok()) << nix.status();
    nix_ = *std::move(nix);
    secret_file_ = nix_->base() + "/secret";
    const std::string public_file = nix_->base() + "/public";
    const auto made = nix_->Run({"nix-store", "--generate-binary-cache-key",
                                 "cache.example-1", secret_file_, public_file});
    ASSERT_TRUE(made.ok()) << made.status();
  }

  // Copies paths into a new cache and checks each narinfo in it, which are
  // `count`. Leaves them in narinfos_.
  void CopyAndCheck(const std::vector<StorePath>& paths,
                    const std::string& compression, size_t count) {
    SCOPED_TRACE(compression);
    const std::string cache = nix_->base() + "/cache-" + compression;
    std::vector<std::string> copy = {"nix", "copy", "--to",
                                     "file://" + cache +
                                         "?compression=" + compression +
                                         "&secret-key=" + secret_file_};
    for (const StorePath& path : paths) copy.push_back(nix_->Print(path));
    const auto copied = nix_->Run(copy);
    ASSERT_TRUE(copied.ok()) << copied.status();
    const auto names = ListDirectory(cache, 1000);
    ASSERT_TRUE(names.ok()) << names.status();
    narinfos_.clear();
    const std::string directory = cache + "/";
    for (const std::string& name : *names) {
      if (name.ends_with(".narinfo")) CheckNarInfo(directory + name);
    }
    EXPECT_EQ(narinfos_.size(), count);
    const auto info =
        ParseCacheInfo(*ReadFile(cache + "/nix-cache-info", kEnough));
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->store_dir, nix_->store_dir().path());
  }

  void CheckNarInfo(const std::string& file) {
    SCOPED_TRACE(file);
    const auto text = ReadFile(file, kEnough);
    ASSERT_TRUE(text.ok()) << text.status();
    const auto narinfo = ParseNarInfo(nix_->store_dir(), *text);
    ASSERT_TRUE(narinfo.ok()) << narinfo.status() << "\n" << *text;
    EXPECT_EQ(FormatNarInfo(nix_->store_dir(), *narinfo), *text);

    // Nix's signature is ours, and its hash and size are those of our NAR.
    const auto key = SecretKey::Load(secret_file_);
    ASSERT_TRUE(key.ok()) << key.status();
    const std::string signature =
        key->Sign(Fingerprint(nix_->store_dir(), narinfo->info));
    EXPECT_EQ(narinfo->info.signatures, std::vector<std::string>{signature});
    EXPECT_TRUE(
        PublicKey::Parse(key->PublicKeyText())
            ->Verify(Fingerprint(nix_->store_dir(), narinfo->info), signature));
    Sha256 hash;
    uint64_t size = 0;
    ASSERT_TRUE(WriteNar(nix_->Print(narinfo->info.path), {},
                         [&](std::string_view bytes) {
                           hash.Update(bytes);
                           size += bytes.size();
                           return absl::OkStatus();
                         })
                    .ok());
    EXPECT_EQ(hash.Finish(), narinfo->info.nar_hash);
    EXPECT_EQ(size, narinfo->info.nar_size_bytes);

    // The file that it names has the size and hash that it says.
    const std::string directory = file.substr(0, file.rfind('/') + 1);
    const auto nar = ReadFile(directory + narinfo->url, kEnough);
    ASSERT_TRUE(nar.ok()) << nar.status();
    EXPECT_EQ(nar->size(), narinfo->file_size_bytes);
    EXPECT_EQ(Sha256::Of(*nar), narinfo->file_hash);
    narinfos_.push_back(*narinfo);
  }

  std::unique_ptr<PrivateNix> nix_;
  std::string secret_file_;
  std::vector<NarInfo> narinfos_;
};

TEST_F(NarInfoGoldenTest, NixWritesWhatWeWrite) {
  std::vector<StorePath> paths;
  for (const std::string& expression :
       {ChainExpression("chain", 4), MultiOutputExpression("multi"),
        SelfReferenceExpression("self"), DiamondExpression("diamond")}) {
    const auto built = nix_->Build(expression);
    ASSERT_TRUE(built.ok()) << built.status();
    paths.insert(paths.end(), built->begin(), built->end());
  }
  const auto added = nix_->AddFile("added", "content-addressed");
  ASSERT_TRUE(added.ok()) << added.status();
  paths.push_back(*added);

  for (const char* compression : {"none", "xz", "zstd"}) {
    // Chain 4, self 1, diamond 4, added 1; of multi, what nix-build printed
    // and what that refers to.
    const size_t multi = std::count_if(
        paths.begin(), paths.end(),
        [](const StorePath& path) { return path.name().starts_with("multi"); });
    const bool dev_printed = std::any_of(
        paths.begin(), paths.end(),
        [](const StorePath& path) { return path.name() == "multi-dev"; });
    CopyAndCheck(paths, compression, 10 + multi + (dev_printed ? 0 : 1));
    const auto has = [this](auto predicate) {
      return std::any_of(narinfos_.begin(), narinfos_.end(), predicate);
    };
    EXPECT_TRUE(
        has([](const NarInfo& n) { return n.info.references.empty(); }));
    EXPECT_TRUE(has([](const NarInfo& n) {
      return n.info.references == std::vector<StorePath>{n.info.path};
    }));
    EXPECT_TRUE(
        has([](const NarInfo& n) { return n.info.deriver.has_value(); }));
    EXPECT_TRUE(has([](const NarInfo& n) {
      return n.info.content_address.starts_with("fixed:r:sha256:") &&
             !n.info.deriver.has_value();
    }));
    EXPECT_TRUE(has([&](const NarInfo& n) {
      return n.compression == compression && n.info.references.size() == 2;
    }));
  }
}

TEST_F(NarInfoGoldenTest, NixReadsWhatWeWrite) {
  const auto built = nix_->Build(SelfReferenceExpression("self"));
  ASSERT_TRUE(built.ok()) << built.status();
  CopyAndCheck(*built, "none", 1);
  ASSERT_EQ(narinfos_.size(), 1u);
  const std::string cache = nix_->base() + "/cache-none";
  const std::string file =
      cache + "/" + std::string(built->front().hash_part()) + ".narinfo";
  NarInfo narinfo = narinfos_.front();
  narinfo.info.signatures.push_back("other:" +
                                    Base64Encode(std::string(64, 'x')));
  ASSERT_TRUE(
      WriteFileAtomically(file, FormatNarInfo(nix_->store_dir(), narinfo), 0644)
          .ok());
  ASSERT_TRUE(WriteFileAtomically(cache + "/nix-cache-info",
                                  FormatCacheInfo({
                                      .store_dir = nix_->store_dir().path(),
                                      .want_mass_query = true,
                                      .priority = 40,
                                  }),
                                  0644)
                  .ok());
  // --sigs-needed 1 fails for a path whose signature is not the key's.
  const auto key = SecretKey::Load(secret_file_);
  ASSERT_TRUE(key.ok());
  const auto verified =
      nix_->Run({"nix", "store", "verify", "--store", "file://" + cache,
                 "--sigs-needed", "1", "--option", "trusted-public-keys",
                 key->PublicKeyText(), nix_->Print(built->front())});
  EXPECT_TRUE(verified.ok()) << verified.status();
  const auto refused =
      nix_->Run({"nix", "store", "verify", "--store", "file://" + cache,
                 "--sigs-needed", "1", "--option", "trusted-public-keys",
                 "cache.example-1:" + Base64Encode(std::string(32, 'x')),
                 nix_->Print(built->front())});
  EXPECT_FALSE(refused.ok());
}

}  // namespace
}  // namespace nixq
