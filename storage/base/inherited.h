// What a process gets from its parent without having asked for it.
#pragma once

namespace nixq {

// Closes every descriptor above standard error. For the start of a program,
// before it has opened anything.
void CloseInheritedFds();

}  // namespace nixq
