#include "storage/cache/compress.h"

#include <lzma.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr size_t kOutputBytes = 128 << 10;
constexpr int kDefaultZstdLevel = 3;
constexpr int kMaxZstdLevel = 19;
constexpr int kDefaultXzPreset = 6;
constexpr int kMaxXzPreset = 9;

// Every level's own window is at least this large; only smaller inputs gain
// from another.
constexpr uint64_t kSmallestWindowBytes = 512 << 10;

class PassThrough : public Compressor {
 public:
  absl::Status Write(std::string_view bytes, ByteSink sink) override {
    while (!bytes.empty()) {
      const std::string_view piece = bytes.substr(0, kOutputBytes);
      NIXQ_RETURN_IF_ERROR(sink(piece));
      bytes.remove_prefix(piece.size());
    }
    return absl::OkStatus();
  }
  absl::Status Finish(ByteSink /*sink*/) override { return absl::OkStatus(); }
};

absl::Status ZstdError(size_t code) {
  if (ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation) {
    return absl::ResourceExhaustedError("zstd: out of memory");
  }
  return absl::InternalError(
      absl::StrFormat("zstd: %s", ZSTD_getErrorName(code)));
}

class ZstdCompressor : public Compressor {
 public:
  static absl::StatusOr<std::unique_ptr<Compressor>> Make(
      int level, uint64_t size_hint_bytes, int threads) {
    std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
    if (context == nullptr) {
      return absl::ResourceExhaustedError("zstd: out of memory");
    }
    ZSTD_CCtx* c = context.get();
    for (const auto& [parameter, value] :
         {std::pair{ZSTD_c_compressionLevel, level},
          std::pair{ZSTD_c_checksumFlag, 1}}) {
      const size_t set = ZSTD_CCtx_setParameter(c, parameter, value);
      if (ZSTD_isError(set)) return ZstdError(set);
    }
    if (size_hint_bytes > 0 && size_hint_bytes < kSmallestWindowBytes) {
      const int log =
          std::max(10, static_cast<int>(std::bit_width(size_hint_bytes - 1)));
      const size_t set = ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, log);
      if (ZSTD_isError(set)) return ZstdError(set);
    }
    if (threads > 1) {
      // A library without threads refuses; one thread does as well.
      ZSTD_CCtx_setParameter(c, ZSTD_c_nbWorkers, threads);
    }
    return std::make_unique<ZstdCompressor>(std::move(context));
  }

  struct FreeContext {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };

  explicit ZstdCompressor(std::unique_ptr<ZSTD_CCtx, FreeContext> context)
      : context_(std::move(context)), buffer_(kOutputBytes, '\0') {}

  absl::Status Write(std::string_view bytes, ByteSink sink) override {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    while (in.pos < in.size) {
      NIXQ_RETURN_IF_ERROR(Step(in, ZSTD_e_continue, sink).status());
    }
    return absl::OkStatus();
  }

  absl::Status Finish(ByteSink sink) override {
    ZSTD_inBuffer in{nullptr, 0, 0};
    while (true) {
      NIXQ_ASSIGN_OR_RETURN(const size_t left, Step(in, ZSTD_e_end, sink));
      if (left == 0) return absl::OkStatus();
    }
  }

 private:
  // How much is left to flush, at least.
  absl::StatusOr<size_t> Step(ZSTD_inBuffer& in, ZSTD_EndDirective directive,
                              ByteSink sink) {
    ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
    const size_t left =
        ZSTD_compressStream2(context_.get(), &out, &in, directive);
    if (ZSTD_isError(left)) return ZstdError(left);
    if (out.pos > 0) {
      NIXQ_RETURN_IF_ERROR(sink(std::string_view(buffer_.data(), out.pos)));
    }
    return left;
  }

  std::unique_ptr<ZSTD_CCtx, FreeContext> context_;
  std::string buffer_;
};

class XzCompressor : public Compressor {
 public:
  XzCompressor() : buffer_(kOutputBytes, '\0') {}
  XzCompressor(const XzCompressor&) = delete;
  XzCompressor& operator=(const XzCompressor&) = delete;
  ~XzCompressor() override { lzma_end(&stream_); }

  absl::Status Init(int preset, uint64_t size_hint_bytes) {
    lzma_options_lzma options;
    if (lzma_lzma_preset(&options, static_cast<uint32_t>(preset))) {
      return absl::InternalError("xz: preset not supported");
    }
    if (size_hint_bytes > 0 && size_hint_bytes < options.dict_size) {
      options.dict_size = std::max(static_cast<uint32_t>(size_hint_bytes),
                                   uint32_t{LZMA_DICT_SIZE_MIN});
    }
    const lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options},
                                   {LZMA_VLI_UNKNOWN, nullptr}};
    return XzStatus(lzma_stream_encoder(&stream_, filters, LZMA_CHECK_CRC64));
  }

  absl::Status Write(std::string_view bytes, ByteSink sink) override {
    stream_.next_in = reinterpret_cast<const uint8_t*>(bytes.data());
    stream_.avail_in = bytes.size();
    while (stream_.avail_in > 0) {
      NIXQ_RETURN_IF_ERROR(Step(LZMA_RUN, sink).status());
    }
    return absl::OkStatus();
  }

  absl::Status Finish(ByteSink sink) override {
    stream_.next_in = nullptr;
    stream_.avail_in = 0;
    while (true) {
      NIXQ_ASSIGN_OR_RETURN(const bool done, Step(LZMA_FINISH, sink));
      if (done) return absl::OkStatus();
    }
  }

 private:
  static absl::Status XzStatus(lzma_ret code) {
    if (code == LZMA_OK || code == LZMA_STREAM_END) return absl::OkStatus();
    if (code == LZMA_MEM_ERROR) {
      return absl::ResourceExhaustedError("xz: out of memory");
    }
    return absl::InternalError(
        absl::StrFormat("xz: error %d", static_cast<int>(code)));
  }

  // True at the end of the stream.
  absl::StatusOr<bool> Step(lzma_action action, ByteSink sink) {
    stream_.next_out = reinterpret_cast<uint8_t*>(buffer_.data());
    stream_.avail_out = buffer_.size();
    const lzma_ret code = lzma_code(&stream_, action);
    NIXQ_RETURN_IF_ERROR(XzStatus(code));
    const size_t made = buffer_.size() - stream_.avail_out;
    if (made > 0) {
      NIXQ_RETURN_IF_ERROR(sink(std::string_view(buffer_.data(), made)));
    }
    return code == LZMA_STREAM_END;
  }

  lzma_stream stream_ = LZMA_STREAM_INIT;
  std::string buffer_;
};

absl::Status CheckLevel(std::string_view method, int level, int min, int max) {
  if (level >= min && level <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s level %d: must be %d to %d", std::string(method), level, min, max));
}

}  // namespace

std::optional<Compression> CompressionFromName(std::string_view name) {
  for (Compression method :
       {Compression::kNone, Compression::kZstd, Compression::kXz}) {
    if (name == CompressionName(method)) return method;
  }
  return std::nullopt;
}

std::string_view CompressionName(Compression method) {
  switch (method) {
    case Compression::kNone:
      return "none";
    case Compression::kZstd:
      return "zstd";
    case Compression::kXz:
      return "xz";
  }
  return "none";
}

std::string_view CompressionExtension(Compression method) {
  switch (method) {
    case Compression::kNone:
      return "";
    case Compression::kZstd:
      return ".zst";
    case Compression::kXz:
      return ".xz";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<Compressor>> MakeCompressor(
    const CompressionSettings& settings, uint64_t size_hint_bytes,
    int threads) {
  switch (settings.method) {
    case Compression::kNone:
      break;
    case Compression::kZstd: {
      const int level = settings.level.value_or(kDefaultZstdLevel);
      NIXQ_RETURN_IF_ERROR(CheckLevel("zstd", level, 1, kMaxZstdLevel));
      return ZstdCompressor::Make(level, size_hint_bytes, threads);
    }
    case Compression::kXz: {
      const int preset = settings.level.value_or(kDefaultXzPreset);
      NIXQ_RETURN_IF_ERROR(CheckLevel("xz", preset, 0, kMaxXzPreset));
      auto compressor = std::make_unique<XzCompressor>();
      NIXQ_RETURN_IF_ERROR(compressor->Init(preset, size_hint_bytes));
      return std::unique_ptr<Compressor>(std::move(compressor));
    }
  }
  return std::unique_ptr<Compressor>(std::make_unique<PassThrough>());
}

}  // namespace nixq
