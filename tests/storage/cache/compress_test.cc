#include "storage/cache/compress.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

constexpr size_t kMaxPieceBytes = 128 << 10;

// Text-like and random stretches, so that there is something to find and
// something that cannot be compressed.
std::string Sample(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes;
  while (bytes.size() < size) {
    if (random() % 4 == 0) {
      for (int i = 0; i < 300; ++i) bytes += static_cast<char>(random());
    } else {
      bytes += absl::StrFormat("/nix/store/%d-thing/lib/lib%d.so\n",
                               random() % 50, random() % 500);
    }
  }
  bytes.resize(size);
  return bytes;
}

absl::StatusOr<std::string> Compress(const CompressionSettings& settings,
                                     std::string_view bytes, size_t piece,
                                     int threads = 1,
                                     std::optional<uint64_t> hint = {}) {
  std::string out;
  const auto sink = [&out](std::string_view part) {
    EXPECT_LE(part.size(), kMaxPieceBytes);
    EXPECT_GT(part.size(), 0u);
    out += part;
    return absl::OkStatus();
  };
  NIXQ_ASSIGN_OR_RETURN(
      auto compressor,
      MakeCompressor(settings, hint.value_or(bytes.size()), threads));
  while (!bytes.empty()) {
    NIXQ_RETURN_IF_ERROR(compressor->Write(bytes.substr(0, piece), sink));
    bytes.remove_prefix(std::min(piece, bytes.size()));
  }
  NIXQ_RETURN_IF_ERROR(compressor->Finish(sink));
  return out;
}

// By the programs that everybody has, not by our libraries.
std::string Decompress(Compression method, const std::string& bytes) {
  if (method == Compression::kNone) return bytes;
  TemporaryDirectory directory;
  const std::string file =
      directory / "file" + std::string(CompressionExtension(method));
  EXPECT_TRUE(WriteFileAtomically(file, bytes, 0600).ok());
  SubprocessOptions options;
  options.argv = {method == Compression::kZstd ? "zstd" : "xz", "-d", "-q",
                  file};
  options.environment = {"PATH=/usr/bin:/bin"};
  Cancellation never;
  const auto result = RunSubprocess(options, never);
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_code, 0) << result->standard_error;
  return ReadFile(directory / "file", 1 << 30).value_or("?");
}

struct Case {
  Compression method;
  std::optional<int> level;
  int threads;
};

class CompressTest : public testing::TestWithParam<Case> {
 protected:
  // xz takes ten times as long as the others.
  std::string Input(size_t size, unsigned seed) const {
    return Sample(GetParam().method == Compression::kXz ? size / 10 : size,
                  seed);
  }
  CompressionSettings settings() const {
    return {GetParam().method, GetParam().level};
  }
};

TEST_P(CompressTest, RoundTripsThroughTheProgram) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{1000}, size_t{131072},
                      size_t{700001}, size_t{5000000}}) {
    const std::string bytes = Input(size, 1);
    const auto compressed =
        Compress(settings(), bytes, 256 << 10, GetParam().threads);
    ASSERT_TRUE(compressed.ok()) << compressed.status();
    EXPECT_TRUE(Decompress(GetParam().method, *compressed) == bytes) << size;
  }
}

TEST_P(CompressTest, TheSameInputGivesTheSameOutputHoweverItIsCut) {
  const std::string bytes = Input(3000000, 2);
  const auto first = Compress(settings(), bytes, 1 << 30, GetParam().threads);
  ASSERT_TRUE(first.ok()) << first.status();
  for (size_t piece : {1000, 65536, 262144, 1000003}) {
    const auto other = Compress(settings(), bytes, piece, GetParam().threads);
    EXPECT_TRUE(*first == *other) << piece;
  }
}

TEST_P(CompressTest, AWrongHintDoesNoHarm) {
  const std::string bytes = Input(400000, 3);
  for (uint64_t hint : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40}) {
    const auto compressed =
        Compress(settings(), bytes, 100000, GetParam().threads, hint);
    ASSERT_TRUE(compressed.ok()) << compressed.status();
    EXPECT_TRUE(Decompress(GetParam().method, *compressed) == bytes) << hint;
  }
}

TEST_P(CompressTest, ErrorsOfTheSinkComeBack) {
  auto compressor = MakeCompressor(settings(), 0, GetParam().threads);
  ASSERT_TRUE(compressor.ok());
  const auto sink = [](std::string_view) {
    return absl::ResourceExhaustedError("full");
  };
  absl::Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {
    status = (*compressor)->Write(Input(1000000, 4), sink);
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

INSTANTIATE_TEST_SUITE_P(
    Methods, CompressTest,
    testing::Values(Case{Compression::kNone, std::nullopt, 1},
                    Case{Compression::kZstd, std::nullopt, 1},
                    Case{Compression::kZstd, 1, 1},
                    Case{Compression::kZstd, 9, 1},
                    Case{Compression::kZstd, std::nullopt, 2},
                    Case{Compression::kXz, 1, 1},
                    Case{Compression::kXz, std::nullopt, 1}),
    [](const auto& test) {
      return std::string(CompressionName(test.param.method)) +
             (test.param.level ? absl::StrFormat("Level%d", *test.param.level)
                               : "") +
             (test.param.threads > 1 ? "Threads" : "");
    });

TEST(CompressSettingsTest, LevelsOutOfRangeAreRefused) {
  for (const CompressionSettings& bad :
       {CompressionSettings{Compression::kZstd, 0},
        CompressionSettings{Compression::kZstd, 20},
        CompressionSettings{Compression::kXz, -1},
        CompressionSettings{Compression::kXz, 10}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(MakeCompressor(bad, 0, 1).status()));
  }
  EXPECT_TRUE(MakeCompressor({Compression::kZstd, 19}, 1000, 1).ok());
  EXPECT_TRUE(MakeCompressor({Compression::kXz, 9}, 1000, 1).ok());
}

TEST(CompressSettingsTest, NamesAreNixs) {
  EXPECT_EQ(CompressionFromName("none"), Compression::kNone);
  EXPECT_EQ(CompressionFromName("zstd"), Compression::kZstd);
  EXPECT_EQ(CompressionFromName("xz"), Compression::kXz);
  EXPECT_EQ(CompressionFromName("bzip2"), std::nullopt);
  EXPECT_EQ(CompressionFromName(""), std::nullopt);
  EXPECT_EQ(CompressionExtension(Compression::kNone), "");
  EXPECT_EQ(CompressionExtension(Compression::kZstd), ".zst");
  EXPECT_EQ(CompressionExtension(Compression::kXz), ".xz");
}

}  // namespace
}  // namespace nixq
