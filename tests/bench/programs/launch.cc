// Starts programs many times and measures each run, from before its start to
// after its end, without the cost of an interpreter in between.
//
//   launch RUNS AT_ONCE DRV_PATHS PROGRAM...
//
// One at a time, the programs take turns, so that whatever else the machine
// does falls on all of them; otherwise each has AT_ONCE copies running until
// it has had its RUNS. DRV_PATHS is a file with one value of DRV_PATH a line,
// at least RUNS of them. Prints one line for each program: its times in
// microseconds, in the order in which they ended.
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

extern char** environ;

namespace {

using Clock = std::chrono::steady_clock;

struct Runner {
  std::vector<std::string> drv_paths;
  std::map<pid_t, Clock::time_point> running;

  // The environment is ours with another DRV_PATH.
  void Start(const char* program, size_t run) {
    std::string variable = "DRV_PATH=" + drv_paths[run % drv_paths.size()];
    std::vector<char*> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      environment.push_back(*entry);
    }
    environment.push_back(variable.data());
    environment.push_back(nullptr);
    char* const argv[] = {const_cast<char*>(program), nullptr};
    pid_t pid = 0;
    Clock::time_point start = Clock::now();
    if (posix_spawn(&pid, program, nullptr, nullptr, argv,
                    environment.data()) != 0) {
      std::fprintf(stderr, "cannot start %s\n", program);
      std::exit(1);
    }
    running[pid] = start;
  }

  double Reap() {
    int status = 0;
    pid_t pid = waitpid(-1, &status, 0);
    Clock::time_point end = Clock::now();
    if (pid < 0 || status != 0) {
      std::fprintf(stderr, "a run ended with status %d\n", status);
      std::exit(1);
    }
    Clock::time_point start = running[pid];
    running.erase(pid);
    return std::chrono::duration<double, std::micro>(end - start).count();
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const size_t runs = std::strtoul(argv[1], nullptr, 10);
  const size_t at_once = std::strtoul(argv[2], nullptr, 10);
  Runner runner;
  std::ifstream file(argv[3]);
  for (std::string line; std::getline(file, line);) {
    runner.drv_paths.push_back(line);
  }
  if (runner.drv_paths.empty()) return 2;
  std::vector<char*> programs(argv + 4, argv + argc);
  std::vector<std::vector<double>> times(programs.size());
  if (at_once == 1) {
    for (size_t run = 0; run < runs; ++run) {
      for (size_t i = 0; i < programs.size(); ++i) {
        runner.Start(programs[i], run);
        times[i].push_back(runner.Reap());
      }
    }
  } else {
    for (size_t i = 0; i < programs.size(); ++i) {
      for (size_t run = 0; run < runs; ++run) {
        if (runner.running.size() == at_once) {
          times[i].push_back(runner.Reap());
        }
        runner.Start(programs[i], run);
      }
      while (!runner.running.empty()) times[i].push_back(runner.Reap());
    }
  }
  for (const std::vector<double>& series : times) {
    for (double time : series) std::printf("%.1f ", time);
    std::printf("\n");
  }
  return 0;
}
