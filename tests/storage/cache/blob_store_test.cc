// What every BlobStore promises, held against the one in memory, a directory,
// a scripted HTTP server and nginx.
#include "storage/cache/blob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <thread>

#include "absl/strings/str_format.h"
#include "storage/base/clock.h"
#include "storage/cache/directory_cache.h"
#include "storage/cache/http_cache.h"
#include "tests/support/bad_http_server.h"
#include "tests/support/memory_blob_store.h"
#include "tests/support/nginx.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/test_ca.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;

// A store and the world behind it.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual BlobStore& store() = 0;
};

class MemoryBackend : public Backend {
 public:
  BlobStore& store() override { return store_; }

 private:
  MemoryBlobStore::State state_;
  MemoryBlobStore store_{state_};
};

class DirectoryBackend : public Backend {
 public:
  DirectoryBackend() {
    auto opened = OpenDirectoryStore(directory_ / "cache", SystemRandom());
    EXPECT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }
  BlobStore& store() override { return *store_; }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<BlobStore> store_;
};

class ScriptedBackend : public Backend {
 public:
  ScriptedBackend() {
    auto made = MakeHttpStore(server_.url() + "/base/", HttpOptions(), client_);
    EXPECT_TRUE(made.ok()) << made.status();
    store_ = *std::move(made);
  }
  BlobStore& store() override { return *store_; }

 private:
  BadHttpServer server_;
  HttpClient client_;
  std::unique_ptr<BlobStore> store_;
};

class NginxBackend : public Backend {
 public:
  // `tls`: with HTTP/2.
  explicit NginxBackend(bool tls) {
    NginxOptions server_options;
    HttpOptions options;
    if (tls) {
      const auto ca = TestCa::Create(directory_ / "ca");
      EXPECT_TRUE(ca.ok()) << ca.status();
      const auto issued = ca->Issue("localhost");
      EXPECT_TRUE(issued.ok()) << issued.status();
      server_options.certificate_file = issued->certificate_file;
      server_options.key_file = issued->key_file;
      options.ca_file = ca->ca_file();
    }
    auto started = Nginx::Start(server_options);
    EXPECT_TRUE(started.ok()) << started.status();
    nginx_ = *std::move(started);
    auto made = MakeHttpStore(nginx_->url(), options, client_);
    EXPECT_TRUE(made.ok()) << made.status();
    store_ = *std::move(made);
  }
  BlobStore& store() override { return *store_; }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<Nginx> nginx_;
  HttpClient client_;
  std::unique_ptr<BlobStore> store_;
};

enum class Kind { kMemory, kDirectory, kScripted, kNginx, kNginxTls };

std::unique_ptr<Backend> MakeBackend(Kind kind) {
  switch (kind) {
    case Kind::kMemory:
      return std::make_unique<MemoryBackend>();
    case Kind::kDirectory:
      return std::make_unique<DirectoryBackend>();
    case Kind::kScripted:
      return std::make_unique<ScriptedBackend>();
    case Kind::kNginx:
      return std::make_unique<NginxBackend>(false);
    case Kind::kNginxTls:
      return std::make_unique<NginxBackend>(true);
  }
  return nullptr;
}

std::string KindName(const testing::TestParamInfo<Kind>& info) {
  switch (info.param) {
    case Kind::kMemory:
      return "Memory";
    case Kind::kDirectory:
      return "Directory";
    case Kind::kScripted:
      return "Scripted";
    case Kind::kNginx:
      return "Nginx";
    case Kind::kNginxTls:
      return "NginxTls";
  }
  return "";
}

class BlobStoreTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { backend_ = MakeBackend(GetParam()); }
  BlobStore& store() { return backend_->store(); }
  absl::StatusOr<std::string> Get(const std::string& key) {
    return store().Get(key, 64 << 20, cancel_);
  }
  absl::Status Put(const std::string& key, std::string_view bytes) {
    return store().Put(key, "text/plain", bytes, cancel_);
  }
  absl::StatusOr<std::unique_ptr<BlobWriter>> StartPut(
      const std::string& key, std::optional<uint64_t> size_bytes) {
    return store().StartPut(key, "text/plain", size_bytes, cancel_);
  }
  bool Exists(const std::string& key) {
    const auto there = store().Exist({key}, cancel_);
    EXPECT_TRUE(there.ok()) << there.status();
    return there.ok() && there->at(0).value_or(false);
  }
  std::vector<bool> Exist(const std::vector<std::string>& keys) {
    const auto there = store().Exist(keys, cancel_);
    EXPECT_TRUE(there.ok()) << there.status();
    std::vector<bool> flags;
    for (const auto& answer : there.value_or(KeyAnswers())) {
      EXPECT_TRUE(answer.ok()) << answer.status();
      flags.push_back(answer.value_or(false));
    }
    return flags;
  }

  std::unique_ptr<Backend> backend_;
  Cancellation cancel_;
};

// Bytes that do not repeat, so that a lost or doubled piece shows.
std::string Pattern(size_t size) {
  std::string bytes;
  bytes.reserve(size + 16);
  for (size_t i = 0; bytes.size() < size; ++i) {
    bytes += absl::StrFormat("%x,", i);
  }
  bytes.resize(size);
  return bytes;
}

TEST_P(BlobStoreTest, PutIsReadBack) {
  ASSERT_TRUE(Put("x.narinfo", "text").ok());
  ASSERT_TRUE(Put("nar/y.nar.zst", std::string("\0\r\n\xff", 4)).ok());
  EXPECT_EQ(Get("x.narinfo").value_or("?"), "text");
  EXPECT_EQ(Get("nar/y.nar.zst").value_or("?"), std::string("\0\r\n\xff", 4));
}

TEST_P(BlobStoreTest, PutReplaces) {
  ASSERT_TRUE(Put("x", "a longer first text").ok());
  ASSERT_TRUE(Put("x", "second").ok());
  EXPECT_EQ(Get("x").value_or("?"), "second");
}

TEST_P(BlobStoreTest, WhatIsNotThereIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(Get("x").status()));
  EXPECT_TRUE(absl::IsNotFound(Get("nar/x").status()));
}

TEST_P(BlobStoreTest, GetIsBounded) {
  ASSERT_TRUE(Put("x", "12345").ok());
  EXPECT_TRUE(absl::IsOutOfRange(store().Get("x", 4, cancel_).status()));
  EXPECT_TRUE(store().Get("x", 5, cancel_).ok());
}

TEST_P(BlobStoreTest, ExistAnswersInOrder) {
  ASSERT_TRUE(Put("a", "1").ok());
  ASSERT_TRUE(Put("nar/c", "1").ok());
  EXPECT_THAT(Exist({"a", "b", "nar/c", "nar/d", "a"}),
              ElementsAre(true, false, true, false, true));
  EXPECT_TRUE(store().Exist({}, cancel_)->empty());
}

TEST_P(BlobStoreTest, ExistTakesThousands) {
  ASSERT_TRUE(Put("key2999", "1").ok());
  std::vector<std::string> keys;
  keys.reserve(3000);
  for (int i = 0; i < 3000; ++i) keys.push_back(absl::StrFormat("key%d", i));
  const std::vector<bool> there = Exist(keys);
  ASSERT_EQ(there.size(), 3000u);
  for (size_t i = 0; i < 3000; ++i) EXPECT_EQ(there[i], i == 2999) << i;
}

TEST_P(BlobStoreTest, StreamsOfKnownAndUnknownSizeArrive) {
  const std::string bytes = Pattern(5000007);
  for (const auto size :
       {std::optional<uint64_t>(), std::optional<uint64_t>(bytes.size())}) {
    auto writer = StartPut("nar/big", size);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (size_t at = 0; at < bytes.size(); at += 70001) {
      const absl::Status appended =
          (*writer)->Append(std::string_view(bytes).substr(at, 70001));
      ASSERT_TRUE(appended.ok()) << appended;
    }
    const absl::Status committed = (*writer)->Commit();
    ASSERT_TRUE(committed.ok()) << committed;
    EXPECT_TRUE(Get("nar/big").value_or("") == bytes);
  }
}

TEST_P(BlobStoreTest, NothingIsVisibleWithoutCommit) {
  const std::string bytes = Pattern(3000000);
  for (const auto size :
       {std::optional<uint64_t>(), std::optional<uint64_t>(bytes.size())}) {
    auto writer = StartPut("nar/gone", size);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(bytes).ok());
    EXPECT_FALSE(Exists("nar/gone"));
    writer->reset();
    EXPECT_FALSE(Exists("nar/gone"));
  }
  // The store is as good as before.
  ASSERT_TRUE(Put("nar/next", "1").ok());
  EXPECT_TRUE(Exists("nar/next"));
  EXPECT_FALSE(Exists("nar/gone"));
}

TEST_P(BlobStoreTest, AnAbandonedWriterLeavesTheOldBlob) {
  ASSERT_TRUE(Put("x", "old").ok());
  {
    auto writer = StartPut("x", 3);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append("new").ok());
  }
  EXPECT_EQ(Get("x").value_or("?"), "old");
}

TEST_P(BlobStoreTest, CancelledIsCancelled) {
  auto writer = StartPut("x", std::nullopt);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append("x").ok());
  cancel_.Cancel();
  EXPECT_TRUE(absl::IsCancelled((*writer)->Commit()));
  EXPECT_TRUE(absl::IsCancelled(Get("x").status()));
  EXPECT_TRUE(absl::IsCancelled(Put("x", "x")));
  EXPECT_TRUE(absl::IsCancelled(store().Exist({"x"}, cancel_).status()));
  Cancellation other;
  EXPECT_TRUE(absl::IsNotFound(store().Get("x", 10, other).status()));
}

TEST_P(BlobStoreTest, TwoHundredPutsAtOnce) {
  std::vector<std::thread> threads;
  threads.reserve(200);
  for (int i = 0; i < 200; ++i) {
    threads.emplace_back([this, i] {
      const absl::Status put = Put(absl::StrFormat("nar/%d", i),
                                   Pattern(static_cast<size_t>(i) * 100 + 1));
      EXPECT_TRUE(put.ok()) << put;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(Get(absl::StrFormat("nar/%d", i)).value_or("?"),
              Pattern(static_cast<size_t>(i) * 100 + 1));
  }
}

TEST_P(BlobStoreTest, ManyWritersOfOneKeyLeaveOneOfTheirs) {
  std::vector<std::thread> threads;
  threads.reserve(16);
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([this, i] {
      const std::string bytes(200000, static_cast<char>('a' + i));
      auto writer = StartPut("nar/same", std::nullopt);
      ASSERT_TRUE(writer.ok()) << writer.status();
      EXPECT_TRUE((*writer)->Append(bytes).ok());
      EXPECT_TRUE((*writer)->Commit().ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string bytes = Get("nar/same").value_or("");
  ASSERT_EQ(bytes.size(), 200000u);
  EXPECT_EQ(bytes.find_first_not_of(bytes[0]), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Every, BlobStoreTest,
                         testing::Values(Kind::kMemory, Kind::kDirectory,
                                         Kind::kScripted, Kind::kNginx,
                                         Kind::kNginxTls),
                         KindName);

}  // namespace
}  // namespace nixq
