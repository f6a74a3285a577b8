#!/usr/bin/env python3
"""Whatever hangs, the hook is gone within its second, and lets go of Nix."""

import os
import signal
import subprocess
import sys
import time
import unittest

import hook_world
from hook_world import HookTest, PATIENCE, note

import children  # noqa: E402  (found through hook_world)

LOCK_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
# What a hook says that could not make sure of the roots in time.
LATE_ROOT = (b"queued-hook: no GC root, or not for all: store or roots "
             b"directory did not answer in time\n")


def state_of(pid):
    """The letter that the kernel shows: D, T, Z..., or "" if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii",
                  errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def hooks_with(text):
    """The pids of all hooks whose environment has `text` in it."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if os.readlink(f"/proc/{name}/exe") != os.path.realpath(
                    hook_world.HOOK):
                continue
            with open(f"/proc/{name}/environ", "rb") as file:
                if os.fsencode(text) in file.read():
                    found.append(int(name))
        except OSError:
            continue
    return found


class StoppedWorker(HookTest):
    """SIGSTOP makes a worker hang anywhere, without privileges."""

    def test_worker_that_stops_for_good(self):
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(OUT_PATHS=self.add_path("first")))
        holder = subprocess.Popen(
            [sys.executable, "-c", LOCK_HOLDER, self.database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.finish, holder)
        self.assertEqual(holder.stdout.readline(), b"locked\n")

        # The lock keeps the worker there until it is found and stopped.
        before = time.monotonic()
        process = self.start(variables={"DRV_PATH": drv})
        stopped = []
        while process.poll() is None and not stopped:
            stopped = children.descendants(process.pid)
        if stopped:
            try:
                os.kill(stopped[0], signal.SIGSTOP)
            except ProcessLookupError:
                stopped = []
        out, err = process.communicate(timeout=60)
        self.assertTrue(stopped, "the worker was never seen")
        self.assertEqual((process.returncode, out), (0, b""))
        self.assertIn(err, (b"", LATE_ROOT))
        self.assertLess(time.monotonic() - before, PATIENCE)
        # Stopped before it had read the .drv, it could not tell its outputs.
        self.assertIn(self.spooled(), (
            [("output", output, drv, 1, "hook")],
            [("derivation", drv, "", 1, "hook")]))
        children.wait_until(lambda: state_of(stopped[0]) in ("", "Z"), 30,
                            "the end of the stopped worker")


@unittest.skipUnless(sys.platform == "linux", "fsfreeze(8) is Linux's")
class FrozenFileSystem(HookTest):
    """A frozen file system: whoever writes to it hangs, even when killed."""

    def setUp(self):
        super().setUp()
        self.mounted = None
        self.frozen = False

    def mount(self):
        """An ext4 of its own; False, with a note, where that is not to be."""
        image = os.path.join(self.base, "image")
        place = os.path.join(self.base, "mounted")
        os.mkdir(place)
        with open(image, "wb") as file:
            file.truncate(16 << 20)
        for argv in (["mkfs.ext4", "-q", "-F", image],
                     ["mount", "-o", "loop", image, place]):
            try:
                done = subprocess.run(argv, check=False, capture_output=True,
                                      text=True)
            except FileNotFoundError as error:
                note(f"frozen file systems are not tested here: {error}")
                return False
            if done.returncode != 0:
                note(f"frozen file systems are not tested here: "
                     f"{' '.join(argv)}: {done.stderr.strip()}")
                return False
        self.mounted = place
        self.addCleanup(self.unmount)
        return True

    def unmount(self):
        self.thaw()
        subprocess.run(["umount", "--lazy", self.mounted], check=True)

    def freeze(self):
        done = subprocess.run(["fsfreeze", "--freeze", self.mounted],
                              check=False, capture_output=True, text=True)
        if done.returncode != 0:
            note(f"frozen file systems are not tested here: {done.stderr}")
            return False
        self.frozen = True
        return True

    def thaw(self):
        if self.frozen:
            subprocess.run(["fsfreeze", "--unfreeze", self.mounted],
                           check=True)
            self.frozen = False

    def check_left_behind(self):
        """What hangs holds nothing of Nix's, and ends with the hang."""
        left = hooks_with(self.base)
        self.assertTrue(left, "nothing hung")
        for pid in left:
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
            descriptors = {os.readlink(f"/proc/{pid}/fd/{fd}")
                           for fd in os.listdir(f"/proc/{pid}/fd")}
            foreign = {name for name in descriptors
                       if name != "/dev/null" and
                       not name.startswith((self.base, "pipe:"))}
            self.assertEqual(foreign, set())
            for fd in ("0", "1", "2"):
                self.assertEqual(os.readlink(f"/proc/{pid}/fd/{fd}"),
                                 "/dev/null")
        self.thaw()
        children.wait_until(lambda: not hooks_with(self.base), 60,
                            "the end of what hung")

    def test_state_directory(self):
        if not self.mount():
            return
        self.state = os.path.join(self.mounted, "state")
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(OUT_PATHS=self.add_path("first")))
        if not self.freeze():
            return
        # A worker that hangs keeps no descriptor of ours open.
        read_end, write_end = os.pipe()
        result = self.run_hook(DRV_PATH=drv,
                               options={"pass_fds": (write_end,)})
        os.close(write_end)
        with open(read_end, "rb") as stream:
            self.assertEqual(stream.read(), b"")
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertLess(result.seconds, PATIENCE)
        self.assertEqual(len(result.lines), 2, result)
        self.assertIn("cannot write the queue", result.lines[0])
        self.assertEqual(result.lines[1],
                         f"queued-hook: not queued: {output}")
        self.assert_held(output)
        strict = self.run_hook(DRV_PATH=drv, NIX_QUEUED_STRICT="1")
        self.assertEqual(strict.code, 1)
        self.assertLess(strict.seconds, PATIENCE)
        self.check_left_behind()
        # What was killed may have committed; the file is whole in any case.
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertIn(output, self.paths())

    def test_roots_directory(self):
        if not self.mount():
            return
        output, drv = self.add_build()
        self.nix_state = self.mounted
        self.roots = os.path.join(self.nix_state, "gcroots", "arm-cache")
        self.assert_silent(self.run_hook(OUT_PATHS=self.add_path("first")))
        if not self.freeze():
            return
        result = self.run_hook(DRV_PATH=drv)
        self.assertEqual((result.code, result.out, result.err),
                         (0, "", LATE_ROOT.decode()))
        self.assertLess(result.seconds, PATIENCE)
        self.assertEqual(self.spooled(),
                         [("output", output, drv, 1, "hook")])
        self.check_left_behind()

    def test_store(self):
        """A .drv that cannot be read keeps no named output from its root."""
        if not self.mount():
            return
        self.store = os.path.join(self.mounted, "store")
        os.mkdir(self.store)
        output, drv = self.add_build()
        os.unlink(drv)
        os.mkfifo(drv)
        self.assert_silent(self.run_hook(OUT_PATHS=output, DRV_PATH=drv))
        self.assert_held(output)

    def test_everything(self):
        if not self.mount():
            return
        self.store = os.path.join(self.mounted, "store")
        os.mkdir(self.store)
        self.nix_state = self.mounted
        self.roots = os.path.join(self.nix_state, "gcroots", "arm-cache")
        self.state = os.path.join(self.mounted, "state")
        paths = [self.add_path("lib"), self.add_path("lib-dev")]
        drv = self.add_derivation("lib", list(zip(("out", "dev"), paths)))
        if not self.freeze():
            return
        hooks = [self.start(variables={"DRV_PATH": drv}) for _ in range(8)]
        for process in hooks:
            out, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out), (0, b""))
            for path in paths:
                self.assertIn(f"not queued: {path}", err.decode())
        self.check_left_behind()


if __name__ == "__main__":
    unittest.main()
