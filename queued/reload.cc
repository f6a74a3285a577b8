#include "queued/reload.h"

#include <sys/stat.h>

#include "absl/strings/str_format.h"
#include "queued/signer.h"
#include "storage/base/process.h"
#include "storage/base/status.h"
#include "storage/nix/gc_roots.h"

namespace nixq {
namespace {

std::string StampOf(const std::string& file) {
  struct stat info;
  if (file.empty() || stat(file.c_str(), &info) != 0) return file + " -\n";
  return absl::StrFormat("%s %d %d %d %d %d\n", file, info.st_dev, info.st_ino,
                         info.st_size, info.st_mtime, info.st_ctime);
}

}  // namespace

absl::StatusOr<std::optional<uint32_t>> ReaderGroup(const Config& config) {
  if (config.reader_group.empty()) return std::nullopt;
  absl::StatusOr<gid_t> group = GroupNumber(config.reader_group);
  if (!group.ok()) return Annotate(group.status(), "reader-group");
  return *group;
}

absl::Status CheckReload(const Config& running, const Config& wanted) {
  if (wanted.state_dir != running.state_dir) {
    return absl::FailedPreconditionError(
        "state-dir cannot change while running; restart instead");
  }
  NIXQ_RETURN_IF_ERROR(ReaderGroup(wanted).status());
  NIXQ_ASSIGN_OR_RETURN(StoreDir store_dir, StoreDir::Parse(wanted.store_dir));
  NIXQ_RETURN_IF_ERROR(Signer::LoadKeys(wanted.signing_key_files).status());
  return GcRoots::Open(wanted.roots_directory, store_dir, true).status();
}

std::string StampOfFiles(const Config& config) {
  std::string stamp;
  for (const std::string& file : config.signing_key_files) {
    stamp += StampOf(file);
  }
  for (const TargetConfig& target : config.targets) {
    for (const std::string& file :
         {target.netrc_file, target.bearer_token_file,
          target.client_certificate_file, target.client_key_file,
          target.ca_file, target.ssh_key_file, target.ssh_known_hosts_file}) {
      stamp += StampOf(file);
    }
  }
  return stamp;
}

}  // namespace nixq
