// What a process says about itself to the kernel and to the allocator.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "storage/base/io.h"

namespace nixq {

// No core file of this process or its children: it would hold keys.
void DisableCoreDumps();

// The value of an environment variable, "" if there is none, and removes it, so
// that no child inherits it. For the start of a program, before its threads.
std::string TakeEnvironmentVariable(const char* name);

// Gives freed memory back to the system, where the allocator can.
void ReturnFreedMemory();

// The number of a group. NOT_FOUND: there is none of that name.
absl::StatusOr<gid_t> GroupNumber(const std::string& name);

// The name of a user. NOT_FOUND: that number has none.
absl::StatusOr<std::string> UserName(uid_t user);

// Whether access(2) to `path` with `mode` (R_OK, W_OK | X_OK, ...) is for
// `user`, with all groups of theirs. Asks in a child that becomes that user:
// for root, before there are threads.
// Errors: NOT_FOUND          that number has no name
//         PERMISSION_DENIED  we are not root
absl::StatusOr<bool> UserMay(uid_t user, const std::string& path, int mode);

// Takes `file` (created with mode 0600) as a lock of this process, until the
// descriptor goes. Never waits. FAILED_PRECONDITION: another process has it.
absl::StatusOr<UniqueFd> LockFile(const std::string& file);

}  // namespace nixq
