// SQLite as this project uses it: a database, its statements, transactions.
//
// The only header that stands for sqlite3.h. Every failure is an absl::Status:
//   UNAVAILABLE          locked by another for longer than the busy timeout;
//                        an I/O error that may pass
//   RESOURCE_EXHAUSTED   disk, quota or file size limit; memory
//   PERMISSION_DENIED    not ours to read or write
//   DATA_LOSS            not a database, or damaged
//   NOT_FOUND            no such file
//   INVALID_ARGUMENT     a value breaks a constraint of the schema
//   CANCELLED            interrupted
//   INTERNAL             the SQL does not fit the schema: a bug, or a file
//                        that somebody else made
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

struct sqlite3;
struct sqlite3_stmt;

namespace nixq {

struct DatabaseOptions {
  // Read-only needs no write permission on file or directory, as long as the
  // -wal and -shm files are there (we never remove them).
  bool read_only = false;
  // How long to wait for somebody else's write transaction. Polls with short
  // sleeps, since SQLite's locks have no queue.
  absl::Duration busy_timeout = absl::Seconds(5);
  // Memory for pages, per connection.
  int cache_kib = 2048;
  // Reads the schema only until it knows the first table, if SQLite lets us.
  // For a program that uses no other: it neither pays for what later versions
  // and people add, nor has to understand it. Until ReadWholeSchema it knows of
  // no index or trigger of that table either.
  bool first_table_only = false;
};

// One prepared statement, borrowed from its database's cache; it goes back,
// reset and without values, when it goes. Must not outlive the database.
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  // Starts over with these values for ?1, ?2, ...: integers, bool, text,
  // nullptr, or optionals of them.
  template <typename... Values>
  Statement& Bind(const Values&... values) {
    Reset();
    int index = 0;
    (BindOne(++index, values), ...);
    return *this;
  }

  // True: a row is there. False: there are no more. Not called again after
  // false or an error without Bind.
  absl::StatusOr<bool> Step();
  // Steps to the end; for what gives no rows.
  absl::Status Run();

  // Columns of the row, from 0. Text of NULL is "", its integer 0.
  int64_t Int(int column) const;
  std::string Text(int column) const;
  bool IsNull(int column) const;

 private:
  friend class Database;
  Statement(sqlite3* database, sqlite3_stmt* statement, bool* in_use)
      : database_(database), statement_(statement), in_use_(in_use) {}

  void Reset();
  void BindOne(int index, int64_t value);
  void BindOne(int index, std::string_view value);
  void BindOne(int index, const std::string& value) {
    BindOne(index, std::string_view(value));
  }
  void BindOne(int index, const char* value) {
    BindOne(index, std::string_view(value));
  }
  void BindOne(int index, std::nullptr_t);
  template <typename T>
  void BindOne(int index, const std::optional<T>& value) {
    value ? BindOne(index, *value) : BindOne(index, nullptr);
  }

  sqlite3* database_;
  sqlite3_stmt* statement_;
  bool* in_use_;  // of the cache; nullptr: ours to finalize
  int bind_error_ = 0;
};

// One connection. One thread at a time.
class Database {
 public:
  // Opens a file that exists. It must be a regular file, not a symlink
  // (DATA_LOSS otherwise); the directory may be reached through symlinks.
  // Puts it into WAL mode if it is not, unless read-only
  // (FAILED_PRECONDITION if its file system cannot do that). Never
  // checkpoints by itself, neither after commits nor on closing.
  static absl::StatusOr<Database> Open(const std::string& file,
                                       const DatabaseOptions& options);
  // For a process that opens one database for one transaction: SQLite sets no
  // memory aside for many (25 pages that need not be touched) and keeps no
  // statistics. Before the first Open; afterwards without effect.
  static void ExpectLittleUse();
  // The bytes of a new database file, in WAL mode, made by `sql`.
  static absl::StatusOr<std::string> MakeImage(const std::string& sql);

  // Ends `first_table_only`: the next statement reads the schema, whole, and
  // fails if it cannot be (DATA_LOSS). Not in a transaction.
  absl::Status ReadWholeSchema();

  Database(Database&&) noexcept;
  Database& operator=(Database&&) noexcept;
  ~Database();

  // `sql` must outlive the database: string literals do.
  absl::StatusOr<Statement> Prepare(std::string_view sql);
  // Runs statements that give no rows and are not worth keeping.
  absl::Status Execute(const std::string& sql);
  // The first column of the first row; nullopt without rows.
  absl::StatusOr<std::optional<int64_t>> QueryInt(std::string_view sql);

  // Rows changed by the last statement that ran.
  int64_t Changes() const;
  int64_t LastInsertId() const;
  // Pages that this connection has written to the WAL.
  int64_t PagesWritten() const;

  // Makes all commits until now, by whatever process, survive a power cut;
  // without it a power cut undoes the newest ones, as a suffix, and never
  // damages the file. (A crash of the process undoes none.) Costs one flush
  // of the WAL (0.2 to 10 ms), and for the first in a connection one of the
  // directory. Called after a transaction, not in it: then other writers do
  // not wait for the disk, and flushes of several processes become one.
  absl::Status Flush();

  enum class CheckpointMode {
    kPassive,   // what can be moved without waiting for anybody
    kTruncate,  // and, if nobody reads, empties the WAL
  };
  // Moves the WAL into the file, flushed. OK too when others kept us from
  // moving all of it.
  absl::Status Checkpoint(CheckpointMode mode);
  // Pages in the WAL after the newest commit of this connection.
  int64_t WalPages() const;

  const std::string& file() const;

 private:
  class Impl;
  explicit Database(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A write transaction: holds the write lock from Begin on, so that nothing
// read in it can be outdated. Rolls back when it goes without Commit.
class Transaction {
 public:
  static absl::StatusOr<Transaction> Begin(Database& database);
  // A read transaction: one consistent view, locks nobody out.
  static absl::StatusOr<Transaction> BeginRead(Database& database);
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

  // On error nothing has happened.
  absl::Status Commit();

 private:
  explicit Transaction(Database* database) : database_(database) {}
  Database* database_;  // nullptr: ended or moved away
};

}  // namespace nixq
