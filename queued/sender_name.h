// The name of this queue at places that it shares with other senders: below a
// receiving machine's GC roots, and on files half written in a cache that
// several machines write to. What bears the name is ours to remove; nothing
// else there is.
#pragma once

#include <string>

#include "storage/base/machine.h"

namespace nixq {

// "laptop-3f9a1c20": the host's own name, cut to what may be in a file name,
// and eight digits that differ between machines and state directories.
std::string MakeSenderName(const Machine& machine,
                           const std::string& state_dir);

// The name in <state_dir>/sender-name, which outlives a new host name.
// Without a good one there it is made and written down; a directory that
// cannot be written does no harm, since the same is made the next time. Blocks
// on the disk.
std::string LoadSenderName(const std::string& state_dir);

}  // namespace nixq
