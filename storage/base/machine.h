// What tells this machine from others.
#pragma once

#include <string>

namespace nixq {

struct Machine {
  std::string host_name;  // as it calls itself now; may change; "" unknown
  // For as long as the system is installed; "" if it has none. Not to be
  // shown: others may take it for a secret.
  std::string id;
};

// systemd's machine-id, or the hardware's on macOS.
Machine ThisMachine();

}  // namespace nixq
