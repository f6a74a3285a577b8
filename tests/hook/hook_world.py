"""A store of plain files, a queue and a roots directory for one hook test."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = os.environ.get("NIXQ_SOURCE", os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
# pylint: disable=wrong-import-position
from children import SLOWNESS  # noqa: E402

HOOK = os.path.join(os.environ.get("NIXQ_BIN", ""), "queued-hook")
NIX32 = "0123456789abcdfghijklmnpqrsvwxyz"
NOBODY = 65534
# The hook promises 1 s. A test fails when it takes so much longer that no
# busy machine explains it.
PATIENCE = 5 * SLOWNESS


def note(text):
    """For what this machine cannot do: said, never silent."""
    print(f"\nNOTE: {text}", file=sys.stderr, flush=True)


def store_name(name):
    digest = "".join(random.choice(NIX32) for _ in range(32))
    return f"{digest}-{name}"


class Result:
    """What one run of the hook did."""

    def __init__(self, code, out, err, seconds):
        self.code = code
        self.out = out
        self.err = err
        self.seconds = seconds
        self.lines = err.splitlines()

    def __repr__(self):
        return f"exit {self.code}, {self.seconds:.3f} s: {self.out}{self.err}"


class HookTest(unittest.TestCase):
    """Makes the places, runs the hook, reads what it kept."""

    maxDiff = None

    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="nixq-hook-")
        # Other users' tests walk through it.
        os.chmod(self.base, 0o755)
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.store = os.path.join(self.base, "store")
        self.state = os.path.join(self.base, "state")
        self.nix_state = os.path.join(self.base, "var")
        self.roots = os.path.join(self.nix_state, "gcroots", "arm-cache")
        os.mkdir(self.store)

    # --- A build that has just happened ------------------------------------

    def add_path(self, name="hello"):
        path = os.path.join(self.store, store_name(name))
        with open(path, "w", encoding="ascii") as file:
            file.write(name)
        return path

    def add_derivation(self, name, outputs):
        """`outputs` are (name, path) pairs; "" for what is not static."""
        path = os.path.join(self.store, store_name(f"{name}.drv"))
        listed = ",".join(
            f'("{output}","{where}","{"" if where else "r:sha256"}","")'
            for output, where in outputs)
        with open(path, "w", encoding="ascii") as file:
            file.write(f'Derive([{listed}],[],[],"x86_64-linux","/bin/sh",'
                       '["-c","true"],[("name","' + name + '")])')
        return path

    def add_build(self, name="hello"):
        """One output and its derivation."""
        output = self.add_path(name)
        return output, self.add_derivation(name, [("out", output)])

    # --- Running -----------------------------------------------------------

    def environment(self, **variables):
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "NIX_STORE_DIR": self.store,
            "NIX_STATE_DIR": self.nix_state,
            "NIX_QUEUED_STATE_DIR": self.state,
            "OUT_PATHS": "",
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        environment.update(variables)
        return {name: value for name, value in environment.items()
                if value is not None}

    def start(self, arguments=(), prefix=(), variables=None, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        options.setdefault("cwd", "/")
        process = subprocess.Popen(
            [*prefix, self.program(options), *arguments],
            env=self.environment(**(variables or {})), **options)
        self.addCleanup(self.finish, process)
        return process

    def program(self, options):
        """The hook, for another user where that one can get at it."""
        if "user" not in options:
            return HOOK
        copy = os.path.join(self.base, "queued-hook")
        if not os.path.exists(copy):
            shutil.copy(HOOK, copy)
        return copy

    @staticmethod
    def finish(process):
        """For cleaning up: it is gone after, and so are its pipes."""
        if process.poll() is None:
            process.kill()
        process.wait(30)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    def run_hook(self, *arguments, prefix=(), options=None, **variables):
        """Runs it as Nix does: until end of file on its output, then wait."""
        before = time.monotonic()
        process = self.start(arguments, prefix, variables, **(options or {}))
        out, err = process.communicate(timeout=60 * SLOWNESS)
        return Result(process.returncode, (out or b"").decode(),
                      (err or b"").decode(), time.monotonic() - before)

    # --- What was kept -----------------------------------------------------

    @property
    def database(self):
        return os.path.join(self.state, "queue.db")

    def rows(self, columns="kind, path, deriver, named, source"):
        connection = sqlite3.connect(self.database, timeout=30)
        try:
            return connection.execute(
                f"SELECT {columns} FROM inbox ORDER BY id").fetchall()
        finally:
            connection.close()

    def paths(self):
        return sorted(path for (path,) in self.rows("path"))

    def spooled(self):
        """(kind, path, deriver, named, source) of all spool files, each once:
        on a busy machine both workers may have left one."""
        directory = os.path.join(self.state, "spool")
        entries = []
        for name in sorted(os.listdir(directory)
                           if os.path.isdir(directory) else []):
            if name.startswith(".tmp-"):
                continue  # of a worker that was killed; not whole
            with open(os.path.join(directory, name), encoding="ascii") as file:
                lines = file.read().split("\n")
            self.assertEqual(lines[0], "nix-queued spool 1")
            self.assertEqual(lines[-2:], ["end", ""])
            for line in lines[1:-2]:
                kind, path, deriver, named, source, _ = line.split("\t")
                entries.append((kind, path, deriver, int(named), source))
        return list(dict.fromkeys(entries))

    def spooled_paths(self):
        return sorted(entry[1] for entry in self.spooled())

    def root(self, path):
        return os.path.join(self.roots, os.path.basename(path))

    # --- What is promised --------------------------------------------------

    def assert_silent(self, result):
        """Exit 0, no output, in time."""
        self.assertEqual((result.code, result.out, result.err), (0, "", ""))
        self.assertLess(result.seconds, PATIENCE)

    def assert_held(self, *paths):
        for path in paths:
            self.assertEqual(os.readlink(self.root(path)), path)
