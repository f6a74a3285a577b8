// Nix's garbage collector, while it runs.
//
// A collection reads the permanent roots first and the temporary ones some
// tens of milliseconds later. A path whose temporary root ends in between (its
// builder has exited) and whose permanent root was made in between has neither
// in the eyes of that collection. Whoever makes a root for a path whose
// temporary root is somebody else's therefore has to tell.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/nix/store_path.h"

namespace nixq {

// Makes sure that a collection that is running spares `paths`, whose permanent
// roots have just been made: afterwards each collection has either begun after
// that, or knows. It is for paths that are alive when it is called; it does
// not stop a deletion that has been decided.
//
// `nix_state_dir` is where gc.lock and gc-socket/socket are. The protocol is
// that of Nix 2.5 and later: if the lock can be had, shared, no collection
// runs; else one line for each path goes to the socket and is answered "1".
// Who may not open the lock just tries the socket. Blocks for microseconds if
// none runs, else for about 25 ms, and for up to `limit` if it is slow.
// Errors: DEADLINE_EXCEEDED  a collection runs and does not answer (before
//                            Nix 2.5 none does)
absl::Status TellCollector(const std::string& nix_state_dir,
                           const StoreDir& store_dir,
                           const std::vector<StorePath>& paths,
                           absl::Duration limit);

}  // namespace nixq
