// The directory of GC roots that the queue keeps: one symlink for one path,
//   <directory>/<store path name> -> <store dir>/<store path name>
// A link holds its path while jobs need it and pins it afterwards; its age is
// its own mtime, renewed by every Hold.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/io.h"
#include "storage/nix/store_path.h"

namespace nixq {

struct GcRoot {
  StorePath path;
  absl::Time made;
  bool dangling = false;  // its store path is not there any more
};

// What a listing found that is neither a root of ours nor a directory (of
// roots that a sender keeps here); left alone, always.
struct StrangeEntry {
  std::string name;
  std::string why;  // "not a symlink", "points to /etc/passwd"
};

struct GcRootListing {
  std::vector<GcRoot> roots;  // sorted by path
  std::vector<StrangeEntry> strange;
};

// One roots directory. Works relative to an open descriptor of it, so that
// nothing is followed or changed elsewhere. Safe in several processes at
// once; one object is for one thread.
class GcRoots {
 public:
  // Opens, creating the directory (mode 0755) and its missing parents if
  // `create`. FAILED_PRECONDITION if it is a symlink or not a directory.
  static absl::StatusOr<GcRoots> Open(const std::string& directory,
                                      const StoreDir& store_dir, bool create);

  // Makes the root, or renews its age: a new root is one symlink(2); one that
  // is there is replaced by a temporary link and rename(2), so that the path is
  // never without its root. A link of that name that points elsewhere becomes
  // right by this. Does not fsync: a power cut that
  // loses the link also ends the garbage collections that it was for, and the
  // daemon makes the links of queued paths again at start.
  // FAILED_PRECONDITION if something that is not a symlink has the name.
  absl::Status Hold(const StorePath& path);

  // Removes the root. NOT_FOUND if there is none; FAILED_PRECONDITION, and
  // nothing changed, if the entry is not a symlink to that path.
  absl::Status Remove(const StorePath& path);

  // The root of `path`, or NOT_FOUND.
  absl::StatusOr<GcRoot> Find(const StorePath& path) const;

  // Temporary links of dead processes are not reported; ones older than an
  // hour are removed.
  absl::StatusOr<GcRootListing> List() const;

  const std::string& directory() const { return directory_; }

 private:
  GcRoots(std::string directory, StoreDir store_dir, UniqueFd fd)
      : directory_(std::move(directory)),
        store_dir_(std::move(store_dir)),
        fd_(std::move(fd)) {}
  std::string directory_;
  StoreDir store_dir_;
  UniqueFd fd_;
};

}  // namespace nixq
