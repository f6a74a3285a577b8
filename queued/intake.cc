#include "queued/intake.h"

#include <algorithm>
#include <utility>

#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/nix/derivation.h"
#include "storage/queue/spool.h"

namespace nixq {
namespace {

constexpr size_t kEntriesAtOnce = 1000;
constexpr size_t kSpoolFilesAtOnce = 100;

}  // namespace

Intake::Intake(const Config& config, const StoreDir& store_dir, Queue& queue,
               GcRoots& roots, Log& log, Clock& clock)
    : config_(config),
      store_dir_(store_dir),
      queue_(queue),
      roots_(roots),
      log_(log),
      clock_(clock) {}

std::string Intake::SystemOf(const std::string& deriver) const {
  absl::StatusOr<StorePath> path = store_dir_.ParsePath(deriver);
  if (!path.ok() || !path->IsDerivation()) return "";
  absl::StatusOr<std::string> text = ReadFile(
      config_.real_store_dir + "/" + path->base_name(), kMaxDerivationBytes);
  if (!text.ok()) return "";
  absl::StatusOr<DerivationSummary> summary =
      ParseDerivation(store_dir_, *text);
  return summary.ok() ? summary->system : "";
}

NewPath Intake::Understand(const InboxEntry& entry) const {
  NewPath path;
  path.path = entry.path;
  path.deriver = entry.deriver;
  path.system = SystemOf(entry.deriver);
  path.source = entry.source;
  path.root = RootState::kHold;
  return path;
}

// Whether the configuration wants only what Nix named in OUT_PATHS, and this
// is not of that.
bool Intake::LeftOut(const InboxEntry& entry) const {
  return config_.outputs_named_only && !entry.named;
}

void Intake::Hold(const StorePath& path) {
  if (absl::Status held = roots_.Hold(path); !held.ok()) {
    log_.Error("no-root", {{"path", store_dir_.Print(path)},
                           {"why", std::string(held.message())}});
  }
}

// Removes the roots that the hook has made for what is left out, unless a job
// or a pin had them before.
void Intake::RemoveUnneeded(const std::vector<StorePath>& paths) {
  if (paths.empty()) return;
  std::vector<std::string> texts;
  texts.reserve(paths.size());
  for (const StorePath& path : paths) texts.push_back(store_dir_.Print(path));
  absl::StatusOr<std::vector<bool>> needed = queue_.NeedRoots(texts);
  for (size_t i = 0; i < paths.size(); ++i) {
    absl::Status removed = needed.status();
    if (needed.ok()) {
      if ((*needed)[i]) continue;
      removed = roots_.Remove(paths[i]);
    }
    if (!removed.ok() && !absl::IsNotFound(removed)) {
      log_.Warning("root-stays", {{"path", texts[i]},
                                  {"why", std::string(removed.message())}});
    }
  }
}

absl::Status Intake::Accept(const std::vector<InboxEntry>& entries,
                            bool from_inbox) {
  std::vector<NewPath> paths;
  std::vector<InboxEntry> derivations;
  std::vector<int64_t> inbox_ids;
  std::vector<StorePath> left_out;
  for (const InboxEntry& entry : entries) {
    if (from_inbox) inbox_ids.push_back(entry.id);
    absl::StatusOr<StorePath> path = store_dir_.ParsePath(entry.path);
    if (!path.ok()) {
      log_.Error("refused", {{"path", entry.path},
                             {"source", entry.source},
                             {"why", std::string(path.status().message())}});
      continue;
    }
    if (LeftOut(entry)) {
      log_.Info("left-out",
                {{"path", entry.path}, {"why", "not in OUT_PATHS"}});
      if (entry.kind == InboxKind::kOutput) left_out.push_back(*path);
      continue;
    }
    if (entry.kind == InboxKind::kDerivation) {
      derivations.push_back(entry);
      continue;
    }
    // The hook has made the root while the build held the path; what comes
    // another way, or a link that was lost, is rooted here.
    if (absl::IsNotFound(roots_.Find(*path).status())) Hold(*path);
    paths.push_back(Understand(entry));
    log_.Debug("queued", {{"path", entry.path}, {"source", entry.source}});
  }
  NIXQ_RETURN_IF_ERROR(queue_.Accept(paths, derivations, inbox_ids));
  // Only now, since some of it may have been wanted by another entry.
  RemoveUnneeded(left_out);
  return absl::OkStatus();
}

absl::StatusOr<size_t> Intake::TakeInbox(GoOn go_on) {
  size_t taken = 0;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(std::vector<InboxEntry> entries,
                          queue_.ReadInbox(kEntriesAtOnce));
    if (entries.empty()) return taken;
    NIXQ_RETURN_IF_ERROR(Accept(entries, /*from_inbox=*/true));
    taken += entries.size();
    if (entries.size() < kEntriesAtOnce || !go_on()) return taken;
  }
}

absl::StatusOr<size_t> Intake::TakeSpool(GoOn go_on) {
  size_t taken = 0;
  while (true) {
    absl::StatusOr<SpoolListing> listed =
        ReadSpool(config_.state_dir, kSpoolFilesAtOnce);
    // Not to be taken for a queue that is locked.
    if (!listed.ok()) {
      return absl::FailedPreconditionError(listed.status().message());
    }
    const SpoolListing& listing = *listed;
    for (const std::string& bad : listing.unreadable) {
      log_.Error("spool-file-unreadable", {{"file", bad}});
    }
    for (const SpoolFile& file : listing.files) {
      NIXQ_RETURN_IF_ERROR(Accept(file.entries, /*from_inbox=*/false));
      NIXQ_RETURN_IF_ERROR(RemoveSpoolFile(file.file));
      taken += file.entries.size();
      log_.Info("spool-read",
                {{"file", file.file},
                 {"paths", static_cast<uint64_t>(file.entries.size())}});
    }
    if (listing.files.size() < kSpoolFilesAtOnce || !go_on()) return taken;
  }
}

absl::StatusOr<size_t> Intake::AdoptRoots(GoOn go_on) {
  NIXQ_ASSIGN_OR_RETURN(GcRootListing listing, roots_.List());
  for (const StrangeEntry& strange : listing.strange) {
    log_.Warning("strange-root", {{"name", strange.name},
                                  {"why", strange.why},
                                  {"hint", "it is left alone"}});
  }
  std::vector<std::string> names;
  for (const GcRoot& root : listing.roots) {
    names.push_back(store_dir_.Print(root.path));
    if (root.dangling) {
      log_.Warning("dangling-root",
                   {{"path", names.back()},
                    {"hint",
                     "the path is gone; build it again, or let "
                     "prune take the root"}});
    }
  }
  if (!config_.roots_adopt) return 0;
  NIXQ_ASSIGN_OR_RETURN(std::vector<bool> known, queue_.Known(names));
  size_t adopted = 0;
  std::vector<InboxEntry> entries;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!known[i] && !listing.roots[i].dangling) {
      InboxEntry entry;
      entry.path = names[i];
      entry.source = "root";
      entry.created_unix_ms = absl::ToUnixMillis(clock_.Now());
      entries.push_back(std::move(entry));
    }
    if (entries.size() < kEntriesAtOnce && i + 1 < names.size()) continue;
    NIXQ_RETURN_IF_ERROR(Accept(entries, /*from_inbox=*/false));
    adopted += entries.size();
    entries.clear();
    if (i + 1 < names.size() && !go_on()) break;
  }
  if (adopted > 0) log_.Info("roots-adopted", {{"count", adopted}});
  return adopted;
}

absl::Status Intake::RemakeHolds(GoOn go_on) {
  int64_t after = 0;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(std::vector<Queue::PathRow> rows,
                          queue_.Holds(after, kEntriesAtOnce));
    for (const Queue::PathRow& row : rows) {
      after = row.id;
      absl::StatusOr<StorePath> path = store_dir_.ParsePath(row.path);
      if (!path.ok()) continue;
      if (!absl::IsNotFound(roots_.Find(*path).status())) continue;
      log_.Warning("root-made-again", {{"path", row.path}});
      Hold(*path);
    }
    if (rows.size() < kEntriesAtOnce || !go_on()) return absl::OkStatus();
  }
}

}  // namespace nixq
