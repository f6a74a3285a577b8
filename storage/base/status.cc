#include "storage/base/status.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/cord.h"
#include "absl/strings/str_format.h"

namespace nixq {
namespace {

constexpr char kRetryAfterPayload[] = "nix-queued/retry-after";
constexpr char kPathsFaultPayload[] = "nix-queued/paths-fault";

absl::StatusCode CodeOfErrno(int err) {
  switch (err) {
    case ENOENT:
    case ENOTDIR:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::StatusCode::kResourceExhausted;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EPIPE:
    case EAGAIN:
    case EBUSY:
    case EIO:
      return absl::StatusCode::kUnavailable;
    case ETIMEDOUT:
      return absl::StatusCode::kDeadlineExceeded;
    case EINVAL:
    case ENAMETOOLONG:
    case ELOOP:
    case EISDIR:
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kUnknown;
  }
}

struct NamedCode {
  absl::StatusCode code;
  std::string_view name;
};

constexpr std::array<NamedCode, 17> kNamedCodes = {{
    {absl::StatusCode::kOk, "ok"},
    {absl::StatusCode::kCancelled, "cancelled"},
    {absl::StatusCode::kUnknown, "unknown"},
    {absl::StatusCode::kInvalidArgument, "invalid_argument"},
    {absl::StatusCode::kDeadlineExceeded, "deadline_exceeded"},
    {absl::StatusCode::kNotFound, "not_found"},
    {absl::StatusCode::kAlreadyExists, "already_exists"},
    {absl::StatusCode::kPermissionDenied, "permission_denied"},
    {absl::StatusCode::kResourceExhausted, "resource_exhausted"},
    {absl::StatusCode::kFailedPrecondition, "failed_precondition"},
    {absl::StatusCode::kAborted, "aborted"},
    {absl::StatusCode::kOutOfRange, "out_of_range"},
    {absl::StatusCode::kUnimplemented, "unimplemented"},
    {absl::StatusCode::kInternal, "internal"},
    {absl::StatusCode::kUnavailable, "unavailable"},
    {absl::StatusCode::kDataLoss, "data_loss"},
    {absl::StatusCode::kUnauthenticated, "unauthenticated"},
}};

// What strerror_r(3) returns: POSIX has a number, glibc the text.
[[maybe_unused]] std::string ErrnoText(int number, const char* buffer) {
  return number == 0 ? buffer : "unknown error";
}
[[maybe_unused]] std::string ErrnoText(const char* text, const char*) {
  return text;
}

}  // namespace

absl::Status ErrnoError(int err, std::string_view doing) {
  char buffer[256] = "";
  return absl::Status(
      CodeOfErrno(err),
      absl::StrFormat(
          "%s: %s", std::string(doing),
          ErrnoText(strerror_r(err, buffer, sizeof buffer), buffer)));
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         absl::StrFormat("%s: %s", std::string(context),
                                         std::string(status.message())));
  status.ForEachPayload(
      [&annotated](const auto& type_url, const absl::Cord& payload) {
        annotated.SetPayload(type_url, payload);
      });
  return annotated;
}

absl::Status WithRetryAfter(absl::Status status, absl::Duration delay) {
  status.SetPayload(kRetryAfterPayload,
                    absl::Cord(absl::FormatDuration(delay)));
  return status;
}

std::optional<absl::Duration> RetryAfterOf(const absl::Status& status) {
  auto payload = status.GetPayload(kRetryAfterPayload);
  if (!payload) return std::nullopt;
  absl::Duration delay;
  if (!absl::ParseDuration(std::string(*payload), &delay)) return std::nullopt;
  return delay;
}

absl::Status BlamePath(absl::Status status) {
  status.SetPayload(kPathsFaultPayload, absl::Cord("1"));
  return status;
}

bool IsPathsFault(const absl::Status& status) {
  return status.GetPayload(kPathsFaultPayload).has_value();
}

absl::Status BlameTarget(absl::Status status) {
  status.ErasePayload(kPathsFaultPayload);
  return status;
}

std::string_view CodeName(absl::StatusCode code) {
  for (const NamedCode& named : kNamedCodes) {
    if (named.code == code) return named.name;
  }
  return "unknown";
}

absl::StatusCode CodeFromName(std::string_view name) {
  for (const NamedCode& named : kNamedCodes) {
    if (named.name == name) return named.code;
  }
  return absl::StatusCode::kUnknown;
}

}  // namespace nixq
