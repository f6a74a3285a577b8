#include "storage/queue/sqlite.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

absl::StatusCode CodeOfErrno(int err) {
  if (err == EFBIG) return absl::StatusCode::kResourceExhausted;
  return ErrnoError(err, "").code();
}

// The one place where SQLite's codes get their meaning.
absl::StatusCode CodeOf(int extended, int system_errno) {
  switch (extended & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return absl::StatusCode::kUnavailable;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
      return absl::StatusCode::kDataLoss;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return absl::StatusCode::kPermissionDenied;
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
    case SQLITE_MISMATCH:
      return absl::StatusCode::kInvalidArgument;
    case SQLITE_INTERRUPT:
    case SQLITE_ABORT:
      return absl::StatusCode::kCancelled;
    case SQLITE_CANTOPEN:
      return system_errno != 0 ? CodeOfErrno(system_errno)
                               : absl::StatusCode::kUnavailable;
    case SQLITE_IOERR: {
      if (extended == SQLITE_IOERR_NOMEM) {
        return absl::StatusCode::kResourceExhausted;
      }
      absl::StatusCode code = CodeOfErrno(system_errno);
      return code == absl::StatusCode::kResourceExhausted ||
                     code == absl::StatusCode::kPermissionDenied
                 ? code
                 : absl::StatusCode::kUnavailable;
    }
    default:
      return absl::StatusCode::kInternal;
  }
}

// The errno behind an I/O error. SQLite forgets it when a commit fails, but
// each of its files remembers its own.
int SystemErrno(sqlite3* database) {
  int result = sqlite3_system_errno(database);
  for (int which : {SQLITE_FCNTL_JOURNAL_POINTER, SQLITE_FCNTL_FILE_POINTER}) {
    if (result != 0) break;
    sqlite3_file* file = nullptr;
    sqlite3_file_control(database, "main", which, &file);
    if (file == nullptr || file->pMethods == nullptr) continue;
    file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &result);
  }
  return result;
}

absl::Status ErrorOf(sqlite3* database, int code) {
  const char* file = nullptr;
  std::string message = sqlite3_errstr(code);
  int system_errno = 0;
  int extended = code;
  if (database != nullptr) {
    file = sqlite3_db_filename(database, "main");
    if (sqlite3_errcode(database) == (code & 0xff) ||
        sqlite3_extended_errcode(database) == code) {
      extended = sqlite3_extended_errcode(database);
      message = sqlite3_errmsg(database);
    }
    int base = extended & 0xff;
    if (base == SQLITE_CANTOPEN || base == SQLITE_IOERR) {
      system_errno = SystemErrno(database);
    }
  }
  if (system_errno != 0) {
    message = absl::StrFormat("%s: %s", message, std::strerror(system_errno));
  }
  return absl::Status(
      CodeOf(extended, system_errno),
      absl::StrFormat("%s: %s (SQLite %d)", file != nullptr ? file : "database",
                      message, extended));
}

// `file` with its directory free of symlinks, so that SQLite's refusal to
// follow any holds for the file alone.
absl::StatusOr<std::string> CanonicalFile(const std::string& file) {
  struct stat info;
  if (lstat(file.c_str(), &info) != 0) {
    return ErrnoError(errno, absl::StrFormat("open %s", file));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::DataLossError(absl::StrFormat(
        "%s: not a database: it is not a regular file; move it away", file));
  }
  size_t slash = file.rfind('/');
  std::string directory =
      slash == std::string::npos ? "." : file.substr(0, slash + 1);
  char* real = realpath(directory.c_str(), nullptr);
  if (real == nullptr) {
    return ErrnoError(errno, absl::StrFormat("open %s", directory));
  }
  std::string canonical = absl::StrFormat(
      "%s/%s", real,
      slash == std::string::npos ? file : file.substr(slash + 1));
  free(real);  // NOLINT: realpath(3) allocates
  return canonical;
}

// While it lives, SQLite reads a schema only until its second row. Reading it
// is a query as others are, so that a progress handler can interrupt it; and
// with SQLITE_DBCONFIG_WRITABLE_SCHEMA, which is for looking into damaged
// files, SQLite makes do with what it has read until then. An SQLite without
// these handlers reads all of it.
class SchemaHead {
 public:
  explicit SchemaHead(sqlite3* connection) : connection_(connection) {
    sqlite3_db_config(connection_, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
    sqlite3_trace_v2(
        connection_, SQLITE_TRACE_ROW,
        [](unsigned, void* self, void*, void*) {
          ++static_cast<SchemaHead*>(self)->rows_;
          return 0;
        },
        this);
    sqlite3_progress_handler(connection_, 1, &SchemaHead::Interrupt, this);
  }
  SchemaHead(const SchemaHead&) = delete;
  SchemaHead& operator=(const SchemaHead&) = delete;
  ~SchemaHead() {
    sqlite3_progress_handler(connection_, 0, nullptr, nullptr);
    sqlite3_trace_v2(connection_, 0, nullptr, nullptr);
    sqlite3_db_config(connection_, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0, nullptr);
  }

 private:
  // Once: what runs after that is no longer reading the schema.
  static int Interrupt(void* self_pointer) {
    auto* self = static_cast<SchemaHead*>(self_pointer);
    if (self->rows_ < 2 || self->interrupted_) return 0;
    self->interrupted_ = true;
    return 1;
  }

  sqlite3* connection_;
  int rows_ = 0;
  bool interrupted_ = false;
};

}  // namespace

// --- Statement --------------------------------------------------------------

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      statement_(std::exchange(other.statement_, nullptr)),
      in_use_(std::exchange(other.in_use_, nullptr)),
      bind_error_(other.bind_error_) {}

Statement::~Statement() {
  if (statement_ == nullptr) return;
  if (in_use_ == nullptr) {
    sqlite3_finalize(statement_);
    return;
  }
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  *in_use_ = false;
}

void Statement::Reset() {
  sqlite3_reset(statement_);
  bind_error_ = SQLITE_OK;
}

void Statement::BindOne(int index, int64_t value) {
  int code = sqlite3_bind_int64(statement_, index, value);
  if (code != SQLITE_OK) bind_error_ = code;
}

void Statement::BindOne(int index, std::string_view value) {
  // A null pointer would bind NULL, not the empty text.
  const char* data = value.data() != nullptr ? value.data() : "";
  int code = sqlite3_bind_text64(statement_, index, data, value.size(),
                                 SQLITE_TRANSIENT,  // NOLINT: sqlite's cast
                                 SQLITE_UTF8);
  if (code != SQLITE_OK) bind_error_ = code;
}

void Statement::BindOne(int index, std::nullptr_t) {
  int code = sqlite3_bind_null(statement_, index);
  if (code != SQLITE_OK) bind_error_ = code;
}

absl::StatusOr<bool> Statement::Step() {
  if (bind_error_ != SQLITE_OK) return ErrorOf(database_, bind_error_);
  int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  absl::Status error = ErrorOf(database_, code);
  sqlite3_reset(statement_);
  return error;
}

absl::Status Statement::Run() {
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, Step());
    if (!row) break;
  }
  sqlite3_reset(statement_);
  return absl::OkStatus();
}

int64_t Statement::Int(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string Statement::Text(int column) const {
  const unsigned char* text = sqlite3_column_text(statement_, column);
  if (text == nullptr) return "";
  int size = sqlite3_column_bytes(statement_, column);
  return std::string(reinterpret_cast<const char*>(text), size);
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

// --- Database ---------------------------------------------------------------

class Database::Impl {
 public:
  struct Cached {
    sqlite3_stmt* statement = nullptr;
    bool in_use = false;
  };

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    for (auto& [sql, cached] : statements) sqlite3_finalize(cached.statement);
    sqlite3_close(connection);
  }

  absl::Status Check(int code) const {
    return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(connection, code);
  }

  // SQLite's busy handler: sleeps a little and says whether to try again.
  // The sleeps start short, since a hook's transaction lasts about as long as
  // a flush, and grow, since a bulk transaction of the daemon lasts longer.
  static int Busy(void* self_pointer, int tries) {
    auto* self = static_cast<Impl*>(self_pointer);
    auto now = std::chrono::steady_clock::now();
    if (tries == 0) self->busy_since = now;
    auto left = self->busy_timeout - (now - self->busy_since);
    if (left <= std::chrono::steady_clock::duration::zero()) return 0;
    std::chrono::steady_clock::duration pause =
        std::chrono::microseconds(std::min(200 + 100 * tries, 5000));
    std::this_thread::sleep_for(std::min(left, pause));
    return 1;
  }

  // SQLite's handle of the WAL; nullptr if the database, once it has been
  // read, is in another mode.
  sqlite3_file* Wal() const {
    sqlite3_file* wal = nullptr;
    sqlite3_file_control(connection, "main", SQLITE_FCNTL_JOURNAL_POINTER,
                         &wal);
    return wal != nullptr && wal->pMethods != nullptr ? wal : nullptr;
  }

  sqlite3* connection = nullptr;
  std::string file;
  std::chrono::steady_clock::duration busy_timeout{};
  std::chrono::steady_clock::time_point busy_since;
  int64_t wal_pages = 0;
  std::unordered_map<std::string_view, Cached> statements;
};

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

absl::StatusOr<Database> Database::Open(const std::string& file,
                                        const DatabaseOptions& options) {
  NIXQ_ASSIGN_OR_RETURN(std::string canonical, CanonicalFile(file));
  auto impl = std::make_unique<Impl>();
  impl->file = file;
  impl->busy_timeout = absl::ToChronoNanoseconds(options.busy_timeout);
  int flags =
      SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_PRIVATECACHE |
      SQLITE_OPEN_EXRESCODE |
      (options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
  // Before it is open, SQLite does not know its name.
  NIXQ_RETURN_IF_ERROR(
      Annotate(impl->Check(sqlite3_open_v2(canonical.c_str(), &impl->connection,
                                           flags, nullptr)),
               file));
  sqlite3* connection = impl->connection;
  NIXQ_RETURN_IF_ERROR(
      impl->Check(sqlite3_busy_handler(connection, &Impl::Busy, impl.get())));
  // Also switches SQLite's own checkpoints after commits off: they are this
  // hook's default.
  sqlite3_wal_hook(
      connection,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<Impl*>(self)->wal_pages = pages;
        return SQLITE_OK;
      },
      impl.get());
  NIXQ_RETURN_IF_ERROR(impl->Check(sqlite3_db_config(
      connection, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr)));
  // Opened read-write, SQLite falls back to read-only without a word.
  if (!options.read_only && sqlite3_db_readonly(connection, "main") == 1) {
    return absl::PermissionDeniedError(
        absl::StrFormat("%s: not ours to write", file));
  }
  Database database(std::move(impl));
  std::string pragmas = absl::StrFormat(
      "PRAGMA cache_size=-%d; PRAGMA synchronous=NORMAL; PRAGMA fullfsync=1;",
      options.cache_kib);
  // The first of these reads the schema.
  absl::Status status;
  if (options.first_table_only) {
    SchemaHead head(connection);
    status = database.Execute(pragmas);
  }
  // An SQLite that does not make do with a part was interrupted.
  if (!options.first_table_only || absl::IsCancelled(status)) {
    status = database.Execute(pragmas);
  }
  NIXQ_RETURN_IF_ERROR(status);
  if (options.read_only || database.impl_->Wal() != nullptr) return database;
  NIXQ_RETURN_IF_ERROR(database.Execute("PRAGMA journal_mode=WAL"));
  NIXQ_RETURN_IF_ERROR(database.Execute("SELECT 1 FROM sqlite_schema"));
  if (database.impl_->Wal() == nullptr) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: its file system does not allow SQLite's WAL mode", file));
  }
  return database;
}

void Database::ExpectLittleUse() {
  sqlite3_config(SQLITE_CONFIG_PAGECACHE, nullptr, 0, 0);
  sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
  sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

absl::Status Database::ReadWholeSchema() {
  return Execute("PRAGMA writable_schema=RESET");
}

absl::StatusOr<std::string> Database::MakeImage(const std::string& sql) {
  auto impl = std::make_unique<Impl>();
  NIXQ_RETURN_IF_ERROR(
      impl->Check(sqlite3_open(":memory:", &impl->connection)));
  NIXQ_RETURN_IF_ERROR(impl->Check(
      sqlite3_exec(impl->connection, sql.c_str(), nullptr, nullptr, nullptr)));
  sqlite3_int64 size = 0;
  unsigned char* bytes = sqlite3_serialize(impl->connection, "main", &size, 0);
  if (bytes == nullptr) {
    return absl::ResourceExhaustedError("no memory for a new database");
  }
  std::string image(reinterpret_cast<char*>(bytes), size);
  sqlite3_free(bytes);
  // The file format's write and read versions: 2 is WAL
  // (https://sqlite.org/fileformat2.html#file_format_version_numbers).
  image[18] = 2;
  image[19] = 2;
  return image;
}

absl::StatusOr<Statement> Database::Prepare(std::string_view sql) {
  Impl::Cached& cached = impl_->statements[sql];
  if (cached.statement != nullptr && !cached.in_use) {
    cached.in_use = true;
    return Statement(impl_->connection, cached.statement, &cached.in_use);
  }
  sqlite3_stmt* statement = nullptr;
  NIXQ_RETURN_IF_ERROR(impl_->Check(sqlite3_prepare_v3(
      impl_->connection, sql.data(), static_cast<int>(sql.size()),
      SQLITE_PREPARE_PERSISTENT, &statement, nullptr)));
  if (cached.in_use) return Statement(impl_->connection, statement, nullptr);
  cached.statement = statement;
  cached.in_use = true;
  return Statement(impl_->connection, statement, &cached.in_use);
}

absl::Status Database::Execute(const std::string& sql) {
  return impl_->Check(
      sqlite3_exec(impl_->connection, sql.c_str(), nullptr, nullptr, nullptr));
}

absl::StatusOr<std::optional<int64_t>> Database::QueryInt(
    std::string_view sql) {
  NIXQ_ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  NIXQ_ASSIGN_OR_RETURN(bool row, statement.Step());
  if (!row || statement.IsNull(0)) return std::nullopt;
  return statement.Int(0);
}

int64_t Database::Changes() const { return sqlite3_changes(impl_->connection); }

int64_t Database::LastInsertId() const {
  return sqlite3_last_insert_rowid(impl_->connection);
}

int64_t Database::PagesWritten() const {
  int current = 0;
  int highest = 0;
  sqlite3_db_status(impl_->connection, SQLITE_DBSTATUS_CACHE_WRITE, &current,
                    &highest, 0);
  return current;
}

absl::Status Database::Flush() {
  sqlite3_file* wal = impl_->Wal();
  if (wal == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: left its WAL mode", impl_->file));
  }
  int code = wal->pMethods->xSync(wal, SQLITE_SYNC_FULL | SQLITE_SYNC_DATAONLY);
  return code == SQLITE_OK
             ? absl::OkStatus()
             : absl::UnavailableError(absl::StrFormat(
                   "%s: flush: %s", impl_->file, sqlite3_errstr(code)));
}

absl::Status Database::Checkpoint(CheckpointMode mode) {
  auto busy_timeout = std::exchange(
      impl_->busy_timeout, std::chrono::steady_clock::duration::zero());
  int code = sqlite3_wal_checkpoint_v2(impl_->connection, "main",
                                       mode == CheckpointMode::kPassive
                                           ? SQLITE_CHECKPOINT_PASSIVE
                                           : SQLITE_CHECKPOINT_TRUNCATE,
                                       nullptr, nullptr);
  impl_->busy_timeout = busy_timeout;
  if ((code & 0xff) == SQLITE_BUSY) return absl::OkStatus();
  return impl_->Check(code);
}

int64_t Database::WalPages() const { return impl_->wal_pages; }

const std::string& Database::file() const { return impl_->file; }

// --- Transaction ------------------------------------------------------------

absl::StatusOr<Transaction> Transaction::Begin(Database& database) {
  NIXQ_RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  return Transaction(&database);
}

absl::StatusOr<Transaction> Transaction::BeginRead(Database& database) {
  NIXQ_RETURN_IF_ERROR(database.Execute("BEGIN DEFERRED"));
  return Transaction(&database);
}

Transaction::Transaction(Transaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

Transaction::~Transaction() {
  // Fails when SQLite has already rolled back by itself, which is as good.
  if (database_ != nullptr) database_->Execute("ROLLBACK").IgnoreError();
}

absl::Status Transaction::Commit() {
  NIXQ_RETURN_IF_ERROR(database_->Execute("COMMIT"));
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace nixq
