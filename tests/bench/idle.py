"""What the daemon costs while there is nothing to do."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import private_nix
import queued


def wake_ups(pid):
    """How often its threads have gone to sleep so far, all together."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file
                         if line.startswith("voluntary_ctxt_switches:"))
    return total


def memory(pid, field):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return [int(line.split()[1]) * 1024 for line in file
                if line.startswith(field + ":")][0]


def table(base, seconds):
    """After an upload, and a little for its connections to be closed."""
    nix = private_nix.PrivateNix(os.path.join(base, "n"))
    queue = None
    try:
        nix.start_daemon()
        os.makedirs(os.path.join(base, "q"))
        queue = queued.Queued(
            os.path.join(base, "q"), nix,
            [{"url": f"file://{base}/cache"}], {"": {"log-level": "warning"}})
        queue.start()
        queue.run_hook(nix.build(private_nix.derivation(
            "x", "echo x > $out")))
        queue.wait()
        time.sleep(65)
        before = wake_ups(queue.pid)
        started = time.monotonic()
        time.sleep(seconds)
        minutes = (time.monotonic() - started) / 60
        count = (wake_ups(queue.pid) - before) / minutes
        threads = len(os.listdir(f"/proc/{queue.pid}/task"))
        resident = memory(queue.pid, "VmRSS") / 1e6
        shared = memory(queue.pid, "RssFile") / 1e6
    finally:
        if queue:
            queue.end()
        nix.remove()
    yield "| the idle daemon | |"
    yield "|---|---|"
    yield f"| wake-ups a minute, all {threads} threads | {count:.1f} |"
    yield (f"| resident memory | {resident:.1f} MB, {shared:.1f} MB of it "
           "program and libraries |")
