#!/usr/bin/env python3
"""The order in which things reach the disk, as the kernel saw it."""

import os
import re
import shutil
import sqlite3
import subprocess
import unittest

from hook_world import HookTest, HOOK, note

CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)$")


class Order(HookTest):

    def traced(self, **variables):
        """(name, arguments and result) of every call of one run, or None."""
        if not shutil.which("strace"):
            note("the order of system calls is not tested: no strace here")
            return None
        if os.environ.get("NIXQ_SANITIZE"):
            note("the order of system calls is not tested under sanitizers")
            return None
        log = os.path.join(self.base, "trace")
        traced = subprocess.run(
            ["strace", "-f", "-y", "-s", "200", "-o", log, HOOK],
            env=self.environment(**variables), cwd="/", check=False,
            capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if "ptrace" in traced.stderr:
            note(f"the order of system calls is not tested: {traced.stderr}")
            return None
        self.assertEqual((traced.returncode, traced.stdout, traced.stderr),
                         (0, "", ""))
        calls = []
        unfinished = {}
        with open(log, encoding="utf-8", errors="replace") as file:
            for line in file:
                resumed = re.match(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$",
                                   line)
                if resumed:
                    name, rest = unfinished.pop(
                        (resumed[1], resumed[2]), (resumed[2], ""))
                    calls.append((name, rest + resumed[3]))
                    continue
                call = CALL.match(line)
                if not call:
                    continue
                rest = call["rest"]
                if rest.rstrip().endswith("<unfinished ...>"):
                    unfinished[call["pid"], call["name"]] = (
                        call["name"], rest.split("<unfinished")[0])
                else:
                    calls.append((call["name"], rest))
        return calls

    def last(self, calls, names, text):
        found = [index for index, (name, rest) in enumerate(calls)
                 if name in names and text in rest]
        self.assertTrue(found, f"no {names} of {text} in {calls}")
        return found[-1]

    def first(self, calls, names, text):
        return min(index for index, (name, rest) in enumerate(calls)
                   if name in names and text in rest)

    def test_root_then_row_then_flush_then_wake_then_exit(self):
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(OUT_PATHS=self.add_path("first")))
        # Somebody has it open, as the daemon does.
        daemon = sqlite3.connect(self.database)
        self.addCleanup(daemon.close)
        daemon.execute("SELECT count(*) FROM inbox").fetchall()
        calls = self.traced(DRV_PATH=drv)
        if calls is None:
            return
        name = os.path.basename(output)
        root = self.last(calls, ("symlink", "symlinkat", "rename", "renameat",
                                 "renameat2"), name)
        writes = ("pwrite64", "pwritev", "write")
        first_write = self.first(calls, writes, "queue.db-wal")
        last_write = self.last(calls, writes, "queue.db-wal")
        flush = self.last(calls, ("fdatasync", "fsync"), "queue.db-wal")
        wake = self.last(calls, ("sendto",), "wake.sock")
        leave = self.last(calls, ("exit_group",), "")
        self.assertLess(root, first_write)
        self.assertLess(last_write, flush)
        self.assertLess(flush, wake)
        self.assertLess(wake, leave)
        # Flushed for good: the call succeeded.
        self.assertTrue(calls[flush][1].rstrip().endswith("= 0"))
        self.assertIn("MSG_DONTWAIT", calls[wake][1])

    def test_spool_file_is_flushed_renamed_and_its_directory_flushed(self):
        _, drv = self.add_build()
        os.makedirs(self.database)
        calls = self.traced(DRV_PATH=drv)
        if calls is None:
            return
        written = self.last(calls, ("write", "pwrite64"), "nix-queued spool")
        flushed = self.last(calls, ("fsync", "fdatasync"), "/spool/.tmp-")
        renamed = self.last(calls, ("rename", "renameat", "renameat2"),
                            ".entries")
        directory = self.last(calls, ("fsync", "fdatasync"),
                              f"{self.state}/spool>")
        self.assertLess(written, flushed)
        self.assertLess(flushed, renamed)
        self.assertLess(renamed, directory)
        self.assertLess(directory, self.last(calls, ("sendto",), "wake.sock"))

    def test_touches_no_network_and_starts_no_program(self):
        _, drv = self.add_build()
        calls = self.traced(DRV_PATH=drv)
        if calls is None:
            return
        self.assertEqual(sum(name == "execve" for name, _ in calls), 1)
        for name, rest in calls:
            if name == "socket":
                self.assertIn("AF_UNIX", rest)
            self.assertNotEqual(name, "connect")

    def test_few_calls(self):
        """Speed is counted in calls here, since time would be flaky."""
        _, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        daemon = sqlite3.connect(self.database)
        self.addCleanup(daemon.close)
        daemon.execute("SELECT count(*) FROM inbox").fetchall()
        _, drv = self.add_build()
        calls = self.traced(DRV_PATH=drv)
        if calls is not None:
            self.assertLess(len(calls), 200)
            self.assertLessEqual(
                sum(name in ("fsync", "fdatasync") for name, _ in calls), 3)


if __name__ == "__main__":
    unittest.main()
