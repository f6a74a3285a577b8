// Keeping a build's outputs: GC roots, the inbox, the spool, the wake-up.
// Everything here may block for as long as a file system likes; it runs in
// workers (worker.h).
#pragma once

#include <vector>

#include "hook/outputs.h"
#include "hook/settings.h"
#include "hook/worker.h"
#include "storage/queue/inbox.h"

namespace nixq {

// The whole of the hook's work: makes a GC root for each output that is named,
// finds the others and makes theirs, then writes the inbox in one transaction,
// or, if that fails, the spool; then wakes the daemon. Says kOutput and
// kAskDaemon for what it finds, kWarning for each root that could not be made
// (the path is queued all the same), kRooted after the roots, kFailure for
// each place that could not be written, kKept once all is durable. Tries to be
// done before `deadline`: roots get half of the time at most, locks what is
// left.
void HoldAndEnqueue(const HookSettings& settings, BuildOutputs outputs,
                    Deadline deadline, WorkerNotes& notes);

// The fallback when that hung: writes the spool and nothing else.
void Spool(const HookSettings& settings, const BuildOutputs& outputs,
           WorkerNotes& notes);

}  // namespace nixq
