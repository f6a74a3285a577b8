// How soon a thread gets a processor that others are busy on.
#pragma once

namespace nixq {

// For a process that runs for a moment and is waited for: from now on this
// thread and the children that it starts ask for turns of 0.1 ms, so that each
// time one wakes up it need not wait for others' longer turns (about 3 ms on
// Linux) to end. It does not get more of the processor, and policy and nice
// value stay. Linux 6.12 and later, for what is scheduled normally; otherwise
// without effect.
void AskForShortTurns();

}  // namespace nixq
