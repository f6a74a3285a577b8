#!/usr/bin/env python3
"""Many hooks at the same time: every row is there, wherever they started."""

import os
import subprocess
import unittest

from hook_world import HookTest, HOOK
from children import SANITIZED, SLOWNESS

# More sanitized ones than this do not get through a small machine in the
# second that each of them has.
COPIES = 8 if SANITIZED else 64


class ManyAtOnce(HookTest):

    def run_all(self, count=COPIES):
        """Starts `count` hooks, lets all go at once; returns their paths."""
        read_end, write_end = os.pipe()
        builds = [self.add_build(f"p{n}") for n in range(count)]
        hooks = []
        try:
            for _, drv in builds:
                # The shells wait for the end of the pipe, together.
                hooks.append(self.start(
                    prefix=("sh", "-c", 'read _; exec "$0" </dev/null'),
                    variables={"DRV_PATH": drv}, stdin=read_end))
        finally:
            os.close(read_end)
            os.close(write_end)
        for process in hooks:
            self.check_ended(process)
        return [output for output, _ in builds]

    def check_ended(self, process):
        """Exit 0, silent."""
        out, err = process.communicate(timeout=120 * SLOWNESS)
        self.assertEqual((process.returncode, out, err), (0, b"", b""))

    def check_all_kept(self, expected):
        """In the queue or, where a busy machine took too long, the spool."""
        self.assertEqual({*self.paths(), *self.spooled_paths()},
                         set(expected))
        self.assert_held(*expected)
        # Nothing temporary stays behind, in no directory.
        self.assertEqual(len(os.listdir(self.roots)), len(expected))
        self.assertLessEqual(
            set(os.listdir(self.state)),
            {"queue.db", "queue.db-wal", "queue.db-shm", "spool"})
        check = subprocess.run(
            ["sqlite3", self.database, "PRAGMA integrity_check"],
            check=True, capture_output=True, text=True)
        self.assertEqual(check.stdout, "ok\n")

    def test_on_a_fresh_directory(self):
        self.assertTrue(os.access(HOOK, os.X_OK))
        for _ in range(3):
            self.check_all_kept(self.run_all())
            # Afresh: no state directory, no roots.
            for place in (self.state, self.nix_state):
                os.rename(place, f"{place}-{len(os.listdir(self.base))}")

    def test_on_an_existing_one(self):
        first = self.run_all(1)
        self.check_all_kept(first + self.run_all() + self.run_all())

    def test_of_one_and_the_same_build(self):
        output, drv = self.add_build()
        hooks = [self.start(variables={"DRV_PATH": drv})
                 for _ in range(COPIES)]
        for process in hooks:
            self.check_ended(process)
        self.assertGreaterEqual(len(self.paths() + self.spooled_paths()),
                                COPIES)
        self.check_all_kept([output])


if __name__ == "__main__":
    unittest.main()
