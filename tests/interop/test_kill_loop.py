"""Real builds while daemon and hooks are killed at random moments.

What a hook has acknowledged (exit code 0) must arrive; what is published must
be whole at the moment of its publication; and nothing is sent again after its
narinfo is there. NIXQ_SEED repeats a run's choices, NIXQ_BUILDS sets how many
builds there are.
"""

import os
import random
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import children
import private_nix
import queued
import world

BUILDS = int(os.environ.get("NIXQ_BUILDS",
                            "60" if children.SANITIZED else "200"))
BUILDS_AT_ONCE = 10

# Nix runs this as the hook. It runs the real one, kills some of them after a
# random time of the hook's own length, and writes down what became of each.
# Nix must not see that a hook was killed: it would abort the other builds.
HOOK_KILLER = """\
#!{python} -IS
import os, random, signal, subprocess, sys, time
rng = random.Random("{seed} " + os.environ["DRV_PATH"])
kill = rng.random() < 0.3
delay = rng.uniform(0, {longest})
hook = subprocess.Popen(["{hook}"], stdin=subprocess.DEVNULL)
if kill:
    time.sleep(delay)
    hook.send_signal(signal.SIGKILL)
code = hook.wait()
with open("{diary}", "a") as diary:
    diary.write(os.environ["DRV_PATH"] + " " + str(code) + "\\n")
"""


class KillLoop(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.seed = os.environ.get("NIXQ_SEED",
                                   str(random.randrange(1 << 32)))
        self.random = random.Random(self.seed)
        print(f"NIXQ_SEED={self.seed} NIXQ_BUILDS={BUILDS}", flush=True)
        self.diary = os.path.join(self.base, "diary")
        killer = os.path.join(self.base, "hook")
        with open(killer, "w", encoding="utf-8") as file:
            file.write(HOOK_KILLER.format(
                python=os.path.realpath(sys.executable), seed=self.seed,
                longest=0.006 * children.SLOWNESS, hook=queued.HOOK,
                diary=self.diary))
        os.chmod(killer, 0o755)
        self.make_nix(hook=killer)
        self.server = self.make_cache_server()
        self.queue = self.make_queue([{"name": "http",
                                       "url": self.server.url}])
        self.builders_done = threading.Event()
        self.build_error = None
        self.kills = 0

    def build_all(self):
        """In a thread: chains of three, some multi-output, and lone ones."""
        try:
            for first in range(0, BUILDS, BUILDS_AT_ONCE):
                salt = f"{self.salt}{first}"
                lone = BUILDS_AT_ONCE - 4
                self.nix.build(
                    f"[ ({private_nix.chain(f'c{first}', 3, salt)}) "
                    f"({private_nix.multi_output(f'm{first}', salt)}) ] ++ "
                    f"({private_nix.many(f'l{first}', lone, salt)})")
        except Exception as error:  # pylint: disable=broad-except
            self.build_error = error
        finally:
            self.builders_done.set()

    def kill_and_restart(self):
        """The old daemon's requests are settled before the new one starts, so
        that the server can tell what was sent twice from what was late."""
        self.queue.kill()
        self.kills += 1
        self.server.wait_idle()
        self.queue.start(wait=False)

    def read_diary(self):
        """(derivations whose hook was done, those whose hook was killed)."""
        with open(self.diary, encoding="utf-8") as file:
            rows = [line.split() for line in file]
        self.assertLessEqual({code for _, code in rows}, {"0", "-9"},
                             "a hook failed by itself")
        return ([drv for drv, code in rows if code == "0"],
                [drv for drv, code in rows if code == "-9"])

    def outputs(self, derivations):
        if not derivations:
            return []
        return self.nix.lines(["nix-store", "--query", "--outputs",
                               *derivations])

    def test_nothing_is_lost(self):
        builder = threading.Thread(target=self.build_all)
        builder.start()
        try:
            while not self.builders_done.is_set():
                # From "still starting" to "in the middle of several uploads".
                time.sleep(self.random.uniform(0, 0.3) * children.SLOWNESS)
                self.kill_and_restart()
        finally:
            builder.join()
        self.assertIsNone(self.build_error)
        # Some more kills, while what is left is uploaded.
        for _ in range(10):
            time.sleep(self.random.uniform(0, 0.1) * children.SLOWNESS)
            self.kill_and_restart()

        acknowledged, killed = self.read_diary()
        self.assertEqual(BUILDS, len(acknowledged) + len(killed))
        kept = self.outputs(acknowledged)
        # Rooted by a killed hook counts as kept, too: the last start adopts.
        outputs_of_killed = self.outputs(killed)
        rooted = [path for path in outputs_of_killed if os.path.islink(
            os.path.join(self.nix.roots_dir, os.path.basename(path)))]
        self.queue.kill()
        self.server.wait_idle()
        self.queue.start()
        self.queue.wait(limit=300)

        lost = self.server.cache.lacks(kept)
        lost_roots = self.server.cache.lacks(rooted)
        problems = self.server.cache.problems()
        print(f"{BUILDS} builds, {len(acknowledged)} hooks acknowledged "
              f"{len(kept)} paths, {len(killed)} hooks killed "
              f"({len(rooted)} of their paths rooted all the same), "
              f"{self.kills} daemons killed, "
              f"{self.server.count('PUT')} PUTs, "
              f"{len(self.server.cache.narinfo_keys())} paths published; "
              f"lost {len(lost) + len(lost_roots)}, "
              f"half-visible {len(problems)}, "
              f"violations {len(self.server.violations)}", flush=True)
        self.assertEqual([], lost)
        self.assertEqual([], lost_roots)
        self.assertEqual([], problems)
        self.assertEqual([], self.server.violations)
        self.assertGreater(self.kills, 10)
        self.assertGreater(len(killed), 0)

        # What no hook has acknowledged was reported by Nix as a failed hook;
        # a person enqueues it by hand.
        unknown = self.server.cache.lacks(outputs_of_killed)
        if unknown:
            self.queue.ctl("add", *unknown)
            self.queue.wait(limit=300)
        everything = kept + outputs_of_killed
        self.assert_whole(self.server.cache, everything)
        self.nix.collect_garbage()
        self.assertEqual([], [path for path in everything
                              if not self.nix.valid(path)])


if __name__ == "__main__":
    unittest.main()
