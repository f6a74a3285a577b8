// Signals as something to poll: SIGTERM and SIGINT ask to stop, SIGHUP to
// reload.
#pragma once

#include "storage/base/io.h"

namespace nixq {

// Catches the three signals (and ignores SIGPIPE) from its making to the end
// of the process. One object a process.
class Signals {
 public:
  Signals();

  // Readable when a signal has come.
  int fd() const { return pipe_.read_end.get(); }

  struct Pending {
    bool stop = false;
    bool reload = false;
  };
  // What has come since the last call.
  Pending Take();
  // For the next Take: who took it has not heeded it.
  void PutBackReload();

 private:
  WakePipe pipe_;
};

}  // namespace nixq
