#!/usr/bin/env python3
"""Root's hook and the daemon's user share one queue, and neither is locked
out by the other."""

import os
import sqlite3
import stat
import unittest

from hook_world import HookTest, NOBODY, note


def take_all(database, spool):
    """Takes what is queued and spooled, as the daemon does; how many rows."""
    connection = sqlite3.connect(database, timeout=30)
    with connection:
        taken = connection.execute(
            "DELETE FROM inbox RETURNING path").fetchall()
    connection.close()
    for name in os.listdir(spool) if os.path.isdir(spool) else []:
        file = os.path.join(spool, name)
        with open(file, encoding="ascii") as opened:
            if not opened.read().endswith("end\n"):
                raise ValueError(file)
        os.unlink(file)
    return len(taken)


class Users(HookTest):

    def setUp(self):
        super().setUp()
        self.output, self.drv = self.add_build()

    def needs_root(self):
        if os.geteuid() == 0:
            return False
        note("hooks of several users are not tested: this is not root")
        return True

    def own(self, mode=0o750):
        """The state directory, as the daemon's unit makes it."""
        os.mkdir(self.state)
        os.chown(self.state, NOBODY, NOBODY)
        os.chmod(self.state, mode)

    def as_nobody(self):
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def own_roots(self):
        os.makedirs(self.roots, exist_ok=True)
        os.chown(self.roots, NOBODY, NOBODY)

    def check_owned(self):
        """The database and what belongs to it is the daemon's to write."""
        for ending in ("", "-wal", "-shm"):
            name = self.database + ending
            if ending and not os.path.exists(name):
                continue
            status = os.stat(name)
            self.assertEqual((status.st_uid, status.st_gid),
                             (NOBODY, NOBODY), name)
            self.assertEqual(stat.S_IMODE(status.st_mode) & 0o600, 0o600,
                             name)
            self.assertEqual(stat.S_IMODE(status.st_mode) & 0o007, 0, name)

    def take(self):
        """take_all() as the daemon's user; an interpreter that is root's own
        could not be started as somebody else, but this one can change."""
        pid = os.fork()
        if pid == 0:
            code = 255
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                code = take_all(self.database,
                                os.path.join(self.state, "spool"))
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_roots_hook_in_the_daemons_directory(self):
        if self.needs_root():
            return
        self.own()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        self.check_owned()
        self.assertEqual(self.take(), 1)
        self.check_owned()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        self.check_owned()
        self.assertEqual(self.take(), 1)

    def test_directory_that_changes_hands(self):
        """tmpfiles.d and StateDirectory= hand over the directory alone."""
        if self.needs_root():
            return
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        self.assertEqual(os.stat(self.database).st_uid, 0)
        os.chown(self.state, NOBODY, NOBODY)
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        self.check_owned()
        self.assertEqual(self.take(), 2)

    def test_nothing_else_is_handed_over(self):
        """The directory's owner decides what its names mean."""
        if self.needs_root():
            return
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        os.chown(self.state, NOBODY, NOBODY)
        treasure = os.path.join(self.base, "treasure")
        with open(treasure, "wb"):
            pass
        for make in (os.link, os.symlink):
            os.unlink(self.database)
            make(treasure, self.database)
            self.run_hook(DRV_PATH=self.drv)
            self.assertEqual(os.stat(treasure).st_uid, 0)

    def test_while_the_daemon_has_it_open(self):
        if self.needs_root():
            return
        self.own()
        self.own_roots()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv,
                                         options=self.as_nobody()))
        reader = sqlite3.connect(self.database)
        self.addCleanup(reader.close)
        reader.execute("SELECT count(*) FROM inbox").fetchall()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        self.check_owned()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv,
                                         options=self.as_nobody()))
        self.check_owned()
        self.assertEqual(self.take(), 3)

    def test_roots_spool_in_the_daemons_directory(self):
        if self.needs_root():
            return
        self.own()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        reader = sqlite3.connect(self.database, isolation_level=None)
        self.addCleanup(reader.close)
        reader.execute("BEGIN IMMEDIATE")
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        reader.execute("ROLLBACK")
        self.assertEqual(self.spooled_paths(), [self.output])
        status = os.stat(os.path.join(self.state, "spool"))
        self.assertEqual((status.st_uid, status.st_gid), (NOBODY, NOBODY))
        self.assertEqual(self.take(), 1)

    def test_group_that_may_read(self):
        if self.needs_root():
            return
        os.mkdir(self.state)
        os.chown(self.state, NOBODY, 12345)
        os.chmod(self.state, 0o2750)
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        status = os.stat(self.database)
        self.assertEqual((status.st_uid, status.st_gid), (NOBODY, 12345))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o640)

    def test_ordinary_user(self):
        if self.needs_root():
            return
        self.own(0o700)
        self.own_roots()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv,
                                         options=self.as_nobody()))
        self.check_owned()
        self.assertEqual(self.paths(), [self.output])
        self.assert_held(self.output)

    def test_ordinary_user_who_may_not_make_roots(self):
        if self.needs_root():
            return
        self.own(0o700)
        result = self.run_hook(DRV_PATH=self.drv, options=self.as_nobody())
        self.assertEqual((result.code, len(result.lines)), (0, 1), result)
        self.assertIn("no GC root was made", result.err)
        self.assertEqual(self.paths(), [self.output])


if __name__ == "__main__":
    unittest.main()
