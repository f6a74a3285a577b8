#include "storage/base/machine.h"

#include <unistd.h>

#include <climits>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

std::string HostName() {
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0) return "";
  return name;
}

#ifdef __APPLE__
std::string Id() {
  uuid_t uuid;
  const timespec no_wait = {0, 0};
  if (gethostuuid(uuid, &no_wait) != 0) return "";
  std::string id;
  for (unsigned char byte : uuid) id += absl::StrFormat("%02x", byte);
  return id;
}
#else
std::string Id() {
  constexpr size_t kMaxBytes = 256;
  const auto text = ReadFile("/etc/machine-id", kMaxBytes);
  if (!text.ok()) return "";
  std::string id(Trim(*text));
  return id == "uninitialized" ? "" : id;
}
#endif

}  // namespace

Machine ThisMachine() { return {HostName(), Id()}; }

}  // namespace nixq
