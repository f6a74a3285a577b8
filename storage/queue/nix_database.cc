#include "storage/queue/nix_database.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "storage/base/status.h"
#include "storage/queue/sqlite.h"

namespace nixq {

absl::StatusOr<std::vector<StorePath>> RegisteredOutputs(
    const std::string& nix_state_dir, const StoreDir& store_dir,
    const StorePath& derivation) {
  DatabaseOptions options;
  options.read_only = true;
  options.busy_timeout = absl::Milliseconds(50);
  NIXQ_ASSIGN_OR_RETURN(
      Database database,
      Database::Open(nix_state_dir + "/db/db.sqlite", options));
  NIXQ_ASSIGN_OR_RETURN(
      Statement select,
      database.Prepare("SELECT path FROM ValidPaths WHERE deriver = ?1 AND "
                       "id > (SELECT max(id) FROM ValidPaths) - ?2"));
  select.Bind(store_dir.Print(derivation), kNewestRegistrations);
  std::vector<StorePath> outputs;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(bool row, select.Step());
    if (!row) break;
    absl::StatusOr<StorePath> path = store_dir.ParsePath(select.Text(0));
    if (path.ok()) outputs.push_back(*std::move(path));
  }
  std::sort(outputs.begin(), outputs.end());
  return outputs;
}

}  // namespace nixq
