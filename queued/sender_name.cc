#include "queued/sender_name.h"

#include <algorithm>

#include "storage/base/io.h"
#include "storage/base/text.h"
#include "storage/nix/hash.h"

namespace nixq {
namespace {

constexpr size_t kMaxHostBytes = 40;
constexpr size_t kMaxSenderBytes = 64;
constexpr size_t kDigits = 8;

bool IsLetterOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9');
}

// Also what the other machine's shell and `find` leave alone.
bool IsGood(std::string_view name) {
  return !name.empty() && name.size() <= kMaxSenderBytes &&
         IsLetterOrDigit(name.front()) &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return IsLetterOrDigit(c) || c == '-' || c == '_';
         });
}

}  // namespace

std::string MakeSenderName(const Machine& machine,
                           const std::string& state_dir) {
  std::string name;
  for (char c : machine.host_name.substr(0, machine.host_name.find('.'))) {
    if (name.size() == kMaxHostBytes) break;
    if (IsLetterOrDigit(c) || (c == '-' && !name.empty())) name += c;
  }
  if (name.empty()) name = "machine";
  Sha256 hash;
  hash.Update(machine.id.empty() ? machine.host_name : machine.id);
  hash.Update("\n");
  hash.Update(state_dir);
  return name + "-" + ToBase16(hash.Finish()).substr(0, kDigits);
}

std::string LoadSenderName(const std::string& state_dir) {
  const std::string file = state_dir + "/sender-name";
  const auto text = ReadFile(file, 4 * kMaxSenderBytes);
  if (text.ok() && IsGood(Trim(*text))) return std::string(Trim(*text));
  std::string name = MakeSenderName(ThisMachine(), state_dir);
  WriteFileAtomically(file, name + "\n", 0644).IgnoreError();
  return name;
}

}  // namespace nixq
