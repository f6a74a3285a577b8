// A BlobStore in memory that can be made to refuse things.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "storage/cache/blob_store.h"

namespace nixq {

// Thread-safe. What the contract asks for and nothing else; `State` is shared
// with the test, which outlives the store.
class MemoryBlobStore : public BlobStore {
 public:
  struct State {
    mutable std::mutex mutex;
    std::map<std::string, std::string> blobs;
    std::map<std::string, std::string> content_types;
    // Every call as "Put key", "StartPut key", "Commit key", "Abandon key".
    std::vector<std::string> calls;
    bool refuse_unsized = false;  // UNIMPLEMENTED, as 411
    bool refuse_unsized_at_commit = false;
    absl::Status put_error;     // of Put and Append, unless OK
    size_t appended_bytes = 0;  // in writers so far
  };

  explicit MemoryBlobStore(State& state) : state_(state) {}

  absl::StatusOr<std::string> Get(const std::string& key, size_t max_bytes,
                                  const Cancellation& cancel) override;
  absl::StatusOr<KeyAnswers> Exist(const std::vector<std::string>& keys,
                                   const Cancellation& cancel) override;
  absl::Status Put(const std::string& key, std::string_view content_type,
                   std::string_view bytes, const Cancellation& cancel) override;
  absl::StatusOr<std::unique_ptr<BlobWriter>> StartPut(
      const std::string& key, std::string_view content_type,
      std::optional<uint64_t> size_bytes, const Cancellation& cancel) override;
  std::string Describe() const override { return "memory:"; }

 private:
  class Writer;
  State& state_;
};

}  // namespace nixq
