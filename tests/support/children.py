"""Child processes of tests, and waiting with a limit.

Every child is its own session, is ended by its process id, and leaves its
output in a file that failures quote.
"""

import os
import shutil
import signal
import subprocess
import time

SANITIZED = bool(os.environ.get("NIXQ_SANITIZE"))
# Sanitized programs are several times slower; limits stretch accordingly.
SLOWNESS = 6 if SANITIZED else 1


def wait_until(condition, limit, what, detail=lambda: ""):
    """Returns the first true value of condition(), asking again and again.

    `limit` is in seconds, stretched under sanitizers. `detail` is called for
    the message of a failure.
    """
    deadline = time.monotonic() + limit * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {limit * SLOWNESS:g} s for {what} in vain\n"
                f"{detail()}")
        time.sleep(0.01)


# So that nothing is left running when the test itself is killed (Linux).
SETPRIV = shutil.which("setpriv")
DIE_WITH_US = [SETPRIV, "--pdeathsig", "KILL"] if SETPRIV else []


class Child:
    """A long-running program with its output in a file. To be started by the
    main thread: on Linux it dies with the thread that has started it."""

    def __init__(self, argv, environment, log_file, pass_fds=()):
        self.argv = [str(argument) for argument in argv]
        self.log_file = log_file
        with open(log_file, "ab") as log:
            self.process = subprocess.Popen(
                DIE_WITH_US + self.argv, env=environment, cwd="/",
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=pass_fds)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def log(self):
        with open(self.log_file, encoding="utf-8", errors="replace") as file:
            return file.read()

    def log_tail(self, lines=40):
        return "\n".join(self.log().splitlines()[-lines:])

    def signal(self, number):
        if self.running():
            self.process.send_signal(number)

    def wait(self, limit):
        try:
            return self.process.wait(limit * SLOWNESS)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.argv[0]} has not ended after {limit * SLOWNESS:g} s\n"
                + self.log_tail()) from None

    def stop(self, limit=10):
        """SIGTERM, and SIGKILL when that does not help. Returns the code."""
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(limit * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.argv[0]} ignored SIGTERM\n{self.log_tail()}") from None

    def kill(self):
        """SIGKILL to it alone, as a crash would be; reaps it."""
        self.signal(signal.SIGKILL)
        return self.process.wait(30)

    def end(self):
        """For cleaning up: it and whatever it has started are gone after."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(30)


def descendants(pid):
    """The process ids of all that `pid` has started, as far as they live."""
    found = []
    pending = [pid]
    while pending:
        parent = pending.pop()
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"/proc/{parent}/task/{task}/children",
                          encoding="ascii") as file:
                    children = [int(word) for word in file.read().split()]
            except OSError:
                continue
            found += children
            pending += children
    return found


def kill_all(pids):
    """SIGKILL to each; those that are gone are passed over."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
