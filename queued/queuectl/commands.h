// queuectl's commands. Each does one thing, prints its result and returns the
// exit code (context.h). Their options are described in queuectl(1).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "queued/queuectl/context.h"

namespace nixq {

// --- Reading (read_commands.cc) ---------------------------------------------
int RunStatus(const Context& context);

struct ListArguments {
  std::string state;  // "" all that is open or parked
  std::string target;
  std::optional<absl::Duration> older_than;
  size_t limit = 100;
};
int RunList(const Context& context, const ListArguments& arguments);
int RunShow(const Context& context, const std::string& path);
int RunVersion(const Context& context);

// --- Waiting (wait_command.cc) ----------------------------------------------
struct WaitArguments {
  std::vector<std::string> paths;  // empty: everything
  absl::Duration timeout = absl::InfiniteDuration();
};
int RunWait(const Context& context, const WaitArguments& arguments);

// --- Changing (write_commands.cc) -------------------------------------------
struct AddArguments {
  std::vector<std::string> paths;
  bool closure = false;
  bool all_local = false;
};
int RunAdd(const Context& context, const AddArguments& arguments);

struct SelectArguments {
  std::vector<std::string> paths;
  bool parked = false;
  std::string target;
  bool dry_run = false;  // forget only
};
int RunRetry(const Context& context, const SelectArguments& arguments);
int RunForget(const Context& context, const SelectArguments& arguments);
int RunPause(const Context& context, const std::string& target, bool paused);

struct PruneArguments {
  std::optional<absl::Duration> older_than;
  bool dry_run = false;
};
int RunPrune(const Context& context, const PruneArguments& arguments);

// --- Checking (check.cc) ----------------------------------------------------
// Takes the raw arguments, since a broken configuration is what it reports.
int RunCheck(const std::string& config_file, const std::string& state_dir,
             bool json);

}  // namespace nixq
