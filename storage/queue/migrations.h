// The schema's versions: the numbered files of schema/, applied in order.
#pragma once

#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "schema/migrations.h"
#include "storage/queue/sqlite.h"

namespace nixq {

// The schema that this program knows; that of a file which only hooks have
// written: the inbox alone, the same for all versions.
int NewestSchemaVersion();
int HooksSchemaVersion();

// The schema that a file has (`PRAGMA user_version`); 0: none yet.
absl::StatusOr<int> SchemaVersion(Database& database);

// FAILED_PRECONDITION, with what to do, unless the file has the newest schema.
absl::Status CheckSchemaVersion(Database& database);

// Brings a file to the newest of `migrations`: each one it lacks in a
// transaction of its own, with its number, so that a crash leaves a version
// whole. Several processes may do this at once.
// FAILED_PRECONDITION, and nothing changed, if the file is newer.
absl::Status Migrate(
    Database& database,
    std::span<const schema::Migration> migrations = schema::kMigrations);

}  // namespace nixq
