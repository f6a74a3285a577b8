// What every command of queuectl works with, and how it speaks.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "queued/config.h"
#include "storage/nix/store_path.h"
#include "storage/queue/queue.h"
#include "storage/queue/report.h"

namespace nixq {

// Exit codes, the same for every command.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNoDaemon = 3;

// How long a running daemon may take to say what it is doing.
inline constexpr absl::Duration kDaemonLimit = absl::Seconds(2);

// Results go to standard output, talk to standard error. One object for one
// command.
class Context {
 public:
  // A configuration that is missing is the default one, unless it was named;
  // one that is wrong is an error for every command but `check`.
  static absl::StatusOr<Context> Make(const std::string& config_file,
                                      const std::string& state_dir, bool json);

  const Config& config() const { return config_; }
  const Surroundings& surroundings() const { return surroundings_; }
  const StoreDir& store_dir() const { return store_dir_; }
  bool json() const { return json_; }
  absl::Time now() const { return now_; }

  QueueOptions queue_options() const;
  absl::StatusOr<Report> OpenReport() const {
    return Report::Open(queue_options());
  }
  absl::StatusOr<Queue> OpenQueue() const {
    return Queue::OpenExisting(queue_options());
  }

  // The full store path that a person means: a store path or something below
  // it, a symlink to one (./result; the first store path that the links lead
  // to), or a base name.
  absl::StatusOr<std::string> Resolve(const std::string& argument) const;
  absl::StatusOr<std::vector<std::string>> ResolveAll(
      const std::vector<std::string>& arguments) const;

 private:
  Context(Config config, Surroundings surroundings, StoreDir store_dir,
          bool json);

  Config config_;
  Surroundings surroundings_;
  StoreDir store_dir_;
  bool json_;
  absl::Time now_;
};

// Prints the one line that an error is, and gives the exit code 1.
int Complain(const absl::Status& status);

// Prints a document: indented, or in one line if `indent` is -1. Bytes that are
// not UTF-8 (of an error's text, say) are replaced.
void PrintJson(const nlohmann::json& document, int indent = 2);

// "12 s", "3 min", "5 h", "12 d".
std::string HumanDuration(absl::Duration duration);
// "2026-11-21 03:12:05" in UTC, "-" for the epoch and before.
std::string HumanTime(absl::Time time);
// "in 12 s", "now".
std::string HumanWhen(absl::Time time, absl::Time now);

// Rows under headings, columns as wide as they need to be; the columns whose
// heading starts with '>' are aligned to the right.
void PrintTable(const std::vector<std::string>& headings,
                const std::vector<std::vector<std::string>>& rows);

}  // namespace nixq
