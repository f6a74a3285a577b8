// The URLs of targets: what they may look like, and what they say.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "queued/config.h"

namespace nixq {

struct TargetUrl {
  TargetKind kind = TargetKind::kDirectory;
  std::string name;  // for a target without one: host or last component
};

//   file:///absolute/directory
//   http[s]://host[:port][/path]
//   ssh[-ng]://[user@]host[:port]
//   local:http[s]://host[:port][/path], or local: alone
// INVALID_ARGUMENT: the message goes on the sentence "'url' ...". It never
// shows the URL when that may hold a password.
absl::StatusOr<TargetUrl> ParseTargetUrl(std::string_view url);

// A cache that is only asked: http(s), by the same rules.
absl::Status CheckUpstreamUrl(std::string_view url);

}  // namespace nixq
