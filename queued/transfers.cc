#include "queued/transfers.h"

#include <utility>

namespace nixq {

Transfers::Entry::~Entry() {
  std::lock_guard lock(board_.mutex_);
  board_.entries_.remove(this);
}

void Transfers::Entry::set_phase(std::string phase) {
  std::lock_guard lock(board_.mutex_);
  what_.phase = std::move(phase);
}

std::unique_ptr<Transfers::Entry> Transfers::Start(LiveTransfer what) {
  std::unique_ptr<Entry> entry(new Entry(*this));
  entry->what_ = std::move(what);
  std::lock_guard lock(mutex_);
  entries_.push_back(entry.get());
  return entry;
}

std::vector<LiveTransfer> Transfers::List() {
  std::lock_guard lock(mutex_);
  std::vector<LiveTransfer> list;
  list.reserve(entries_.size());
  for (const Entry* entry : entries_) {
    list.push_back(entry->what_);
    list.back().done_bytes = entry->progress_.load();
  }
  return list;
}

}  // namespace nixq
