#!/usr/bin/env python3
"""A database that cannot be written: the spool, else a line for each path."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import unittest

from hook_world import HookTest, NOBODY, PATIENCE, note

LOCK_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


class Trouble(HookTest):

    def setUp(self):
        super().setUp()
        self.output, self.drv = self.add_build()

    def make_database(self):
        """One that a hook made, with one row."""
        self.assert_silent(self.run_hook(OUT_PATHS=self.add_path("first")))

    def check_spooled(self):
        result = self.run_hook(DRV_PATH=self.drv)
        self.assert_silent(result)
        self.assertEqual(self.spooled(),
                         [("output", self.output, self.drv, 1, "hook")])
        self.assert_held(self.output)

    def check_lost(self, environment=None, options=None):
        """Nothing works: one line for each path, and the reasons."""
        second = self.add_path("second")
        variables = {"DRV_PATH": self.drv, "OUT_PATHS": second,
                     "options": options, **(environment or {})}
        result = self.run_hook(**variables)
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertLess(result.seconds, PATIENCE)
        self.assertIn("cannot write the queue: ", result.lines[0])
        self.assertIn("spool: ", result.lines[0])
        self.assertEqual(
            sorted(result.lines[1:]),
            sorted(f"queued-hook: not queued: {path}"
                   for path in (self.output, second)))
        strict = self.run_hook(**variables, NIX_QUEUED_STRICT="1")
        self.assertEqual(strict.code, 1)
        self.assertEqual(strict.lines[1:], result.lines[1:])

    # --- Locked ------------------------------------------------------------

    def hold_lock(self, pragma):
        holder = subprocess.Popen(
            [sys.executable, "-c", LOCK_HOLDER, self.database, pragma],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.finish, holder)
        self.assertEqual(holder.stdout.readline(), b"locked\n")
        return holder

    def test_locked_by_another(self):
        self.make_database()
        holder = self.hold_lock("SELECT 1")
        self.check_spooled()
        holder.communicate(b"")
        self.assertEqual(len(self.rows()), 1)
        # And back to normal.
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        self.assertEqual(len(self.rows()), 2)

    def test_locked_exclusively(self):
        self.make_database()
        self.hold_lock("PRAGMA locking_mode = EXCLUSIVE")
        self.check_spooled()

    def test_locked_by_a_stopped_process(self):
        self.make_database()
        holder = self.hold_lock("SELECT 1")
        os.kill(holder.pid, signal.SIGSTOP)
        try:
            self.check_spooled()
        finally:
            os.kill(holder.pid, signal.SIGCONT)

    def test_locked_by_a_killed_process(self):
        self.make_database()
        holder = self.hold_lock("SELECT 1")
        holder.kill()
        holder.wait()
        self.assert_silent(self.run_hook(DRV_PATH=self.drv))
        self.assertEqual(len(self.rows()), 2)

    def test_lock_that_is_released_in_time(self):
        self.make_database()
        holder = self.hold_lock("SELECT 1")
        process = self.start(variables={"DRV_PATH": self.drv})
        holder.communicate(b"")
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out, err), (0, b"", b""))
        kept = [path for path in self.paths() + self.spooled_paths()
                if path == self.output]
        self.assertEqual(len(kept), 1)

    # --- Not a database ----------------------------------------------------

    def test_garbage(self):
        os.mkdir(self.state)
        with open(self.database, "wb") as file:
            file.write(os.urandom(8192))
        with open(self.database, "rb") as file:
            before = file.read()
        self.check_spooled()
        with open(self.database, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_damaged(self):
        self.make_database()
        # The schema's page, behind an intact header.
        connection = sqlite3.connect(self.database)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with open(self.database, "r+b") as file:
            file.seek(100)
            file.write(b"\xff" * 1000)
        self.check_spooled()

    def test_other_kinds_of_files(self):
        os.mkdir(self.state)
        spool = os.path.join(self.state, "spool")
        target = os.path.join(self.base, "target")

        def symlink():
            os.symlink(target, self.database)

        def device():
            os.symlink("/dev/zero", self.database)

        for make in (lambda: os.mkdir(self.database),
                     lambda: os.mkfifo(self.database), symlink, device):
            make()
            self.check_spooled()
            shutil.rmtree(spool)
            if os.path.isdir(self.database):
                os.rmdir(self.database)
            else:
                os.unlink(self.database)
        self.assertFalse(os.path.exists(target))

    def test_database_of_somebody_else(self):
        os.mkdir(self.state)
        connection = sqlite3.connect(self.database)
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()
        connection.close()
        self.check_spooled()

    # --- Not ours, or full -------------------------------------------------

    def as_nobody(self):
        """Options for running as somebody whom permissions bind."""
        if os.geteuid() != 0:
            return {}
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def test_database_that_is_not_ours(self):
        self.make_database()
        options = self.as_nobody()
        os.chmod(self.database, 0o444)
        if options:
            os.chown(self.state, NOBODY, NOBODY)
            for ending in ("", "-wal", "-shm"):
                if os.path.exists(self.database + ending):
                    os.chown(self.database + ending, 0, 0)
                    os.chmod(self.database + ending, 0o444)
            os.chown(self.roots, NOBODY, NOBODY)
        result = self.run_hook(DRV_PATH=self.drv, options=options)
        self.assert_silent(result)
        self.assertEqual(self.spooled_paths(), [self.output])

    def test_state_directory_that_is_not_ours(self):
        os.mkdir(self.state)
        os.chmod(self.state, 0o555)
        self.check_lost_as_nobody()

    def test_state_directory_that_cannot_be_entered(self):
        os.mkdir(self.state)
        os.chmod(self.state, 0)
        self.addCleanup(os.chmod, self.state, 0o755)
        self.check_lost_as_nobody()

    def check_lost_as_nobody(self):
        options = self.as_nobody()
        roots = os.path.join(self.base, "roots")
        os.mkdir(roots)
        if options:
            os.chown(roots, NOBODY, NOBODY)
        self.check_lost({"NIX_QUEUED_ROOTS_DIR": roots}, options)

    def test_state_directory_that_is_a_file(self):
        with open(self.state, "w", encoding="ascii") as file:
            file.write("precious")
        self.check_lost()
        with open(self.state, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_neither_database_nor_spool(self):
        os.mkdir(self.state)
        os.mkdir(self.database)
        with open(os.path.join(self.state, "spool"), "w",
                  encoding="ascii") as file:
            file.write("precious")
        self.check_lost()

    def test_spool_that_is_a_symlink(self):
        os.mkdir(self.state)
        os.mkdir(self.database)
        elsewhere = os.path.join(self.base, "elsewhere")
        os.mkdir(elsewhere)
        os.symlink(elsewhere, os.path.join(self.state, "spool"))
        self.check_lost()
        self.assertEqual(os.listdir(elsewhere), [])

    def mount_small(self, kib):
        os.makedirs(self.state)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0755", "none",
             self.state], check=False, capture_output=True, text=True)
        if mounted.returncode != 0:
            note(f"not tested, since tmpfs cannot be mounted here: "
                 f"{mounted.stderr.strip()}")
            return False
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.state],
                        check=True)
        return True

    def fill(self, keep_bytes=0):
        with open(os.path.join(self.state, "filler"), "wb",
                  buffering=0) as file:
            with self.assertRaises(OSError):
                while True:
                    file.write(b"x" * 4096)
            file.truncate(file.tell() - keep_bytes)

    def test_disk_full_before_there_is_a_database(self):
        if self.mount_small(64):
            self.fill()
            self.check_lost()

    def test_disk_full_with_a_database(self):
        if self.mount_small(256):
            self.make_database()
            self.fill()
            self.check_lost()
            os.unlink(os.path.join(self.state, "filler"))
            self.assert_silent(self.run_hook(DRV_PATH=self.drv))
            self.assertIn(self.output, self.paths())

    def test_room_for_a_spool_file_alone(self):
        if self.mount_small(256):
            os.mkdir(os.path.join(self.state, "spool"))
            self.fill(keep_bytes=4096)  # a new database takes more
            self.check_spooled()


if __name__ == "__main__":
    unittest.main()
