// What we put into a cache, read by the installed Nix itself; and how much
// memory a large path takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "absl/strings/str_format.h"
#include "storage/base/clock.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/cache/binary_cache.h"
#include "storage/cache/directory_cache.h"
#include "storage/cache/http_cache.h"
#include "storage/nix/closure.h"
#include "storage/nix/daemon_client.h"
#include "storage/nix/nar.h"
#include "storage/nix/signature.h"
#include "tests/support/nginx.h"
#include "tests/support/private_nix.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

class NixReadsTest
    : public testing::TestWithParam<std::tuple<bool, Compression>> {
 protected:
  void SetUp() override {
    auto nix = PrivateNix::Create();
    ASSERT_TRUE(nix.ok()) << nix.status();
    nix_ = *std::move(nix);
    ASSERT_TRUE(nix_->StartDaemon().ok());
    if (std::get<0>(GetParam())) {
      auto nginx = Nginx::Start();
      ASSERT_TRUE(nginx.ok()) << nginx.status();
      nginx_ = *std::move(nginx);
      url_ = nginx_->url();
    } else {
      url_ = "file://" + (directory_ / "cache");
    }
  }

  std::unique_ptr<BlobStore> Blobs() {
    auto blobs = nginx_ != nullptr
                     ? MakeHttpStore(url_, HttpOptions(), client_)
                     : OpenDirectoryStore(directory_ / "cache", SystemRandom());
    EXPECT_TRUE(blobs.ok()) << blobs.status();
    return *std::move(blobs);
  }

  // Sends the closure, signed, in order.
  absl::Status SendClosure(const StorePath& root, const SecretKey& key) {
    BinaryCache cache({.store_dir = nix_->store_dir(),
                       .real_store_dir = nix_->store_dir().path(),
                       .compression = {.method = std::get<1>(GetParam())}},
                      Blobs());
    NIXQ_RETURN_IF_ERROR(cache.Prepare(true, cancel_));
    DaemonClient store(nix_->SocketOptions());
    NIXQ_ASSIGN_OR_RETURN(const Closure closure,
                          ComputeClosure(store, {root}, 1000,
                                         [](const PathInfo&) { return true; }));
    for (const PathInfo& info : closure.paths) {
      Progress progress{0};
      NIXQ_ASSIGN_OR_RETURN(NarInfo narinfo,
                            cache.SendNar(info, progress, cancel_));
      narinfo.info.signatures.push_back(
          key.Sign(Fingerprint(nix_->store_dir(), info)));
      NIXQ_RETURN_IF_ERROR(cache.Show(narinfo, cancel_));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Nix(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"nix", "--extra-experimental-features", "nix-command"});
    return nix_->Run(arguments);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<PrivateNix> nix_;
  std::unique_ptr<Nginx> nginx_;
  std::string url_;
  HttpClient client_;
  Cancellation cancel_;
};

TEST_P(NixReadsTest, CopiesBackWhatItTrustsAndVerifiesIt) {
  const std::string key_file = directory_ / "key";
  ASSERT_TRUE(nix_->Run({"nix-store", "--generate-binary-cache-key", "test-1",
                         key_file, key_file + ".pub"})
                  .ok());
  const auto key = SecretKey::Load(key_file);
  ASSERT_TRUE(key.ok()) << key.status();
  const auto outputs = nix_->Build(DiamondExpression("cached"));
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const StorePath root = outputs->front();
  const std::string path = nix_->Print(root);
  const auto dump = nix_->Run({"nix-store", "--dump", path});
  ASSERT_TRUE(dump.ok()) << dump.status();

  const absl::Status sent = SendClosure(root, *key);
  ASSERT_TRUE(sent.ok()) << sent;

  const auto info = Nix({"path-info", "-r", "--store", url_, path});
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(SplitWords(*info).size(), 4u) << *info;
  const auto verified =
      Nix({"store", "verify", "--store", url_, "-r", path, "--option",
           "trusted-public-keys", key->PublicKeyText()});
  EXPECT_TRUE(verified.ok()) << verified.status();

  // Everything goes, and comes back only with the right key.
  ASSERT_TRUE(nix_->CollectGarbage().ok());
  ASSERT_FALSE(nix_->IsValid(root));
  const auto copy = [&](const std::string& trusted) {
    return nix_->Run({"nix", "--extra-experimental-features", "nix-command",
                      "--store", "local", "copy", "--from", url_, path,
                      "--option", "trusted-public-keys", trusted, "--option",
                      "require-sigs", "true"});
  };
  EXPECT_FALSE(copy("other-1:" + Base64Encode(std::string(32, 'k'))).ok());
  ASSERT_FALSE(nix_->IsValid(root));
  const auto copied = copy(key->PublicKeyText());
  ASSERT_TRUE(copied.ok()) << copied.status();
  EXPECT_TRUE(nix_->IsValid(root));
  const auto again = nix_->Run({"nix-store", "--dump", path});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(*again == *dump);
}

INSTANTIATE_TEST_SUITE_P(
    Everywhere, NixReadsTest,
    testing::Combine(testing::Bool(),
                     testing::Values(Compression::kZstd, Compression::kXz,
                                     Compression::kNone)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param) ? "Nginx" : "Directory") +
             std::string(CompressionName(std::get<1>(test.param)));
    });

// In KiB; 0 where there is no /proc.
long PeakMemory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6));
  }
  return 0;
}

// Forked, because the peak of a process never goes down.
TEST(BinaryCacheMemoryTest, ALargePathStreams) {
  constexpr size_t kSize = 300 << 20;
  TemporaryDirectory store;
  TemporaryDirectory target;
  const std::string base_name = std::string(32, '0') + "-large";
  {
    std::ofstream file(store / base_name, std::ios::binary);
    std::string block(1 << 20, 'x');
    for (size_t i = 0; i < kSize >> 20; ++i) {
      // Half of it compresses.
      for (size_t at = 0; at < block.size() / 2; at += 7) {
        block[at] = static_cast<char>((i * 2654435761u + at * at) >> 9);
      }
      file.write(block.data(), static_cast<std::streamsize>(block.size()));
    }
  }
  const auto nginx = Nginx::Start();
  ASSERT_TRUE(nginx.ok()) << nginx.status();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    PathInfo info{.path = *StorePath::FromBaseName(base_name)};
    Sha256 hash;
    const absl::Status dumped =
        WriteNar(store / base_name, NarOptions{}, [&](std::string_view bytes) {
          hash.Update(bytes);
          info.nar_size_bytes += bytes.size();
          return absl::OkStatus();
        });
    if (!dumped.ok()) _exit(2);
    info.nar_hash = hash.Finish();
    const long before = PeakMemory();
    HttpClient client;
    auto blobs = MakeHttpStore((*nginx)->url(), HttpOptions(), client);
    if (!blobs.ok()) _exit(3);
    BinaryCache cache({.store_dir = *StoreDir::Parse("/nix/store"),
                       .real_store_dir = store.path(),
                       .threads = 2},
                      *std::move(blobs));
    Progress progress{0};
    Cancellation cancel;
    const auto sent = cache.SendNar(info, progress, cancel);
    if (!sent.ok()) {
      fprintf(stderr, "%s\n", sent.status().ToString().c_str());
      _exit(4);
    }
    const long grown = PeakMemory() - before;
    fprintf(stderr, "peak memory grew by %ld KiB for %zu MiB\n", grown,
            kSize >> 20);
    // zstd with two threads has some 50 MiB in flight; sanitizers double it.
    _exit(grown < 200 << 10 ? 0 : 5);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace nixq
