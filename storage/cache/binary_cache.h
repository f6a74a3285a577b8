// A Nix binary cache: NARs, narinfos and nix-cache-info on a BlobStore, in
// the order that keeps readers from ever seeing half of anything.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/cancel.h"
#include "storage/cache/blob_store.h"
#include "storage/cache/compress.h"
#include "storage/nix/narinfo.h"

namespace nixq {

struct BinaryCacheOptions {
  StoreDir store_dir;
  // Where the store's files really are; store_dir.path() unless relocated.
  std::string real_store_dir;
  CompressionSettings compression;
  int priority = 40;  // of the nix-cache-info that we create
  bool want_mass_query = true;
  int threads = 1;  // for one large NAR
};

// Bytes of NAR read so far, for people; the sender reads it at any time.
using Progress = std::atomic<uint64_t>;

// Thread-safe. Errors are those of BlobStore and, from SendNar, of WriteNar
// (blamed on the path).
class BinaryCache {
 public:
  BinaryCache(BinaryCacheOptions options, std::unique_ptr<BlobStore> blobs);

  // Reads nix-cache-info, or creates it when missing (if `create`).
  // FAILED_PRECONDITION: it is the cache of another store directory, or (not
  // `create`) there is none.
  absl::Status Prepare(bool create, const Cancellation& cancel);

  // Whether we may write, by putting nix-cache-info again as it is.
  // NOT_FOUND: there is none.
  absl::Status CheckWritable(const Cancellation& cancel);

  // Which of these paths have a narinfo, as BlobStore::Exist tells.
  absl::StatusOr<KeyAnswers> Present(const std::vector<StorePath>& paths,
                                     const Cancellation& cancel);

  // Reads the path's files once, as NAR: hashed, compressed, hashed, sent to
  // nar/<narhash>.nar<ext>. Commits only if hash and size are what
  // `info` says; DATA_LOSS otherwise, also when the path is missing or has in
  // it what no store has (a FIFO), and nothing is visible at the target.
  // Memory: at most 8 MiB and the compressor's own. Returns the narinfo to
  // show, without signatures other than those in `info`.
  absl::StatusOr<NarInfo> SendNar(const PathInfo& info, Progress& progress,
                                  const Cancellation& cancel);

  // Puts the narinfo; the caller has seen to it that NAR and references are
  // there.
  absl::Status Show(const NarInfo& narinfo, const Cancellation& cancel);

  // The narinfo that the target shows, or NOT_FOUND.
  absl::StatusOr<NarInfo> Read(const StorePath& path,
                               const Cancellation& cancel);

  std::string Describe() const { return blobs_->Describe(); }

 private:
  BinaryCacheOptions options_;
  std::unique_ptr<BlobStore> blobs_;
};

}  // namespace nixq
