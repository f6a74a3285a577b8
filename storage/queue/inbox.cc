#include "storage/queue/inbox.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "schema/migrations.h"
#include "storage/base/clock.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/queue/sqlite.h"

namespace nixq {
namespace {

constexpr mode_t kStateDirMode = 0750;
constexpr std::string_view kUnfinishedPrefix = ".queue.db.";
constexpr absl::Duration kTemporaryLife = absl::Minutes(1);
constexpr size_t kMaxNames = 1'000'000;

// The daemon empties the WAL long before it is this long. Without a daemon
// every hook is the first to open the file and so reads the whole WAL: a
// bound keeps that to a few milliseconds.
constexpr int64_t kUnattendedWalPages = 2048;

std::string InboxSql() {
  const schema::Migration& first = schema::kMigrations[0];
  return absl::StrFormat("%s\nPRAGMA user_version = %d;",
                         std::string(first.sql), first.number);
}

// A name that no other process uses, or one that a dead process left.
absl::StatusOr<UniqueFd> CreateTemporary(const std::string& state_dir,
                                         mode_t mode, std::string* name) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    *name = absl::StrFormat("%s/%s%d.%d", state_dir,
                            std::string(kUnfinishedPrefix), getpid(), attempt);
    int fd = open(name->c_str(),
                  O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd >= 0) return UniqueFd(fd);
    if (errno != EEXIST) break;
  }
  return ErrnoError(errno, absl::StrFormat("create %s", *name));
}

absl::Status FillDatabase(const UniqueFd& fd, const std::string& name,
                          const struct stat& directory) {
  NIXQ_ASSIGN_OR_RETURN(std::string image, Database::MakeImage(InboxSql()));
  NIXQ_RETURN_IF_ERROR(Annotate(WriteAll(fd.get(), image), name));
  // Only root can give it away; everybody may give it to a group of theirs,
  // and where that is refused the file still works for its owner.
  bool root = geteuid() == 0;
  if (fchown(fd.get(), root ? directory.st_uid : static_cast<uid_t>(-1),
             directory.st_gid) != 0 &&
      root) {
    return ErrnoError(errno, absl::StrFormat("give away %s", name));
  }
  if (fchmod(fd.get(), 0660 & directory.st_mode) != 0) {
    return ErrnoError(errno, absl::StrFormat("change the mode of %s", name));
  }
  return SyncFd(fd.get(), name);
}

std::string ParentOf(const std::string& directory) {
  size_t end = directory.find_last_not_of('/');
  size_t slash = directory.rfind('/', end);
  if (slash == std::string::npos) return ".";
  size_t last = directory.find_last_not_of('/', slash);
  return last == std::string::npos ? "/" : directory.substr(0, last + 1);
}

absl::Status MakeStateDirectory(const std::string& state_dir) {
  NIXQ_RETURN_IF_ERROR(MakeDirectories(state_dir, kStateDirMode));
  // The new names are as durable as what they will hold. Directories that
  // are not ours to open were not made by us.
  for (std::string parent = ParentOf(state_dir);; parent = ParentOf(parent)) {
    SyncDirectory(parent).IgnoreError();
    if (parent == "/" || parent == ".") return absl::OkStatus();
  }
}

// Makes the database whole under another name, then links it into place:
// whoever comes second finds it there.
absl::Status CreateDatabase(const std::string& state_dir) {
  struct stat directory;
  if (stat(state_dir.c_str(), &directory) != 0) {
    NIXQ_RETURN_IF_ERROR(MakeStateDirectory(state_dir));
    if (stat(state_dir.c_str(), &directory) != 0) {
      return ErrnoError(errno, absl::StrFormat("open %s", state_dir));
    }
  }
  std::string name;
  NIXQ_ASSIGN_OR_RETURN(UniqueFd fd, CreateTemporary(state_dir, 0600, &name));
  absl::Status status = FillDatabase(fd, name, directory);
  if (status.ok()) {
    std::string file = QueueFile(state_dir);
    if (link(name.c_str(), file.c_str()) != 0 && errno != EEXIST) {
      status = ErrnoError(errno, absl::StrFormat("create %s", file));
    }
  }
  unlink(name.c_str());
  return status;
}

std::string_view KindName(InboxKind kind) {
  return kind == InboxKind::kOutput ? "output" : "derivation";
}

}  // namespace

std::string QueueFile(const std::string& state_dir) {
  return state_dir + "/queue.db";
}

void SweepUnfinishedDatabases(const std::string& state_dir) {
  auto names = ListDirectory(state_dir, kMaxNames);
  if (!names.ok()) return;
  const absl::Time now = SystemClock().Now();
  for (const std::string& name : *names) {
    if (!name.starts_with(kUnfinishedPrefix)) continue;
    std::string file = state_dir;
    file.append("/").append(name);
    struct stat st;
    if (lstat(file.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
        now - absl::FromTimeT(st.st_mtime) > kTemporaryLife) {
      unlink(file.c_str());
    }
  }
}

// The database belongs to whoever the state directory belongs to, also when
// that has changed hands since root's first hook made both: else its new owner
// could never write it. Only what root made itself, under this one name, is
// given away. Not while the process has it open: closing any descriptor of a
// file drops the locks that SQLite has on it.
void HandOver(const std::string& state_dir) {
  struct stat directory;
  struct stat file;
  const std::string name = QueueFile(state_dir);
  if (geteuid() != 0 || stat(state_dir.c_str(), &directory) != 0 ||
      lstat(name.c_str(), &file) != 0 || file.st_uid == directory.st_uid ||
      file.st_uid != 0) {
    return;
  }
  for (const char* ending : {"", "-wal", "-shm"}) {
    UniqueFd fd(
        open((name + ending).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (fd.valid() && fstat(fd.get(), &file) == 0 && S_ISREG(file.st_mode) &&
        file.st_uid == 0 && file.st_nlink == 1) {
      // If not, opening says what is wrong.
      [[maybe_unused]] int result =
          fchown(fd.get(), directory.st_uid, directory.st_gid);
    }
  }
}

class InboxWriter::Impl {
 public:
  explicit Impl(Database database) : database_(std::move(database)) {}

  absl::Status Put(const std::vector<InboxEntry>& entries) {
    if (entries.empty()) return absl::OkStatus();
    absl::Status status = Insert(entries);
    if (absl::IsInternal(status)) {
      NIXQ_RETURN_IF_ERROR(database_.ReadWholeSchema());
      knows_whole_schema_ = true;
      NIXQ_RETURN_IF_ERROR(FillEmptyDatabase());
      status = Insert(entries);
    }
    NIXQ_RETURN_IF_ERROR(status);
    BoundUnattendedWal();
    return absl::OkStatus();
  }

 private:
  absl::Status Insert(const std::vector<InboxEntry>& entries) {
    NIXQ_ASSIGN_OR_RETURN(
        Statement insert,
        database_.Prepare(
            "INSERT INTO inbox (kind, path, deriver, named, source, "
            "created_unix_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"));
    NIXQ_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::Begin(database_));
    if (!knows_whole_schema_) NIXQ_RETURN_IF_ERROR(IsPlainTable());
    for (const InboxEntry& entry : entries) {
      insert.Bind(KindName(entry.kind), entry.path, entry.deriver, entry.named,
                  entry.source, entry.created_unix_ms);
      NIXQ_RETURN_IF_ERROR(insert.Run());
    }
    NIXQ_RETURN_IF_ERROR(transaction.Commit());
    return database_.Flush();
  }

  // INTERNAL: somebody has given the inbox an index or a trigger, of which a
  // connection that has read no more than the table knows nothing.
  absl::Status IsPlainTable() {
    NIXQ_ASSIGN_OR_RETURN(
        std::optional<int64_t> more,
        database_.QueryInt("SELECT 1 FROM sqlite_schema WHERE tbl_name = "
                           "'inbox' COLLATE NOCASE AND type <> 'table'"));
    return more.has_value()
               ? absl::InternalError("the inbox has indexes or triggers")
               : absl::OkStatus();
  }

  // An empty file is an empty database (a person's `sqlite3 queue.db` leaves
  // one); it becomes what CreateDatabase makes.
  absl::Status FillEmptyDatabase() {
    NIXQ_ASSIGN_OR_RETURN(
        std::optional<int64_t> tables,
        database_.QueryInt("SELECT count(*) FROM sqlite_schema"));
    NIXQ_ASSIGN_OR_RETURN(
        std::optional<int64_t> inbox,
        database_.QueryInt("SELECT count(*) FROM sqlite_schema WHERE type = "
                           "'table' AND name = 'inbox'"));
    if (inbox.value_or(0) > 0) return absl::OkStatus();  // another was faster
    if (tables.value_or(0) > 0) {
      return absl::DataLossError(absl::StrFormat(
          "%s: a database without an inbox; move it away", database_.file()));
    }
    NIXQ_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::Begin(database_));
    NIXQ_RETURN_IF_ERROR(database_.Execute(InboxSql()));
    return transaction.Commit();
  }

  // Everything is durable already, so trouble here is nobody's trouble.
  void BoundUnattendedWal() {
    int64_t past_bound = database_.WalPages() % kUnattendedWalPages;
    if (database_.WalPages() >= kUnattendedWalPages &&
        past_bound < database_.PagesWritten()) {
      database_.Checkpoint(Database::CheckpointMode::kTruncate).IgnoreError();
    }
  }

  Database database_;
  bool knows_whole_schema_ = false;
};

absl::StatusOr<InboxWriter> InboxWriter::Open(const std::string& state_dir,
                                              absl::Duration busy_timeout) {
  DatabaseOptions options;
  options.busy_timeout = busy_timeout;
  options.first_table_only = true;  // the inbox, see schema/README.md
  std::string file = QueueFile(state_dir);
  absl::StatusOr<Database> database = Database::Open(file, options);
  if (absl::IsNotFound(database.status())) {
    NIXQ_RETURN_IF_ERROR(CreateDatabase(state_dir));
    database = Database::Open(file, options);
  }
  NIXQ_RETURN_IF_ERROR(database.status());
  return InboxWriter(std::make_unique<Impl>(*std::move(database)));
}

absl::StatusOr<InboxWriter> InboxWriter::OpenOnce(const std::string& state_dir,
                                                  absl::Duration busy_timeout) {
  HandOver(state_dir);
  Database::ExpectLittleUse();
  return Open(state_dir, busy_timeout);
}

InboxWriter::InboxWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
InboxWriter::InboxWriter(InboxWriter&&) noexcept = default;
InboxWriter& InboxWriter::operator=(InboxWriter&&) noexcept = default;
InboxWriter::~InboxWriter() = default;

void InboxWriter::LeaveOpen() { (void)impl_.release(); }

absl::Status InboxWriter::Put(const std::vector<InboxEntry>& entries) {
  return impl_->Put(entries);
}

}  // namespace nixq
