#include "storage/base/turns.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#endif

namespace nixq {
namespace {

#if defined(__linux__) && defined(SYS_sched_getattr)

// What sched_getattr(2) says: policy, nice value, turn in nanoseconds.
struct Scheduling {
  uint32_t policy = ~0U;
  int32_t nice = 0;
  uint64_t runtime_ns = 0;
};

Scheduling Ask() {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } answer = {};
  if (syscall(SYS_sched_getattr, 0, &answer, sizeof(answer), 0) != 0) return {};
  return {answer.policy, answer.nice, answer.runtime};
}

// Runs `body` in a child, since it changes its process.
template <typename Body>
bool InChild(Body body) {
  pid_t pid = fork();
  if (pid == 0) _exit(body() ? 0 : 1);
  int status = 0;
  return waitpid(pid, &status, 0) == pid && status == 0;
}

TEST(TurnsTest, AreShortAndNothingElseChanges) {
  EXPECT_TRUE(InChild([] {
    if (setpriority(PRIO_PROCESS, 0, 7) != 0) return false;
    Scheduling before = Ask();
    AskForShortTurns();
    Scheduling after = Ask();
    // Before Linux 6.12 there are no turns to ask for: 0.
    return after.policy == before.policy && after.nice == 7 &&
           (before.runtime_ns == 0 || after.runtime_ns == 100'000);
  }));
}

TEST(TurnsTest, ChildrenHaveThemToo) {
  EXPECT_TRUE(InChild([] {
    AskForShortTurns();
    uint64_t turn = Ask().runtime_ns;
    return InChild([turn] { return Ask().runtime_ns == turn; });
  }));
}

TEST(TurnsTest, WhoeverIsToWaitStillWaits) {
  EXPECT_TRUE(InChild([] {
    sched_param none = {};
    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return false;
    Scheduling before = Ask();
    AskForShortTurns();
    Scheduling after = Ask();
    return after.policy == SCHED_IDLE && after.runtime_ns == before.runtime_ns;
  }));
}

#else

TEST(TurnsTest, NothingHappens) { AskForShortTurns(); }

#endif

}  // namespace
}  // namespace nixq
