#!/usr/bin/env python3
"""A queue with a long past and a huge WAL costs a hook nothing."""

import os
import shutil
import unittest

import history
from hook_world import HookTest

# As many as a busy builder's month; the WAL is some 500 MB then.
JOBS = int(os.environ.get("NIXQ_TEST_JOBS",
                          "50000" if os.environ.get("NIXQ_SANITIZE")
                          else "1000000"))


class History(HookTest):

    def test_huge_wal(self):
        connection = history.make_history(self.state, JOBS)
        self.addCleanup(connection.close)
        wal = self.database + "-wal"
        self.assertGreater(os.path.getsize(wal), 200 * JOBS)
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(self.paths(), [output])
        # The work of moving the WAL into the file was left to the daemon.
        self.assertGreater(os.path.getsize(wal), 200 * JOBS)

        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        connection.close()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(self.paths(), [output] * 3)

    def test_huge_wal_that_nobody_has_open(self):
        """As after a power cut: whoever opens it has to read all of it."""
        connection = history.make_history(self.state, JOBS // 4)
        # Copied while in use, which is what a power cut leaves.
        crashed = os.path.join(self.base, "crashed")
        os.mkdir(crashed)
        for ending in ("", "-wal"):
            shutil.copy(self.database + ending,
                        os.path.join(crashed, "queue.db" + ending))
        connection.close()
        history.flush(crashed)
        self.state = crashed
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(set(self.paths() + self.spooled_paths()), {output})


if __name__ == "__main__":
    unittest.main()
