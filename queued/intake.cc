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

absl::Status Intake::Accept(const std::vector<InboxEntry>& entries,
                            bool from_inbox) {
  std::vector<NewPath> paths;
  std::vector<InboxEntry> derivations;
  std::vector<int64_t> inbox_ids;
  for (const InboxEntry& entry : entries) {
    if (from_inbox) inbox_ids.push_back(entry.id);
    absl::StatusOr<StorePath> path = store_dir_.ParsePath(entry.path);
    if (!path.ok()) {
      log_.Error("refused", {{"path", entry.path},
                             {"source", entry.source},
                             {"why", std::string(path.status().message())}});
      continue;
    }
    if (entry.kind == InboxKind::kDerivation) {
      derivations.push_back(entry);
      continue;
    }
    if (config_.outputs_named_only && !entry.named) {
      log_.Info("left-out",
                {{"path", entry.path}, {"why", "not in OUT_PATHS"}});
      absl::Status removed = roots_.Remove(*path);
      if (!removed.ok() && !absl::IsNotFound(removed)) {
        log_.Warning("root-stays", {{"path", entry.path},
                                    {"why", std::string(removed.message())}});
      }
      continue;
    }
    // The hook has made the root while the build held the path; what comes
    // another way, or a link that was lost, is rooted here.
    if (absl::IsNotFound(roots_.Find(*path).status())) {
      absl::Status held = roots_.Hold(*path);
      if (!held.ok()) {
        log_.Error("no-root", {{"path", entry.path},
                               {"why", std::string(held.message())}});
      }
    }
    paths.push_back(Understand(entry));
    log_.Debug("queued", {{"path", entry.path}, {"source", entry.source}});
  }
  return queue_.Accept(paths, derivations, inbox_ids);
}

absl::StatusOr<size_t> Intake::TakeInbox() {
  size_t taken = 0;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(std::vector<InboxEntry> entries,
                          queue_.ReadInbox(kEntriesAtOnce));
    if (entries.empty()) return taken;
    NIXQ_RETURN_IF_ERROR(Accept(entries, /*from_inbox=*/true));
    taken += entries.size();
    if (entries.size() < kEntriesAtOnce) return taken;
  }
}

absl::StatusOr<size_t> Intake::TakeSpool() {
  size_t taken = 0;
  while (true) {
    NIXQ_ASSIGN_OR_RETURN(SpoolListing listing,
                          ReadSpool(config_.state_dir, kSpoolFilesAtOnce));
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
    if (listing.files.size() < kSpoolFilesAtOnce) return taken;
  }
}

absl::StatusOr<size_t> Intake::AdoptRoots() {
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
  std::vector<InboxEntry> entries;
  for (size_t i = 0; i < names.size(); ++i) {
    if (known[i] || listing.roots[i].dangling) continue;
    InboxEntry entry;
    entry.path = names[i];
    entry.source = "root";
    entry.created_unix_ms = absl::ToUnixMillis(clock_.Now());
    entries.push_back(std::move(entry));
  }
  if (!entries.empty()) {
    NIXQ_RETURN_IF_ERROR(Accept(entries, /*from_inbox=*/false));
    log_.Info("roots-adopted",
              {{"count", static_cast<uint64_t>(entries.size())}});
  }
  return entries.size();
}

absl::Status Intake::RemakeHolds() {
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
      NIXQ_RETURN_IF_ERROR(roots_.Hold(*path));
    }
    if (rows.size() < kEntriesAtOnce) return absl::OkStatus();
  }
}

}  // namespace nixq
