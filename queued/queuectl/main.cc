// queuectl: the command line.
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <string>

#include "queued/config_reader.h"
#include "queued/queuectl/commands.h"

namespace nixq {
namespace {

struct Arguments {
  std::string config;
  std::string state_dir;
  bool json = false;
  ListArguments list;
  WaitArguments wait;
  AddArguments add;
  SelectArguments retry;
  SelectArguments forget;
  PruneArguments prune;
  std::string path;
  std::string target;
  std::string duration;
};

// Options that every command has, so that they may stand anywhere.
void AddCommonOptions(CLI::App& app, Arguments& arguments) {
  app.add_option("--config", arguments.config, "The daemon's configuration");
  app.add_option("--state-dir", arguments.state_dir,
                 "Where the queue is, instead of the configured place");
  app.add_flag("--json", arguments.json, "Print JSON");
}

CLI::App* AddCommand(CLI::App& app, Arguments& arguments, const char* name,
                     const char* description) {
  CLI::App* command = app.add_subcommand(name, description);
  AddCommonOptions(*command, arguments);
  return command;
}

// A duration such as 30d, 12h, 5m, 10s.
CLI::Validator IsDuration() {
  return CLI::Validator(
      [](const std::string& text) {
        return ParseDuration(text).has_value()
                   ? std::string()
                   : "'" + text + "' is not a duration such as 30d or 10s";
      },
      "DURATION");
}

using Run = std::function<int(const Context&)>;

void AddReaders(CLI::App& app, Arguments& a, Run& run) {
  AddCommand(app, a, "status", "Targets, counts, and what is being sent")
      ->callback([&] { run = RunStatus; });

  CLI::App* list = AddCommand(app, a, "list", "Jobs, those open oldest first");
  list->add_option("--state", a.list.state, "Only those in this state")
      ->check(CLI::IsMember({"queued", "sending", "done", "parked"}));
  list->add_option("--target", a.list.target, "Only those for this target");
  list->add_option("--older-than", a.duration, "Only those queued before")
      ->check(IsDuration());
  list->add_option("--limit", a.list.limit, "At most so many")
      ->check(CLI::Range(1, 1000000));
  list->callback([&] {
    run = [&](const Context& context) {
      a.list.older_than = ParseDuration(a.duration);
      return RunList(context, a.list);
    };
  });

  CLI::App* show = AddCommand(app, a, "show", "Everything about a path");
  show->add_option("PATH", a.path)->required();
  show->callback(
      [&] { run = [&](const Context& c) { return RunShow(c, a.path); }; });

  CLI::App* wait = AddCommand(app, a, "wait", "Wait until all is sent");
  wait->add_option("PATH", a.wait.paths);
  wait->add_option("--timeout", a.duration, "At most so long")
      ->check(IsDuration());
  wait->callback([&] {
    run = [&](const Context& c) {
      if (!a.duration.empty()) a.wait.timeout = *ParseDuration(a.duration);
      return RunWait(c, a.wait);
    };
  });
  AddCommand(app, a, "version", "Versions of this program and the daemon")
      ->callback([&] { run = RunVersion; });
}

// A command about some jobs: paths, all that are parked, all of a target.
CLI::App* AddSelecting(CLI::App& app, Arguments& a, const char* name,
                       const char* description, SelectArguments& into) {
  CLI::App* command = AddCommand(app, a, name, description);
  command->add_option("PATH", into.paths);
  command->add_flag("--parked", into.parked, "All that are parked");
  command->add_option("--target", into.target,
                      "Only for this target; alone: all that is open for it");
  return command;
}

bool SelectsNothing(const SelectArguments& arguments) {
  return arguments.paths.empty() && !arguments.parked &&
         arguments.target.empty();
}

// The exit code of a command that was not told what it is about.
int Unselected(const char* command, const char* choices) {
  fprintf(stderr, "queuectl %s: give paths or %s\n", command, choices);
  return kExitUsage;
}

void AddChangers(CLI::App& app, Arguments& a, Run& run) {
  CLI::App* add =
      AddCommand(app, a, "add", "Enqueue paths that were not built just now");
  add->add_option("PATH", a.add.paths);
  add->add_flag("--closure", a.add.closure, "And all that they reference");
  add->add_flag("--all-local", a.add.all_local,
                "Everything that was built on this machine");
  add->callback([&] {
    run = [&](const Context& c) {
      if (a.add.paths.empty() && !a.add.all_local) {
        return Unselected("add", "--all-local");
      }
      return RunAdd(c, a.add);
    };
  });

  AddSelecting(app, a, "retry", "Try again now what waits or is parked",
               a.retry)
      ->callback([&] {
        run = [&](const Context& c) {
          if (SelectsNothing(a.retry)) {
            return Unselected("retry", "--parked or --target");
          }
          return RunRetry(c, a.retry);
        };
      });
  CLI::App* forget = AddSelecting(
      app, a, "forget", "Remove jobs from the queue, for good", a.forget);
  forget->add_flag("--dry-run", a.forget.dry_run, "Only say what would go");
  forget->callback([&] {
    run = [&](const Context& c) {
      if (SelectsNothing(a.forget)) {
        return Unselected("forget", "--parked or --target");
      }
      return RunForget(c, a.forget);
    };
  });

  for (bool paused : {true, false}) {
    CLI::App* command = AddCommand(
        app, a, paused ? "pause" : "resume",
        paused ? "Send nothing to a target" : "Send to a target again");
    command->add_option("TARGET", a.target)->required();
    command->callback([&a, &run, paused] {
      run = [&a, paused](const Context& c) {
        return RunPause(c, a.target, paused);
      };
    });
  }

  CLI::App* prune =
      AddCommand(app, a, "prune", "Remove GC roots that are too old");
  prune->add_option("--older-than", a.duration, "Instead of roots.max-age")
      ->check(IsDuration());
  prune->add_flag("--dry-run", a.prune.dry_run, "Only say what would go");
  prune->callback([&] {
    run = [&](const Context& c) {
      a.prune.older_than = ParseDuration(a.duration);
      return RunPrune(c, a.prune);
    };
  });
}

int Main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Shows and steers the upload queue. See queuectl(1).");
  app.name("queuectl");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("queuectl ") + NIXQ_VERSION);
  AddCommonOptions(app, a);
  Run run;
  AddReaders(app, a, run);
  AddChangers(app, a, run);
  CLI::App* check =
      AddCommand(app, a, "check", "Look for what is wrong, and say it");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (check->parsed()) return RunCheck(a.config, a.state_dir, a.json);
  absl::StatusOr<Context> context =
      Context::Make(a.config, a.state_dir, a.json);
  if (!context.ok()) return Complain(context.status());
  return run(*context);
}

// The exit code of a command whose output may not have gone anywhere.
int Written(int code) {
  errno = 0;
  if (fflush(stdout) == 0 && ferror(stdout) == 0) return code;
  fprintf(stderr, "queuectl: write the output: %s\n",
          errno == 0 ? "it is not complete" : strerror(errno));
  return kExitFailed;
}

}  // namespace
}  // namespace nixq

int main(int argc, char** argv) {
  // The command line parser throws; nothing else of ours does.
  try {
    return nixq::Written(nixq::Main(argc, argv));
  } catch (const std::exception& error) {
    fprintf(stderr, "queuectl: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
