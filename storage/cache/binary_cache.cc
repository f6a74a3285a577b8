#include "storage/cache/binary_cache.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/nix/hash.h"
#include "storage/nix/nar.h"

namespace nixq {
namespace {

constexpr char kCacheInfoKey[] = "nix-cache-info";
constexpr std::string_view kCacheInfoType = "text/x-nix-cache-info";
constexpr std::string_view kNarInfoType = "text/x-nix-narinfo";
constexpr std::string_view kNarType = "application/x-nix-nar";

constexpr size_t kMaxCacheInfoBytes = 64 << 10;
constexpr size_t kMaxNarInfoBytes = 4 << 20;

// Up to this size a NAR is compressed in memory, so that its size is known
// before the first byte leaves.
constexpr uint64_t kSmallNarBytes = 2 << 20;
// Beyond this size more than one thread is worth it.
constexpr uint64_t kThreadedNarBytes = 32 << 20;

std::string NarInfoKey(const StorePath& path) {
  return std::string(path.hash_part()) + ".narinfo";
}

std::string NarKey(const PathInfo& info, Compression method) {
  return "nar/" + ToNix32(info.nar_hash) + ".nar" +
         std::string(CompressionExtension(method));
}

// A file at the target, as narinfos describe it.
struct FileFacts {
  Sha256Digest hash{};
  uint64_t size_bytes = 0;

  bool operator==(const FileFacts&) const = default;
};

// Reads a path as NAR, compares it with what Nix registered and compresses it:
// the one way from the store to a target.
class NarPacker {
 public:
  NarPacker(const BinaryCacheOptions& options, const PathInfo& info,
            Progress& progress, const Cancellation& cancel)
      : options_(options), info_(info), progress_(progress), cancel_(cancel) {}

  // Gives the compressed file to `out`. The end of the file comes only after
  // hash and size of the NAR have been found right, but only the return says
  // so. Errors of `out` are returned unchanged.
  absl::StatusOr<FileFacts> Pack(ByteSink out) {
    const int threads =
        info_.nar_size_bytes > kThreadedNarBytes ? options_.threads : 1;
    NIXQ_ASSIGN_OR_RETURN(
        std::unique_ptr<Compressor> compressor,
        MakeCompressor(options_.compression, info_.nar_size_bytes, threads));
    Sha256 file_hash;
    FileFacts facts;
    const auto count_and_pass_on = [&](std::string_view bytes) {
      file_hash.Update(bytes);
      facts.size_bytes += bytes.size();
      return out(bytes);
    };
    NIXQ_RETURN_IF_ERROR(ReadChecked([&](std::string_view bytes) {
      return compressor->Write(bytes, count_and_pass_on);
    }));
    NIXQ_RETURN_IF_ERROR(compressor->Finish(count_and_pass_on));
    facts.hash = file_hash.Finish();
    return facts;
  }

 private:
  absl::Status ReadChecked(ByteSink out) {
    Sha256 nar_hash;
    uint64_t read_bytes = 0;
    absl::Status sink_error;
    progress_.store(0);
    const absl::Status written =
        WriteNar(options_.real_store_dir + "/" + info_.path.base_name(),
                 NarOptions{}, [&](std::string_view bytes) {
                   read_bytes += bytes.size();
                   sink_error = cancel_.Check();
                   if (sink_error.ok() && read_bytes > info_.nar_size_bytes) {
                     sink_error = SizeError("more");
                   }
                   if (sink_error.ok()) {
                     nar_hash.Update(bytes);
                     sink_error = out(bytes);
                   }
                   progress_.store(read_bytes);
                   return sink_error;
                 });
    if (!sink_error.ok()) return sink_error;
    if (!written.ok()) return ReadError(written);
    if (read_bytes != info_.nar_size_bytes) {
      return SizeError(absl::StrFormat("only %d", read_bytes));
    }
    const Sha256Digest found = nar_hash.Finish();
    if (found == info_.nar_hash) return absl::OkStatus();
    return BlamePath(absl::DataLossError(absl::StrFormat(
        "%s is corrupt: its NAR hashes to %s, but Nix registered %s",
        info_.path.base_name(), ToPrefixedNix32(found),
        ToPrefixedNix32(info_.nar_hash))));
  }

  // What is not there at all, or is nothing that can be in a store, is not
  // what Nix registered.
  absl::Status ReadError(const absl::Status& status) const {
    struct stat info;
    const std::string file =
        options_.real_store_dir + "/" + info_.path.base_name();
    const bool gone =
        absl::IsNotFound(status) && lstat(file.c_str(), &info) != 0;
    if (gone || absl::IsFailedPrecondition(status)) {
      return BlamePath(absl::DataLossError(
          absl::StrFormat("%s is corrupt: %s", info_.path.base_name(),
                          gone ? "Nix has it registered, but it is not there"
                               : std::string(status.message()))));
    }
    return BlamePath(Annotate(status, "read " + info_.path.base_name()));
  }

  absl::Status SizeError(std::string_view found) const {
    return BlamePath(absl::DataLossError(absl::StrFormat(
        "%s is corrupt: its NAR has %s bytes, but Nix registered %d",
        info_.path.base_name(), std::string(found), info_.nar_size_bytes)));
  }

  const BinaryCacheOptions& options_;
  const PathInfo& info_;
  Progress& progress_;
  const Cancellation& cancel_;
};

absl::StatusOr<FileFacts> SendSmall(BlobStore& blobs, NarPacker& packer,
                                    const std::string& key,
                                    const Cancellation& cancel) {
  std::string file;
  NIXQ_ASSIGN_OR_RETURN(const FileFacts facts,
                        packer.Pack([&file](std::string_view bytes) {
                          file += bytes;
                          return absl::OkStatus();
                        }));
  NIXQ_RETURN_IF_ERROR(blobs.Put(key, kNarType, file, cancel));
  return facts;
}

// `expected`: what the file will be, if that is known.
absl::StatusOr<FileFacts> Stream(BlobStore& blobs, NarPacker& packer,
                                 const std::string& key,
                                 std::optional<uint64_t> size_bytes,
                                 const std::optional<FileFacts>& expected,
                                 const Cancellation& cancel) {
  NIXQ_ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer,
                        blobs.StartPut(key, kNarType, size_bytes, cancel));
  NIXQ_ASSIGN_OR_RETURN(const FileFacts facts,
                        packer.Pack([&writer](std::string_view bytes) {
                          return writer->Append(bytes);
                        }));
  if (expected.has_value() && !(facts == *expected)) {
    return absl::InternalError(absl::StrFormat(
        "%s: compressing it twice gave two different files", key));
  }
  NIXQ_RETURN_IF_ERROR(writer->Commit());
  return facts;
}

absl::StatusOr<FileFacts> SendLarge(BlobStore& blobs, NarPacker& packer,
                                    const std::string& key,
                                    std::optional<uint64_t> size_bytes,
                                    const Cancellation& cancel) {
  absl::StatusOr<FileFacts> facts =
      Stream(blobs, packer, key, size_bytes, std::nullopt, cancel);
  if (!absl::IsUnimplemented(facts.status())) return facts;
  // The target wants to know the size first: time instead of disk or memory.
  NIXQ_ASSIGN_OR_RETURN(
      const FileFacts expected,
      packer.Pack([](std::string_view /*bytes*/) { return absl::OkStatus(); }));
  return Stream(blobs, packer, key, expected.size_bytes, expected, cancel);
}

}  // namespace

BinaryCache::BinaryCache(BinaryCacheOptions options,
                         std::unique_ptr<BlobStore> blobs)
    : options_(std::move(options)), blobs_(std::move(blobs)) {}

absl::Status BinaryCache::Prepare(bool create, const Cancellation& cancel) {
  const absl::StatusOr<std::string> text =
      blobs_->Get(kCacheInfoKey, kMaxCacheInfoBytes, cancel);
  if (absl::IsNotFound(text.status())) {
    if (!create) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s: no nix-cache-info: not a binary cache yet", Describe()));
    }
    CacheInfo made;
    made.store_dir = options_.store_dir.path();
    made.want_mass_query = options_.want_mass_query;
    made.priority = options_.priority;
    return Annotate(blobs_->Put(kCacheInfoKey, kCacheInfoType,
                                FormatCacheInfo(made), cancel),
                    Describe());
  }
  if (!text.ok()) return Annotate(text.status(), Describe());
  const absl::StatusOr<CacheInfo> found = ParseCacheInfo(*text);
  if (!found.ok()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: nix-cache-info: %s", Describe(),
                        std::string(found.status().message())));
  }
  if (found->store_dir == options_.store_dir.path()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s: its nix-cache-info is for the store \"%s\", but ours is %s",
      Describe(), Printable(found->store_dir, 256), options_.store_dir.path()));
}

absl::Status BinaryCache::CheckWritable(const Cancellation& cancel) {
  const absl::StatusOr<std::string> text =
      blobs_->Get(kCacheInfoKey, kMaxCacheInfoBytes, cancel);
  if (!text.ok()) return Annotate(text.status(), Describe());
  return Annotate(blobs_->Put(kCacheInfoKey, kCacheInfoType, *text, cancel),
                  Describe());
}

absl::StatusOr<KeyAnswers> BinaryCache::Present(
    const std::vector<StorePath>& paths, const Cancellation& cancel) {
  std::vector<std::string> keys;
  keys.reserve(paths.size());
  for (const StorePath& path : paths) keys.push_back(NarInfoKey(path));
  return blobs_->Exist(keys, cancel);
}

absl::StatusOr<NarInfo> BinaryCache::SendNar(const PathInfo& info,
                                             Progress& progress,
                                             const Cancellation& cancel) {
  const Compression method = options_.compression.method;
  const std::string key = NarKey(info, method);
  NarPacker packer(options_, info, progress, cancel);
  std::optional<uint64_t> size_bytes;
  if (method == Compression::kNone) size_bytes = info.nar_size_bytes;
  const absl::StatusOr<FileFacts> facts =
      info.nar_size_bytes <= kSmallNarBytes
          ? SendSmall(*blobs_, packer, key, cancel)
          : SendLarge(*blobs_, packer, key, size_bytes, cancel);
  if (!facts.ok()) return facts.status();

  NarInfo narinfo{.info = info};
  narinfo.url = key;
  narinfo.compression = CompressionName(method);
  narinfo.file_hash = facts->hash;
  narinfo.file_size_bytes = facts->size_bytes;
  return narinfo;
}

absl::Status BinaryCache::Show(const NarInfo& narinfo,
                               const Cancellation& cancel) {
  return blobs_->Put(NarInfoKey(narinfo.info.path), kNarInfoType,
                     FormatNarInfo(options_.store_dir, narinfo), cancel);
}

absl::StatusOr<NarInfo> BinaryCache::Read(const StorePath& path,
                                          const Cancellation& cancel) {
  const std::string key = NarInfoKey(path);
  NIXQ_ASSIGN_OR_RETURN(const std::string text,
                        blobs_->Get(key, kMaxNarInfoBytes, cancel));
  absl::StatusOr<NarInfo> narinfo = ParseNarInfo(options_.store_dir, text);
  if (!narinfo.ok()) {
    return BlamePath(Annotate(narinfo.status(), Describe() + "/" + key));
  }
  if (narinfo->info.path == path) return narinfo;
  return absl::NotFoundError(absl::StrFormat("%s/%s describes another path: %s",
                                             Describe(), key,
                                             narinfo->info.path.base_name()));
}

}  // namespace nixq
