#include "tests/support/memory_blob_store.h"

#include <utility>

#include "storage/base/status.h"

namespace nixq {

class MemoryBlobStore::Writer : public BlobWriter {
 public:
  Writer(State& state, std::string key, std::string content_type,
         std::optional<uint64_t> size_bytes, const Cancellation& cancel)
      : state_(state),
        key_(std::move(key)),
        content_type_(std::move(content_type)),
        size_bytes_(size_bytes),
        cancel_(cancel) {}
  ~Writer() override {
    if (committed_) return;
    const std::lock_guard<std::mutex> lock(state_.mutex);
    state_.calls.push_back("Abandon " + key_);
  }

  absl::Status Append(std::string_view bytes) override {
    NIXQ_RETURN_IF_ERROR(cancel_.Check());
    const std::lock_guard<std::mutex> lock(state_.mutex);
    NIXQ_RETURN_IF_ERROR(state_.put_error);
    bytes_ += bytes;
    state_.appended_bytes += bytes.size();
    return absl::OkStatus();
  }

  absl::Status Commit() override {
    NIXQ_RETURN_IF_ERROR(cancel_.Check());
    const std::lock_guard<std::mutex> lock(state_.mutex);
    if (!size_bytes_.has_value() && state_.refuse_unsized_at_commit) {
      return absl::UnimplementedError("411");
    }
    if (size_bytes_.has_value() && *size_bytes_ != bytes_.size()) {
      return absl::InternalError("another size than promised");
    }
    committed_ = true;
    state_.calls.push_back("Commit " + key_);
    state_.blobs[key_] = bytes_;
    state_.content_types[key_] = content_type_;
    return absl::OkStatus();
  }

 private:
  State& state_;
  const std::string key_;
  const std::string content_type_;
  const std::optional<uint64_t> size_bytes_;
  const Cancellation& cancel_;
  std::string bytes_;
  bool committed_ = false;
};

absl::StatusOr<std::string> MemoryBlobStore::Get(const std::string& key,
                                                 size_t max_bytes,
                                                 const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(cancel.Check());
  const std::lock_guard<std::mutex> lock(state_.mutex);
  const auto found = state_.blobs.find(key);
  if (found == state_.blobs.end()) return absl::NotFoundError(key);
  if (found->second.size() > max_bytes) return absl::OutOfRangeError(key);
  return found->second;
}

absl::StatusOr<KeyAnswers> MemoryBlobStore::Exist(
    const std::vector<std::string>& keys, const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(cancel.Check());
  const std::lock_guard<std::mutex> lock(state_.mutex);
  KeyAnswers there;
  there.reserve(keys.size());
  for (const std::string& key : keys) {
    there.push_back(state_.blobs.count(key) > 0);
  }
  return there;
}

absl::Status MemoryBlobStore::Put(const std::string& key,
                                  std::string_view content_type,
                                  std::string_view bytes,
                                  const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(cancel.Check());
  const std::lock_guard<std::mutex> lock(state_.mutex);
  NIXQ_RETURN_IF_ERROR(state_.put_error);
  state_.calls.push_back("Put " + key);
  state_.blobs[key] = bytes;
  state_.content_types[key] = content_type;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<BlobWriter>> MemoryBlobStore::StartPut(
    const std::string& key, std::string_view content_type,
    std::optional<uint64_t> size_bytes, const Cancellation& cancel) {
  NIXQ_RETURN_IF_ERROR(cancel.Check());
  const std::lock_guard<std::mutex> lock(state_.mutex);
  state_.calls.push_back("StartPut " + key);
  if (!size_bytes.has_value() && state_.refuse_unsized) {
    return absl::UnimplementedError("411");
  }
  return std::make_unique<Writer>(state_, key, std::string(content_type),
                                  size_bytes, cancel);
}

}  // namespace nixq
