#include "storage/queue/queue.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/queue/migrations.h"
#include "storage/queue/queue_impl.h"

namespace nixq {
namespace {

// Large enough for the working set of a million rows' hot indexes.
constexpr int kCacheKib = 16 * 1024;

DatabaseOptions OptionsFor(const QueueOptions& options) {
  DatabaseOptions result;
  result.busy_timeout = options.busy_timeout;
  result.cache_kib = kCacheKib;
  return result;
}

Clock& ClockOf(const QueueOptions& options) {
  return options.clock != nullptr ? *options.clock : SystemClock();
}

// Gives `path` to the group `gid` and adds `mode` to its mode. By name, not by
// descriptor: closing one of a database drops this process's locks on it.
absl::Status ShareOne(const std::string& path, gid_t gid, mode_t mode) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return ErrnoError(errno, absl::StrFormat("look at %s", path));
  }
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s is neither file nor directory", path));
  }
  if (info.st_gid != gid && lchown(path.c_str(), -1, gid) != 0) {
    return ErrnoError(
        errno, absl::StrFormat("give %s to group %d, of which this user must "
                               "be a member",
                               path, gid));
  }
  // Also after a change of group, which clears S_ISGID.
  if (chmod(path.c_str(), (info.st_mode & 07777) | mode) != 0) {
    return ErrnoError(errno, absl::StrFormat("change the mode of %s", path));
  }
  return absl::OkStatus();
}

// Lets the group read: the directory (whose group new files get), and what is
// there already.
absl::Status ShareWithReaders(const std::string& state_dir, gid_t gid) {
  NIXQ_RETURN_IF_ERROR(ShareOne(state_dir, gid, S_ISGID | S_IRGRP | S_IXGRP));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    NIXQ_RETURN_IF_ERROR(ShareOne(QueueFile(state_dir) + suffix, gid, S_IRGRP));
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view Name(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kSending:
      return "sending";
    case JobState::kDone:
      return "done";
    case JobState::kParked:
      return "parked";
  }
  return "";
}

std::string_view Name(JobOutcome outcome) {
  switch (outcome) {
    case JobOutcome::kNone:
      return "";
    case JobOutcome::kSent:
      return "sent";
    case JobOutcome::kPresent:
      return "present";
    case JobOutcome::kSkipped:
      return "skipped";
    case JobOutcome::kGone:
      return "gone";
  }
  return "";
}

std::string_view Name(RootState state) {
  switch (state) {
    case RootState::kNone:
      return "none";
    case RootState::kHold:
      return "hold";
    case RootState::kPin:
      return "pin";
  }
  return "";
}

std::string_view Name(TargetHealth health) {
  switch (health) {
    case TargetHealth::kUnknown:
      return "unknown";
    case TargetHealth::kOk:
      return "ok";
    case TargetHealth::kUnreachable:
      return "unreachable";
    case TargetHealth::kRefused:
      return "refused";
  }
  return "";
}

JobState JobStateFromName(std::string_view name) {
  for (JobState state :
       {JobState::kSending, JobState::kDone, JobState::kParked}) {
    if (Name(state) == name) return state;
  }
  return JobState::kQueued;
}

JobOutcome JobOutcomeFromName(std::string_view name) {
  for (JobOutcome outcome : {JobOutcome::kSent, JobOutcome::kPresent,
                             JobOutcome::kSkipped, JobOutcome::kGone}) {
    if (Name(outcome) == name) return outcome;
  }
  return JobOutcome::kNone;
}

RootState RootStateFromName(std::string_view name) {
  for (RootState state : {RootState::kHold, RootState::kPin}) {
    if (Name(state) == name) return state;
  }
  return RootState::kNone;
}

TargetHealth TargetHealthFromName(std::string_view name) {
  for (TargetHealth health : {TargetHealth::kOk, TargetHealth::kUnreachable,
                              TargetHealth::kRefused}) {
    if (Name(health) == name) return health;
  }
  return TargetHealth::kUnknown;
}

absl::StatusOr<Queue> Queue::Open(const QueueOptions& options) {
  {
    // Creates the file, if there is none, as a hook would.
    absl::StatusOr<InboxWriter> writer =
        InboxWriter::Open(options.state_dir, options.busy_timeout);
    NIXQ_RETURN_IF_ERROR(writer.status());
  }
  if (options.reader_gid) {
    NIXQ_RETURN_IF_ERROR(
        ShareWithReaders(options.state_dir, *options.reader_gid));
  }
  NIXQ_ASSIGN_OR_RETURN(
      Database database,
      Database::Open(QueueFile(options.state_dir), OptionsFor(options)));
  NIXQ_RETURN_IF_ERROR(Migrate(database));
  NIXQ_RETURN_IF_ERROR(database.Flush());
  return Queue(std::make_unique<Impl>(std::move(database), ClockOf(options)));
}

absl::StatusOr<Queue> Queue::OpenExisting(const QueueOptions& options) {
  NIXQ_ASSIGN_OR_RETURN(
      Database database,
      Database::Open(QueueFile(options.state_dir), OptionsFor(options)));
  NIXQ_RETURN_IF_ERROR(CheckSchemaVersion(database));
  return Queue(std::make_unique<Impl>(std::move(database), ClockOf(options)));
}

absl::StatusOr<Queue> Queue::OpenForRoots(const QueueOptions& options,
                                          bool read_only) {
  DatabaseOptions database_options = OptionsFor(options);
  database_options.read_only = read_only;
  NIXQ_ASSIGN_OR_RETURN(
      Database database,
      Database::Open(QueueFile(options.state_dir), database_options));
  NIXQ_ASSIGN_OR_RETURN(int version, SchemaVersion(database));
  if (version != kInboxSchema) {
    NIXQ_RETURN_IF_ERROR(CheckSchemaVersion(database));
  }
  return Queue(std::make_unique<Impl>(std::move(database), ClockOf(options)));
}

Queue::Queue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Queue::Queue(Queue&&) noexcept = default;
Queue& Queue::operator=(Queue&&) noexcept = default;
Queue::~Queue() = default;

Queue::Impl::FileIdentity Queue::Impl::IdentityOf(const std::string& file) {
  struct stat info;
  if (stat(file.c_str(), &info) != 0) return {0, 0};
  return {static_cast<uint64_t>(info.st_dev),
          static_cast<uint64_t>(info.st_ino)};
}

absl::Status Queue::CheckFile() const {
  const std::string& file = impl_->database.file();
  if (Impl::IdentityOf(file) == impl_->file) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("%s was removed or replaced while it was open", file));
}

absl::Status Queue::Checkpoint() {
  return impl_->database.Checkpoint(Database::CheckpointMode::kPassive);
}

}  // namespace nixq
