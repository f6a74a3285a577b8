// What is being done at this moment, for people: workers report progress
// here, the status socket reads it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "queued/status_socket.h"
#include "storage/cache/binary_cache.h"

namespace nixq {

// Thread-safe.
class Transfers {
 public:
  // One thing being done; it leaves the board when it goes. Owned by the
  // worker; progress() may be written from any thread.
  class Entry {
   public:
    ~Entry();
    Progress& progress() { return progress_; }
    void set_phase(std::string phase);

   private:
    friend class Transfers;
    explicit Entry(Transfers& board) : board_(board) {}
    Transfers& board_;
    LiveTransfer what_;
    Progress progress_{0};
  };

  std::unique_ptr<Entry> Start(LiveTransfer what);
  std::vector<LiveTransfer> List();

 private:
  std::mutex mutex_;
  std::list<Entry*> entries_;
};

}  // namespace nixq
