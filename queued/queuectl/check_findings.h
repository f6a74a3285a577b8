// What `queuectl check` finds, and the groups of things that it looks at.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "queued/queuectl/context.h"

namespace nixq {

struct Finding {
  enum class Level { kGood, kWarning, kBad };
  std::string what;
  Level level = Level::kGood;
  std::string text;
  std::string hint;  // what to do about it
};

Finding Good(std::string what, std::string text);
Finding Warn(std::string what, std::string text, std::string hint);
Finding Bad(std::string what, const absl::Status& status, std::string hint);

// Prints each finding as it is made; as JSON, all of them at the end.
class Findings {
 public:
  explicit Findings(bool json) : json_(json) {}

  void Add(const Finding& finding);
  // The exit code.
  int Finish();

 private:
  const bool json_;
  bool bad_ = false;
  nlohmann::json list_ = nlohmann::json::array();
};

// Each target is asked, all at once, and given up after ten seconds
// (check_targets.cc).
void CheckTargets(const Context& context, Findings& findings);

// What nix.conf runs, and whether that writes where the daemon reads
// (check_hook.cc).
void CheckHook(const Context& context, Findings& findings);

}  // namespace nixq
