// What `nix --log-format internal-json` writes to standard error while it
// works, understood: how far it is and what it complains of.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nixq {

// Fed the lines of one process as they come; for one thread. Understands the
// lines `@nix {...}` and keeps all others as words of ssh and of the other
// machine. Bounded: the first and the last 100 lines of talk, 10,000
// activities.
class NixLog {
 public:
  // `rekey_bytes` is after how many bytes ssh was told to change its keys; it
  // reports that at its debug level, which is the only sign of progress
  // within one NAR that Nix before 2.12 lets through.
  explicit NixLog(uint64_t rekey_bytes) : rekey_bytes_(rekey_bytes) {}

  // True if the line says that more bytes have gone.
  bool Add(std::string_view line);

  // NAR bytes as Nix tells them, or the coarser bytes on the wire.
  uint64_t bytes_sent() const;

  // What was said, in order, without Nix's framing: errors and warnings of
  // Nix, and every line that was not Nix's.
  std::vector<std::string> Words() const;

 private:
  bool AddActivity(std::string_view json);
  void Keep(std::string words);

  uint64_t rekey_bytes_;
  uint64_t rekeys_ = 0;
  uint64_t finished_bytes_ = 0;
  std::unordered_map<uint64_t, uint64_t> copying_;  // activity: bytes
  std::vector<std::string> first_words_;
  std::deque<std::string> last_words_;
};

}  // namespace nixq
