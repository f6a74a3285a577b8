// From a store path to what Nix reads: NAR, narinfo, nix-cache-info.
#include "storage/cache/binary_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "absl/strings/str_format.h"
#include "storage/base/clock.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/cache/directory_cache.h"
#include "storage/cache/http_cache.h"
#include "storage/nix/hash.h"
#include "storage/nix/nar.h"
#include "tests/support/bad_http_server.h"
#include "tests/support/memory_blob_store.h"
#include "tests/support/nginx.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

MATCHER_P(IsOkAnd, value, "") { return arg.ok() && *arg == value; }

// Bytes that do not compress, so that files at the target are as large as what
// was sent.
std::string Noise(size_t size) {
  std::mt19937_64 random(size);
  std::string bytes(size, '\0');
  for (size_t i = 0; i + 8 <= size; i += 8) {
    const uint64_t word = random();
    std::copy_n(reinterpret_cast<const char*>(&word), 8, &bytes[i]);
  }
  return bytes;
}

std::vector<std::string> FilesBelow(const std::string& directory) {
  std::vector<std::string> files;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) files.push_back(entry.path().filename());
  }
  return files;
}

// A store directory with objects in it, and what Nix would know about them.
class FakeStore {
 public:
  const std::string& real_dir() const { return directory_.path(); }
  std::string RealPath(const PathInfo& info) const {
    return directory_ / info.path.base_name();
  }

  PathInfo Add(const std::string& name, const std::string& contents) {
    const std::string base_name = absl::StrFormat("%032d-%s", next_++, name);
    EXPECT_TRUE(
        WriteFileAtomically(directory_ / base_name, contents, 0644).ok());
    PathInfo info{.path = *StorePath::FromBaseName(base_name)};
    Sha256 hash;
    EXPECT_TRUE(WriteNar(directory_ / base_name, NarOptions{},
                         [&](std::string_view bytes) {
                           hash.Update(bytes);
                           info.nar_size_bytes += bytes.size();
                           return absl::OkStatus();
                         })
                    .ok());
    info.nar_hash = hash.Finish();
    info.references = {info.path};
    return info;
  }

  // Flips one bit in the last byte of a file, where it is read last.
  void FlipLastByte(const PathInfo& info) {
    const UniqueFd fd(open(RealPath(info).c_str(), O_RDWR));
    const off_t last = lseek(fd.get(), -1, SEEK_END);
    char byte;
    ASSERT_EQ(pread(fd.get(), &byte, 1, last), 1);
    byte ^= 1;
    ASSERT_EQ(pwrite(fd.get(), &byte, 1, last), 1);
  }

 private:
  TemporaryDirectory directory_;
  int next_ = 0;
};

class BinaryCacheTest : public testing::Test {
 protected:
  BinaryCacheOptions Options(Compression method = Compression::kZstd) {
    return {.store_dir = *StoreDir::Parse("/nix/store"),
            .real_store_dir = store_.real_dir(),
            .compression = {.method = method}};
  }
  std::unique_ptr<BlobStore> Memory() {
    return std::make_unique<MemoryBlobStore>(memory_);
  }
  BinaryCache InMemory(Compression method = Compression::kZstd) {
    return BinaryCache(Options(method), Memory());
  }
  absl::StatusOr<NarInfo> Send(BinaryCache& cache, const PathInfo& info) {
    return cache.SendNar(info, progress_, cancel_);
  }

  FakeStore store_;
  MemoryBlobStore::State memory_;
  Progress progress_{0};
  Cancellation cancel_;
};

TEST_F(BinaryCacheTest, PrepareMakesTheCacheInfoOnce) {
  BinaryCache cache = InMemory();
  EXPECT_TRUE(absl::IsFailedPrecondition(cache.Prepare(false, cancel_)));
  EXPECT_TRUE(memory_.blobs.empty());
  ASSERT_TRUE(cache.Prepare(true, cancel_).ok());
  EXPECT_EQ(memory_.blobs.at("nix-cache-info"),
            "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");
  ASSERT_TRUE(cache.Prepare(true, cancel_).ok());
  ASSERT_TRUE(cache.Prepare(false, cancel_).ok());
  EXPECT_THAT(memory_.calls, ElementsAre("Put nix-cache-info"));
}

TEST_F(BinaryCacheTest, PrepareRefusesAnotherStoresCache) {
  BinaryCache cache = InMemory();
  memory_.blobs["nix-cache-info"] = "StoreDir: /gnu/store\n";
  const absl::Status prepared = cache.Prepare(true, cancel_);
  EXPECT_TRUE(absl::IsFailedPrecondition(prepared)) << prepared;
  EXPECT_THAT(std::string(prepared.message()), HasSubstr("/gnu/store"));
  EXPECT_EQ(memory_.blobs["nix-cache-info"], "StoreDir: /gnu/store\n");
  memory_.blobs["nix-cache-info"] = "<html>";
  EXPECT_TRUE(absl::IsFailedPrecondition(cache.Prepare(true, cancel_)));
}

TEST_F(BinaryCacheTest, SendShowReadAndPresent) {
  BinaryCache cache = InMemory();
  const PathInfo info = store_.Add("hello", "Hello, World!\n");
  const PathInfo other = store_.Add("other", "x");
  const auto narinfo = Send(cache, info);
  ASSERT_TRUE(narinfo.ok()) << narinfo.status();
  EXPECT_EQ(narinfo->url, "nar/" + ToNix32(info.nar_hash) + ".nar.zst");
  EXPECT_EQ(narinfo->compression, "zstd");
  const std::string& file = memory_.blobs.at(narinfo->url);
  EXPECT_EQ(narinfo->file_size_bytes, file.size());
  EXPECT_EQ(narinfo->file_hash, Sha256::Of(file));
  EXPECT_EQ(progress_.load(), info.nar_size_bytes);
  EXPECT_EQ(memory_.content_types.at(narinfo->url), "application/x-nix-nar");

  EXPECT_TRUE(absl::IsNotFound(cache.Read(info.path, cancel_).status()));
  EXPECT_THAT(*cache.Present({info.path, other.path}, cancel_),
              ElementsAre(IsOkAnd(false), IsOkAnd(false)));
  ASSERT_TRUE(cache.Show(*narinfo, cancel_).ok());
  EXPECT_THAT(*cache.Present({other.path, info.path}, cancel_),
              ElementsAre(IsOkAnd(false), IsOkAnd(true)));
  const auto read = cache.Read(info.path, cancel_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->info.nar_hash, info.nar_hash);
  EXPECT_EQ(read->info.references, info.references);
  EXPECT_EQ(read->file_hash, narinfo->file_hash);
}

TEST_F(BinaryCacheTest, SmallNarsArePutWholeLargeOnesStream) {
  BinaryCache cache = InMemory();
  const auto small = Send(cache, store_.Add("small", Noise(1000000)));
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_THAT(memory_.calls, ElementsAre("Put " + small->url));
  memory_.calls.clear();
  const auto large = Send(cache, store_.Add("large", Noise(3000000)));
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_THAT(memory_.calls,
              ElementsAre("StartPut " + large->url, "Commit " + large->url));
  EXPECT_EQ(large->file_hash, Sha256::Of(memory_.blobs.at(large->url)));
}

TEST_F(BinaryCacheTest, WithoutCompressionTheSizeIsKnown) {
  memory_.refuse_unsized = true;
  BinaryCache cache = InMemory(Compression::kNone);
  const PathInfo info = store_.Add("large", Noise(3000000));
  const auto narinfo = Send(cache, info);
  ASSERT_TRUE(narinfo.ok()) << narinfo.status();
  EXPECT_EQ(narinfo->compression, "none");
  EXPECT_EQ(narinfo->file_hash, info.nar_hash);
  EXPECT_EQ(narinfo->file_size_bytes, info.nar_size_bytes);
  EXPECT_THAT(memory_.calls, ElementsAre("StartPut " + narinfo->url,
                                         "Commit " + narinfo->url));
}

TEST_F(BinaryCacheTest, ATargetThatWantsTheSizeGetsIt) {
  const PathInfo info = store_.Add("large", Noise(3000000));
  for (bool at_once : {true, false}) {
    memory_.refuse_unsized = at_once;
    memory_.refuse_unsized_at_commit = !at_once;
    memory_.blobs.clear();
    BinaryCache cache = InMemory();
    const auto narinfo = Send(cache, info);
    ASSERT_TRUE(narinfo.ok()) << narinfo.status();
    EXPECT_EQ(narinfo->file_hash, Sha256::Of(memory_.blobs.at(narinfo->url)));
    EXPECT_EQ(narinfo->file_size_bytes, memory_.blobs.at(narinfo->url).size());
    EXPECT_EQ(progress_.load(), info.nar_size_bytes);
  }
}

TEST_F(BinaryCacheTest, ErrorsOfTheTargetAreNotThePaths) {
  BinaryCache cache = InMemory();
  memory_.put_error =
      WithRetryAfter(absl::UnavailableError("away"), absl::Seconds(3));
  for (size_t size : {1000, 3000000}) {
    const auto sent = Send(cache, store_.Add("x", Noise(size)));
    EXPECT_TRUE(absl::IsUnavailable(sent.status())) << sent.status();
    EXPECT_FALSE(IsPathsFault(sent.status()));
    EXPECT_EQ(RetryAfterOf(sent.status()), absl::Seconds(3));
  }
}

TEST_F(BinaryCacheTest, WhatIsMissingOrNoFileIsCorrupt) {
  BinaryCache cache = InMemory();
  const PathInfo info = store_.Add("x", "x");
  ASSERT_TRUE(std::filesystem::remove(store_.RealPath(info)));
  auto sent = Send(cache, info);
  EXPECT_TRUE(absl::IsDataLoss(sent.status())) << sent.status();
  EXPECT_TRUE(IsPathsFault(sent.status()));
  ASSERT_EQ(mkfifo(store_.RealPath(info).c_str(), 0644), 0);
  sent = Send(cache, info);
  EXPECT_TRUE(absl::IsDataLoss(sent.status())) << sent.status();
  EXPECT_TRUE(IsPathsFault(sent.status()));
  EXPECT_TRUE(memory_.blobs.empty());
}

TEST_F(BinaryCacheTest, CancelledWhileReading) {
  BinaryCache cache = InMemory();
  const PathInfo info = store_.Add("x", Noise(3000000));
  cancel_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(Send(cache, info).status()));
}

TEST_F(BinaryCacheTest, SendingTwiceGivesTheSameFile) {
  for (Compression method :
       {Compression::kNone, Compression::kZstd, Compression::kXz}) {
    BinaryCache cache = InMemory(method);
    const PathInfo info = store_.Add("x", Noise(300000));
    const auto first = Send(cache, info);
    const auto second = Send(cache, info);
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_EQ(first->file_hash, second->file_hash);
  }
}

TEST_F(BinaryCacheTest, ReadRefusesWhatIsNotANarInfoOfThatPath) {
  BinaryCache cache = InMemory();
  const PathInfo info = store_.Add("x", "x");
  const auto narinfo = Send(cache, info);
  ASSERT_TRUE(narinfo.ok());
  ASSERT_TRUE(cache.Show(*narinfo, cancel_).ok());
  const std::string key = std::string(info.path.hash_part()) + ".narinfo";
  const auto other = StorePath::FromBaseName(
      std::string(info.path.hash_part()) + "-another-name");
  ASSERT_TRUE(other.ok());
  EXPECT_TRUE(absl::IsNotFound(cache.Read(*other, cancel_).status()));
  memory_.blobs[key].pop_back();
  const auto cut = cache.Read(info.path, cancel_);
  EXPECT_TRUE(absl::IsInvalidArgument(cut.status())) << cut.status();
  EXPECT_TRUE(IsPathsFault(cut.status()));
}

// A path whose bytes are not what Nix registered: at every kind of target, of
// every size, with every compression, nothing may become visible.
enum class Where { kDirectory, kNginx };

class CorruptPathTest
    : public BinaryCacheTest,
      public testing::WithParamInterface<std::tuple<Where, Compression>> {
 protected:
  void SetUp() override {
    if (std::get<0>(GetParam()) == Where::kDirectory) {
      auto opened = OpenDirectoryStore(directory_ / "cache", SystemRandom());
      ASSERT_TRUE(opened.ok()) << opened.status();
      blobs_ = *std::move(opened);
      visible_ = directory_ / "cache";
      return;
    }
    auto started = Nginx::Start();
    ASSERT_TRUE(started.ok()) << started.status();
    nginx_ = *std::move(started);
    auto made = MakeHttpStore(nginx_->url(), HttpOptions(), client_);
    ASSERT_TRUE(made.ok()) << made.status();
    blobs_ = *std::move(made);
    visible_ = nginx_->directory();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Nginx> nginx_;
  HttpClient client_;
  std::unique_ptr<BlobStore> blobs_;
  std::string visible_;  // the directory where what was sent appears
};

TEST_P(CorruptPathTest, IsDataLossAndNothingIsVisible) {
  BinaryCache cache(Options(std::get<1>(GetParam())), std::move(blobs_));
  for (size_t size : {size_t{1000}, size_t{3000000}, size_t{20000000}}) {
    const PathInfo flipped = store_.Add("flipped", Noise(size));
    store_.FlipLastByte(flipped);
    PathInfo shorter = store_.Add("shorter", Noise(size));
    shorter.nar_size_bytes -= 8;
    PathInfo longer = store_.Add("longer", Noise(size));
    longer.nar_size_bytes += 8;
    for (const PathInfo& info : {flipped, shorter, longer}) {
      const auto sent = Send(cache, info);
      EXPECT_TRUE(absl::IsDataLoss(sent.status()))
          << info.path.base_name() << ": " << sent.status();
      EXPECT_TRUE(IsPathsFault(sent.status()));
      EXPECT_THAT(std::string(sent.status().message()), HasSubstr("corrupt"));
    }
  }
  // A good one goes through afterwards, and is all there is.
  const PathInfo good = store_.Add("good", Noise(5000000));
  const auto sent = Send(cache, good);
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_THAT(FilesBelow(visible_),
              ElementsAre(std::filesystem::path(sent->url).filename()));
}

INSTANTIATE_TEST_SUITE_P(
    Everywhere, CorruptPathTest,
    testing::Combine(testing::Values(Where::kDirectory, Where::kNginx),
                     testing::Values(Compression::kNone, Compression::kZstd)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param) == Where::kDirectory
                             ? "Directory"
                             : "Nginx") +
             std::string(CompressionName(std::get<1>(test.param)));
    });

TEST_F(BinaryCacheTest, AServerThatWantsTheSizeGetsTheWholeOrNothing) {
  BadHttpServer server;
  Fault refuse = Fault::Answer(411);
  refuse.after_body_bytes = 0;
  refuse.end = Fault::End::kClose;
  server.Script("PUT", {refuse});
  HttpClient client;
  auto blobs = MakeHttpStore(server.url(), HttpOptions(), client);
  ASSERT_TRUE(blobs.ok());
  BinaryCache cache(Options(), *std::move(blobs));
  const PathInfo info = store_.Add("large", Noise(5000000));
  const auto sent = Send(cache, info);
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(server.fired(), 1);
  const std::string file = server.blobs().at("/" + sent->url);
  EXPECT_EQ(sent->file_hash, Sha256::Of(file));
  EXPECT_EQ(sent->file_size_bytes, file.size());

  const PathInfo flipped = store_.Add("flipped", Noise(6000000));
  store_.FlipLastByte(flipped);
  EXPECT_TRUE(absl::IsDataLoss(Send(cache, flipped).status()));
  EXPECT_EQ(server.blobs().size(), 1u);
}

TEST_F(BinaryCacheTest, TheLastByteNeverLeavesBeforeTheCheck) {
  BadHttpServer server;
  HttpClient client;
  auto blobs = MakeHttpStore(server.url(), HttpOptions(), client);
  ASSERT_TRUE(blobs.ok());
  BinaryCache cache(Options(Compression::kNone), *std::move(blobs));
  const PathInfo flipped = store_.Add("flipped", Noise(3000000));
  store_.FlipLastByte(flipped);
  EXPECT_TRUE(absl::IsDataLoss(Send(cache, flipped).status()));
  // This one is seen after the server has dealt with the first, or beside it;
  // in either case the first cannot have been whole.
  ASSERT_TRUE(Send(cache, store_.Add("good", "good")).ok());
  for (const SeenRequest& request : server.requests()) {
    if (request.body.size() < 1000) continue;
    EXPECT_FALSE(request.complete);
    EXPECT_LT(request.body.size(), flipped.nar_size_bytes);
  }
  EXPECT_EQ(server.blobs().size(), 1u);
}

}  // namespace
}  // namespace nixq
