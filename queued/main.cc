// queued: the daemon's command line, and what outlives a reload.
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "queued/config.h"
#include "queued/daemon.h"
#include "queued/reload.h"
#include "queued/sockets.h"
#include "queued/surroundings_check.h"
#include "storage/base/process.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Arguments {
  std::string config;
  std::string state_dir;
  std::string log_level;
  bool check_config = false;
};

int Complain(const absl::Status& status) {
  fprintf(stderr, "queued: %s\n", std::string(status.message()).c_str());
  return kFailed;
}

absl::StatusOr<Config> Load(const Arguments& arguments,
                            const Surroundings& surroundings) {
  const std::string file = arguments.config.empty()
                               ? DefaultConfigFile(surroundings)
                               : arguments.config;
  NIXQ_ASSIGN_OR_RETURN(Config config, LoadConfig(file, surroundings));
  if (!arguments.state_dir.empty()) config.state_dir = arguments.state_dir;
  if (std::optional<LogLevel> level = LogLevelFromName(arguments.log_level)) {
    config.log_level = *level;
  }
  return config;
}

// A daemon whose readers may ask it: the sockets are bound before the queue
// gives the directory, from which later ones have it, to the readers' group.
absl::StatusOr<std::unique_ptr<Daemon>> StartDaemon(
    Config config, const Surroundings& surroundings, const DaemonParts& parts) {
  NIXQ_ASSIGN_OR_RETURN(std::optional<uint32_t> group, ReaderGroup(config));
  if (group.has_value()) {
    NIXQ_RETURN_IF_ERROR(
        Annotate(ShareStatusSocket(config.state_dir, *group), "reader-group"));
  }
  return Daemon::Start(std::move(config), surroundings, parts);
}

// Whatever keeps the daemon from starting may pass.
constexpr int kPauseMs = 5000;

// Starts daemons, over any number of reloads.
class Server {
 public:
  Server(const DaemonParts& parts, FdLog& log, const Surroundings& surroundings,
         Config config)
      : parts_(parts),
        log_(log),
        surroundings_(surroundings),
        config_(std::move(config)) {}

  // Returns the exit code of the process.
  int Run();

 private:
  // What to do when no daemon has started: nullopt is to try config_ (which
  // may be another now), otherwise the exit code.
  std::optional<int> AfterFailure(const absl::Status& status);
  // False: somebody wants the end.
  bool Pause();

  const DaemonParts& parts_;
  FdLog& log_;
  const Surroundings& surroundings_;
  Config config_;                 // to start with
  std::optional<Config> proven_;  // what a daemon has run with
};

std::optional<int> Server::AfterFailure(const absl::Status& status) {
  // Somebody has locked the queue: that passes.
  const bool passes = absl::IsUnavailable(status);
  const bool on_trial = proven_.has_value() && *proven_ != config_;
  const bool go_on = passes || proven_.has_value();
  log_.Error("start-failed",
             {{"code", CodeName(status.code())},
              {"why", std::string(status.message())},
              {"hint", !go_on                ? "the daemon ends"
                       : passes || !on_trial ? "it is tried again"
                                             : "the configuration before it "
                                               "is taken up again"}});
  if (!go_on) return kFailed;
  if (on_trial && !passes) {
    config_ = *proven_;
    return std::nullopt;
  }
  return Pause() ? std::nullopt : std::optional<int>(EXIT_SUCCESS);
}

bool Server::Pause() {
  parts_.notifier.StillStarting();
  pollfd wait = {parts_.signals.fd(), POLLIN, 0};
  poll(&wait, 1, kPauseMs);
  const Signals::Pending came = parts_.signals.Take();
  if (came.reload) {
    absl::StatusOr<Config> config = parts_.load_config();
    absl::Status status =
        config.ok() ? CheckReload(config_, *config) : config.status();
    if (status.ok()) {
      config_ = *std::move(config);
    } else {
      log_.Error("reload-refused",
                 {{"why", std::string(status.message())},
                  {"hint", "it is tried with the configuration before"}});
    }
  }
  return !came.stop;
}

int Server::Run() {
  while (true) {
    log_.set_threshold(config_.log_level);
    absl::StatusOr<std::unique_ptr<Daemon>> daemon =
        StartDaemon(config_, surroundings_, parts_);
    if (absl::IsCancelled(daemon.status())) return EXIT_SUCCESS;
    if (!daemon.ok()) {
      if (std::optional<int> end = AfterFailure(daemon.status())) return *end;
      continue;
    }
    proven_ = config_;
    switch ((*daemon)->Run()) {
      case Daemon::End::kStopped:
        return EXIT_SUCCESS;
      case Daemon::End::kStuck:
        // A thread hangs in the kernel; every row is right, so go.
        _exit(EXIT_SUCCESS);
      case Daemon::End::kStuckAtReload:
        // The service manager starts another one.
        _exit(kFailed);
      case Daemon::End::kReload:
        config_ = (*daemon)->next_config();
        break;
    }
  }
}

// The whole life of a daemon with its sockets, over any number of reloads.
int Serve(const Arguments& arguments, Config config,
          const Surroundings& surroundings) {
  FdLog log(STDERR_FILENO, config.log_level,
            getenv("JOURNAL_STREAM") != nullptr);
  absl::Status made = MakeDirectories(config.state_dir, 0750);
  if (!made.ok()) return Complain(made);
  absl::StatusOr<UniqueFd> lock = LockFile(config.state_dir + "/daemon.lock");
  if (!lock.ok()) return Complain(lock.status());
  UniqueFd wake(InheritedWakeSocket());
  if (!wake.valid()) {
    absl::StatusOr<UniqueFd> bound = BindWakeSocket(config.state_dir);
    if (!bound.ok()) return Complain(bound.status());
    wake = *std::move(bound);
  }
  absl::StatusOr<UniqueFd> status_socket = BindStatusSocket(config.state_dir);
  if (!status_socket.ok()) return Complain(status_socket.status());
  Notifier notifier = Notifier::FromEnvironment();
  Signals signals;
  const DaemonParts parts{
      .log = log,
      .clock = SystemClock(),
      .random = SystemRandom(),
      .notifier = notifier,
      .signals = signals,
      .wake_fd = wake.get(),
      .status_fd = status_socket->get(),
      .load_config = [&] { return Load(arguments, surroundings); }};
  return Server(parts, log, surroundings, std::move(config)).Run();
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Signs and uploads what Nix has built, and keeps it from the "
      "garbage collector. See queued(8).");
  app.name("queued");
  app.set_version_flag("--version", std::string("queued ") + NIXQ_VERSION);
  app.add_option("--config", arguments.config,
                 "The configuration file (default: /etc/nix-queued/queued.toml"
                 " for root)");
  app.add_option("--state-dir", arguments.state_dir,
                 "Where the queue is, instead of the configured place");
  app.add_option("--log-level", arguments.log_level,
                 "debug, info, warning or error, instead of the configured")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  app.add_flag("--check-config", arguments.check_config,
               "Only say what is wrong with the configuration");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : kUsage;
  }
  const Surroundings surroundings = SurroundingsOfProcess();
  absl::StatusOr<Config> config = Load(arguments, surroundings);
  if (absl::IsInvalidArgument(config.status())) {
    // Lines of file:line:column, for editors too.
    fprintf(stderr, "%s\n", std::string(config.status().message()).c_str());
    return kUsage;
  }
  if (!config.ok()) return Complain(config.status());
  if (arguments.check_config) {
    printf("%s: good, %zu target%s\n", config->file.c_str(),
           config->targets.size(), config->targets.size() == 1 ? "" : "s");
    if (const std::string trouble = RootsTrouble(*config); !trouble.empty()) {
      fprintf(stderr, "queued: warning: %s\n", trouble.c_str());
    }
    // Only the machine that it is for can tell, and this may be another one.
    if (absl::Status group = ReaderGroup(*config).status(); !group.ok()) {
      fprintf(stderr, "%s: warning: on this machine, %s\n",
              config->file.c_str(), std::string(group.message()).c_str());
    }
    return EXIT_SUCCESS;
  }
  DisableCoreDumps();
  // A directory cache is for others to read; the state directory is not, by its
  // own mode.
  umask(0022);
  return Serve(arguments, *std::move(config), surroundings);
}

}  // namespace
}  // namespace nixq

int main(int argc, char** argv) {
  // The command line parser throws; nothing else of ours does.
  try {
    return nixq::Main(argc, argv);
  } catch (const std::exception& error) {
    fprintf(stderr, "queued: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
