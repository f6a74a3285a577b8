// queued: the daemon's command line, and what outlives a reload.
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>

#include "queued/config.h"
#include "queued/daemon.h"
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
  if (!config.reader_group.empty()) {
    absl::StatusOr<gid_t> group = GroupNumber(config.reader_group);
    if (!group.ok()) return Annotate(group.status(), "reader-group");
    NIXQ_RETURN_IF_ERROR(
        Annotate(ShareStatusSocket(config.state_dir, *group), "reader-group"));
  }
  return Daemon::Start(std::move(config), surroundings, parts);
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
  while (true) {
    absl::StatusOr<std::unique_ptr<Daemon>> daemon =
        StartDaemon(std::move(config), surroundings, parts);
    if (!daemon.ok()) {
      log.Error("start-failed",
                {{"code", CodeName(daemon.status().code())},
                 {"why", std::string(daemon.status().message())}});
      return kFailed;
    }
    switch ((*daemon)->Run()) {
      case Daemon::End::kStopped:
        return EXIT_SUCCESS;
      case Daemon::End::kStuck:
        // A thread hangs in the kernel; every row is right, so go.
        _exit(EXIT_SUCCESS);
      case Daemon::End::kReload:
        config = (*daemon)->next_config();
        log.set_threshold(config.log_level);
        break;
    }
  }
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
