// What the sources of Queue and Report share. Private to this folder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "schema/migrations.h"
#include "storage/base/clock.h"
#include "storage/queue/queue.h"
#include "storage/queue/sqlite.h"

namespace nixq {

// No wait is meant to be this long: a row that is due later than this was
// written while the clock was ahead, and is due now.
inline constexpr int64_t kFarFutureMs = int64_t{7} * 24 * 3600 * 1000;

// The schema of a file that only hooks have written.
inline constexpr int kInboxSchema = schema::kMigrations[0].number;

// Times as rows keep them; 0 stands for "none", "at once".
inline int64_t ToRow(absl::Time time) {
  return std::max<int64_t>(0, absl::ToUnixMillis(time));
}
inline absl::Time FromRow(int64_t unix_ms) {
  return absl::FromUnixMillis(unix_ms);
}

// "/nix/store/<32>-hello-2.12" -> "hello-2.12", what people look for; without
// a dash all of the base name.
std::string_view NameOf(std::string_view path);

// The words of rows back to values. The schema allows no others, so that an
// unknown one (a newer schema cannot be open) reads as the first value.
JobState JobStateFromName(std::string_view name);
JobOutcome JobOutcomeFromName(std::string_view name);
RootState RootStateFromName(std::string_view name);
TargetHealth TargetHealthFromName(std::string_view name);

// The columns that ReadTarget understands, in its order.
#define NIXQ_TARGET_COLUMNS                                             \
  "t.id, t.name, t.url, t.configured, t.paused, t.health, t.failures, " \
  "t.retry_unix_ms, t.error_code, t.error_text, t.error_unix_ms, "      \
  "t.success_unix_ms"
inline constexpr int kTargetColumns = 12;
TargetRow ReadTarget(const Statement& row);

class Queue::Impl {
 public:
  Impl(Database opened, Clock& its_clock)
      : database(std::move(opened)),
        clock(its_clock),
        file(IdentityOf(database.file())) {}

  // (device, inode) of a file; {0, 0}: there is none.
  using FileIdentity = std::pair<uint64_t, uint64_t>;
  static FileIdentity IdentityOf(const std::string& file);

  int64_t NowMs() { return ToRow(clock.Now()); }

  // Inside the caller's transaction.
  // Makes the path's row, or fills in what it lacks; returns its id.
  absl::StatusOr<int64_t> PutPath(const NewPath& path);
  // PutPath, and an open job for each configured target.
  absl::Status AcceptPaths(const std::vector<NewPath>& paths);
  absl::Status SettleOne(const Settlement& settlement);
  // The targets that a selection means.
  absl::StatusOr<std::vector<TargetRow>> SelectedTargets(
      const JobSelection& selection);

  Database database;
  Clock& clock;
  const FileIdentity file;  // that is open
};

}  // namespace nixq
