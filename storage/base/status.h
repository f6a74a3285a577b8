// Errors as values: how an error is made, carried upwards and understood.
//
// Everything that can fail returns absl::Status or absl::StatusOr. The code
// says what to do next (queued/retry.h holds the one table); the message says
// what failed, on what, why, and, where there is something to do, what. Each
// layer adds its context once, with Annotate.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nixq {

// An error for a failed system call. `err` is the errno of the call, `doing`
// what was attempted and on what ("open /var/lib/nix-queued/queue.db").
//   ENOENT, ENOTDIR          NOT_FOUND
//   EEXIST                   ALREADY_EXISTS
//   EACCES, EPERM, EROFS     PERMISSION_DENIED
//   ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE   RESOURCE_EXHAUSTED
//   ECONN*, ENETUNREACH, EHOSTUNREACH, EPIPE, EAGAIN, EBUSY   UNAVAILABLE
//   ETIMEDOUT                DEADLINE_EXCEEDED
//   EINVAL, ENAMETOOLONG, ELOOP, EISDIR      INVALID_ARGUMENT
//   EIO                      UNAVAILABLE (a disk or NFS hiccup: worth a retry)
//   everything else          UNKNOWN
absl::Status ErrnoError(int err, std::string_view doing);

// `status` with "context: " before its message; code and payloads are kept.
// An OK status stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// Attaches and reads how long the other side asked us to wait.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryAfterOf(const absl::Status& status);

// Marks an error as the target's (unreachable, refused) or as this path's own.
// Only a target's error counts for its circuit.
absl::Status BlamePath(absl::Status status);
bool IsPathsFault(const absl::Status& status);
// The same error without that mark.
absl::Status BlameTarget(absl::Status status);

// The code as words that rows, logs and JSON carry: "unavailable",
// "data_loss". The inverse gives UNKNOWN for a word that it does not know.
std::string_view CodeName(absl::StatusCode code);
absl::StatusCode CodeFromName(std::string_view name);

}  // namespace nixq

#define NIXQ_CONCAT_INNER_(a, b) a##b
#define NIXQ_CONCAT_(a, b) NIXQ_CONCAT_INNER_(a, b)

// NOLINTBEGIN(bugprone-macro-parentheses): a declaration has no parentheses.

// Returns early from a function with the error of `expr`, if it is one.
#define NIXQ_RETURN_IF_ERROR(expr) \
  NIXQ_RETURN_IF_ERROR_IMPL_(NIXQ_CONCAT_(nixq_status_, __LINE__), expr)
#define NIXQ_RETURN_IF_ERROR_IMPL_(status, expr)                   \
  do {                                                             \
    if (absl::Status status = (expr); !status.ok()) return status; \
  } while (false)

// Declares or assigns `lhs` from a StatusOr, or returns early with its error.
#define NIXQ_ASSIGN_OR_RETURN(lhs, expr) \
  NIXQ_ASSIGN_OR_RETURN_IMPL_(NIXQ_CONCAT_(nixq_or_, __LINE__), lhs, expr)
#define NIXQ_ASSIGN_OR_RETURN_IMPL_(result, lhs, expr) \
  auto result = (expr);                                \
  if (!result.ok()) return std::move(result).status(); \
  lhs = *std::move(result)

// NOLINTEND(bugprone-macro-parentheses)
