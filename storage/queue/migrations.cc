#include "storage/queue/migrations.h"

#include <optional>
#include <string>

#include "absl/strings/str_format.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

absl::Status NewerSchema(const Database& database, int version, int newest) {
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s has schema %d, this program knows %d: it was used by a newer "
      "nix-queued; use that one",
      database.file(), version, newest));
}

absl::Status ApplyOne(Database& database, const schema::Migration& migration) {
  NIXQ_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  NIXQ_ASSIGN_OR_RETURN(int version, SchemaVersion(database));
  if (version >= migration.number) return absl::OkStatus();  // by another
  NIXQ_RETURN_IF_ERROR(
      Annotate(database.Execute(std::string(migration.sql)), migration.name));
  NIXQ_RETURN_IF_ERROR(database.Execute(
      absl::StrFormat("PRAGMA user_version = %d", migration.number)));
  return transaction.Commit();
}

}  // namespace

int NewestSchemaVersion() {
  return std::span(schema::kMigrations).back().number;
}

int HooksSchemaVersion() { return std::span(schema::kMigrations)[0].number; }

absl::StatusOr<int> SchemaVersion(Database& database) {
  NIXQ_ASSIGN_OR_RETURN(std::optional<int64_t> version,
                        database.QueryInt("PRAGMA user_version"));
  return static_cast<int>(version.value_or(0));
}

absl::Status CheckSchemaVersion(Database& database) {
  NIXQ_ASSIGN_OR_RETURN(int version, SchemaVersion(database));
  const int newest = NewestSchemaVersion();
  if (version > newest) return NewerSchema(database, version, newest);
  if (version == newest) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s has schema %d, this program needs %d: start queued once, it brings "
      "the file up to date",
      database.file(), version, newest));
}

absl::Status Migrate(Database& database,
                     std::span<const schema::Migration> migrations) {
  NIXQ_ASSIGN_OR_RETURN(int version, SchemaVersion(database));
  const int newest = migrations.back().number;
  if (version > newest) return NewerSchema(database, version, newest);
  for (const schema::Migration& migration : migrations) {
    if (migration.number > version) {
      NIXQ_RETURN_IF_ERROR(ApplyOne(database, migration));
    }
  }
  NIXQ_ASSIGN_OR_RETURN(version, SchemaVersion(database));
  return version > newest ? NewerSchema(database, version, newest)
                          : absl::OkStatus();
}

}  // namespace nixq
