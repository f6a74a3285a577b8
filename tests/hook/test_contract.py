#!/usr/bin/env python3
"""What the hook does on a good day, and around the edges of a process."""

import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import time
import unittest

from hook_world import HOOK, HookTest, PATIENCE, note, store_name

import children  # noqa: E402  (found through hook_world)


class Outputs(HookTest):

    def test_output_of_the_derivation_when_out_paths_is_empty(self):
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(self.rows(), [("output", output, drv, 1, "hook")])
        self.assert_held(output)
        self.assertEqual(self.spooled(), [])

    def test_time_of_the_row(self):
        _, drv = self.add_build()
        before = time.time()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        created = self.rows("created_unix_ms")[0][0] / 1000
        self.assertTrue(before - 1 <= created <= time.time() + 1, created)

    def test_out_paths_alone(self):
        paths = [self.add_path("a"), self.add_path("b")]
        self.assert_silent(self.run_hook(OUT_PATHS=" ".join(paths)))
        self.assertEqual(self.rows(), [("output", path, "", 1, "hook")
                                       for path in sorted(paths)])
        self.assert_held(*paths)

    def test_union_says_which_were_named(self):
        out, dev = self.add_path("lib"), self.add_path("lib-dev")
        drv = self.add_derivation("lib", [("dev", dev), ("out", out)])
        self.assert_silent(self.run_hook(DRV_PATH=drv, OUT_PATHS=out))
        self.assertEqual(self.rows(), [("output", out, drv, 1, "hook"),
                                       ("output", dev, drv, 0, "hook")])
        self.assert_held(out, dev)

    def test_all_outputs_are_named_when_out_paths_is_empty(self):
        out, dev = self.add_path("lib"), self.add_path("lib-dev")
        drv = self.add_derivation("lib", [("dev", dev), ("out", out)])
        self.assert_silent(self.run_hook(DRV_PATH=drv, OUT_PATHS="  "))
        self.assertEqual({row[3] for row in self.rows()}, {1})
        self.assertEqual(self.paths(), sorted([out, dev]))

    def test_outputs_that_are_not_there_are_left_out(self):
        out = self.add_path("lib")
        missing = os.path.join(self.store, "0" * 32 + "-lib-dev")
        drv = self.add_derivation("lib", [("dev", missing), ("out", out)])
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(self.paths(), [out])

    def test_duplicates_are_one(self):
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(
            DRV_PATH=drv, OUT_PATHS=f"{output} {output}  {output}"))
        self.assertEqual(self.paths(), [output])

    def test_derivation_without_static_outputs(self):
        drv = self.add_derivation("ca", [("out", "")])
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(self.rows(), [("derivation", drv, "", 1, "hook")])

    def test_dynamic_outputs_that_out_paths_covers(self):
        out, dev = self.add_path("ca"), self.add_path("ca-dev")
        drv = self.add_derivation("ca", [("dev", ""), ("out", "")])
        self.assert_silent(self.run_hook(DRV_PATH=drv,
                                         OUT_PATHS=f"{out} {dev}"))
        self.assertEqual({row[0] for row in self.rows()}, {"output"})
        self.assertEqual(self.paths(), sorted([out, dev]))

    def test_dynamic_outputs_that_out_paths_covers_in_part(self):
        out = self.add_path("ca")
        drv = self.add_derivation("ca", [("dev", ""), ("out", "")])
        self.assert_silent(self.run_hook(DRV_PATH=drv, OUT_PATHS=out))
        self.assertEqual(self.rows(), [("output", out, drv, 1, "hook"),
                                       ("derivation", drv, "", 0, "hook")])

    def test_derivation_that_cannot_be_read_is_the_daemons_to_ask(self):
        drv = os.path.join(self.store, "0" * 32 + "-gone.drv")
        garbage = self.add_derivation("garbage", [])
        with open(garbage, "wb") as file:
            file.write(b"Derive([(\"out\"" + bytes(range(256)))
        fifo = os.path.join(self.store, "1" * 32 + "-fifo.drv")
        os.mkfifo(fifo)
        for path in (drv, garbage, fifo):
            self.assert_silent(self.run_hook(DRV_PATH=path))
        self.assertEqual(self.rows("kind, path"), [
            ("derivation", drv), ("derivation", garbage),
            ("derivation", fifo)])

    def test_real_store_elsewhere(self):
        output, drv = self.add_build()
        elsewhere = os.path.join(self.base, "elsewhere")
        os.rename(self.store, elsewhere)
        self.assert_silent(self.run_hook(
            DRV_PATH=drv, NIX_QUEUED_REAL_STORE_DIR=elsewhere))
        self.assertEqual(self.rows("kind, path"), [("output", output)])
        self.assert_held(output)

    def test_many_outputs_are_one_transaction(self):
        paths = [self.add_path(f"p{n}") for n in range(60)]
        self.assert_silent(self.run_hook(OUT_PATHS=" ".join(paths)))
        self.assertEqual(self.paths(), sorted(paths))
        self.assert_held(*paths)

    def test_as_many_outputs_as_fit_into_the_environment(self):
        paths = [self.add_path("p") for _ in range(1500)]
        result = self.run_hook(OUT_PATHS=" ".join(paths))
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertLess(result.seconds, PATIENCE)
        kept = self.paths() if os.path.exists(self.database) else []
        self.assertEqual(sorted({*kept, *self.spooled_paths()}),
                         sorted(paths))
        # Roots have their share of the time; those that miss it are counted.
        made = len(os.listdir(self.roots))
        if made < len(paths):
            self.assertIn(f"no GC root for {len(paths) - made} paths",
                          result.err)


class Places(HookTest):

    def test_default_roots_directory(self):
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(os.listdir(os.path.join(
            self.nix_state, "gcroots", "arm-cache")),
            [os.path.basename(output)])

    def test_roots_directory_of_ones_own(self):
        output, drv = self.add_build()
        roots = os.path.join(self.base, "my", "roots")
        self.assert_silent(self.run_hook(DRV_PATH=drv,
                                         NIX_QUEUED_ROOTS_DIR=roots))
        self.assertEqual(os.listdir(roots), [os.path.basename(output)])
        self.assertFalse(os.path.exists(self.nix_state))

    def test_nix_store_variable(self):
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv, NIX_STORE_DIR=None,
                                         NIX_STORE=self.store))
        self.assertEqual(self.paths(), [output])

    def test_missing_state_directory_is_made(self):
        _, drv = self.add_build()
        self.state = os.path.join(self.base, "a", "b", "c")
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(len(self.rows()), 1)

    def test_very_long_state_directory(self):
        output, drv = self.add_build()
        self.state = os.path.join(self.base, "d" * 100, "e" * 100)
        os.makedirs(self.state)
        with self.receiver() as receiver:
            self.assert_silent(self.run_hook(DRV_PATH=drv))
            receiver.settimeout(30)
            self.assertLessEqual(len(receiver.recv(100)), 1)
        self.assertEqual(self.paths(), [output])

    def receiver(self):
        """The daemon's end of the wake-up, whatever the name's length."""
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        before = os.getcwd()
        os.chdir(self.state)
        try:
            receiver.bind("wake.sock")
        finally:
            os.chdir(before)
        return receiver

    def test_wake_socket_that_is_full(self):
        _, drv = self.add_build()
        os.mkdir(self.state)
        with self.receiver() as receiver, socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(os.path.join(self.state, "wake.sock"))
            with self.assertRaises(BlockingIOError):
                while True:
                    sender.send(b"x")
            self.assert_silent(self.run_hook(DRV_PATH=drv))
            self.assertEqual(len(self.rows()), 1)
            self.assertIsNotNone(receiver)

    def test_wake_socket_of_a_dead_daemon_or_none_at_all(self):
        _, drv = self.add_build()
        os.mkdir(self.state)
        self.receiver().close()  # its name stays
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        wake = os.path.join(self.state, "wake.sock")
        os.unlink(wake)
        os.mkfifo(wake)
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        os.unlink(wake)
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(len(self.rows()), 3)

    def test_ordinary_users_directories(self):
        _, drv = self.add_build()
        home = os.path.join(self.base, "home")
        os.mkdir(home)
        options = {}
        if os.geteuid() == 0:
            os.chown(home, 65534, 65534)
            roots = os.path.join(self.base, "roots")
            os.mkdir(roots)
            os.chown(roots, 65534, 65534)
            options = {"user": 65534, "group": 65534, "extra_groups": []}
        for variables, state in (
                ({"HOME": home}, f"{home}/.local/state/nix-queued"),
                ({"HOME": home, "XDG_STATE_HOME": f"{home}/xdg"},
                 f"{home}/xdg/nix-queued"),
                ({"HOME": home, "XDG_STATE_HOME": "relative"},
                 f"{home}/.local/state/nix-queued")):
            self.assert_silent(self.run_hook(
                DRV_PATH=drv, NIX_QUEUED_STATE_DIR=None, options=options,
                NIX_QUEUED_ROOTS_DIR=os.path.join(self.base, "roots"),
                **variables))
            self.assertTrue(os.path.isfile(f"{state}/queue.db"), state)

    def test_no_state_directory_to_be_had(self):
        output, drv = self.add_build()
        options = {}
        if os.geteuid() == 0:
            options = {"user": 65534, "group": 65534, "extra_groups": []}
        result = self.run_hook(DRV_PATH=drv, OUT_PATHS=output,
                               NIX_QUEUED_STATE_DIR=None, HOME=None,
                               options=options)
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertIn("set NIX_QUEUED_STATE_DIR or HOME", result.err)
        self.assertIn(output, result.err)

    def test_relative_directories_are_refused(self):
        _, drv = self.add_build()
        for variable in ("NIX_QUEUED_STATE_DIR", "NIX_STORE_DIR"):
            result = self.run_hook(DRV_PATH=drv, OUT_PATHS="/a /b",
                                   **{variable: "some/where"})
            self.assertEqual((result.code, result.out), (0, ""), variable)
            self.assertEqual(
                result.lines[1:],
                ["queued-hook: not queued: /a", "queued-hook: not queued: /b",
                 f"queued-hook: not queued: the outputs of {drv}"])
        self.assertFalse(os.path.exists(self.state))

    def test_relative_directories_that_only_roots_need(self):
        """The path is queued all the same, and the rest said."""
        output, drv = self.add_build()
        for variable, what in (
                ("NIX_QUEUED_ROOTS_DIR", "no GC root is made"),
                ("NIX_STATE_DIR", "no GC root is made"),
                ("NIX_QUEUED_REAL_STORE_DIR",
                 "the store directory is looked at instead")):
            result = self.run_hook(DRV_PATH=drv, **{variable: "some/where"})
            self.assertEqual((result.code, result.out), (0, ""), variable)
            self.assertEqual(result.lines, [
                f"queued-hook: {variable} is not an absolute path: "
                f"some/where; {what}"])
        self.assertEqual(self.paths(), [output] * 3)


class Builders(HookTest):
    """Builds for other machines, whose .drv is not in the store."""

    def setUp(self):
        super().setUp()
        self.named = self.add_path("lib")
        self.other = self.add_path("lib-dev")
        self.drv = os.path.join(self.store, store_name("lib.drv"))
        self.nix_database = os.path.join(self.nix_state, "db", "db.sqlite")
        os.makedirs(os.path.dirname(self.nix_database))
        connection = sqlite3.connect(self.nix_database)
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("CREATE TABLE ValidPaths (id INTEGER PRIMARY "
                               "KEY, path TEXT, deriver TEXT)")
            connection.executemany(
                "INSERT INTO ValidPaths (path, deriver) VALUES (?, ?)",
                [(self.named, self.drv), (self.other, self.drv)])
        connection.close()

    def kinds(self):
        self.assert_silent(self.run_hook(DRV_PATH=self.drv,
                                         OUT_PATHS=self.named))
        return sorted((row[0], row[1]) for row in self.rows())

    def test_all_that_nix_has_registered(self):
        self.assertEqual(self.kinds(), sorted([("output", self.named),
                                               ("output", self.other)]))
        self.assert_held(self.named, self.other)

    def test_database_that_cannot_be_asked(self):
        """Then the daemon has to ask, or a person can see that nobody did."""
        connection = sqlite3.connect(self.nix_database, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("CREATE TABLE busy (x)")
        self.assertEqual(self.kinds(), [("derivation", self.drv),
                                        ("output", self.named)])


class OtherStores(HookTest):
    """What Nix has put into another store is not this queue's."""

    def check(self, setting, others, **variables):
        output, drv = self.add_build()
        result = self.run_hook(
            DRV_PATH=drv, OUT_PATHS=output,
            NIX_CONFIG=f"cores = 0\nstore = {setting}\nsystem = x\n",
            **variables)
        if others:
            self.assertEqual((result.code, result.lines), (0, [
                "queued-hook: not queued: built in another store than this "
                f"queue is for: {setting}"]))
            self.assertFalse(os.path.exists(self.state))
            self.assertFalse(os.path.exists(self.root(output)))
        else:
            self.assert_silent(result)
            self.assertIn(output, self.paths())

    def test_elsewhere(self):
        for setting in ("local?root=/mnt", "/mnt", "/mnt/", "local:///mnt",
                        "local://?root=/mnt", "auto?root=/mnt",
                        "local-overlay:///mnt?lower-store=x",
                        "local?state=/other/state", "local?real=/other",
                        "local?require-sigs=false&root=/mnt",
                        "local?store=/gnu/store"):
            self.check(setting, others=True)

    def test_this_one(self):
        for setting in ("auto", "daemon", "local", "local?require-sigs=false",
                        "unix:///nix/var/nix/daemon-socket/socket", "",
                        "unix:///x/socket?root=/hostfs", "daemon?root=/x",
                        "ssh-ng://host", "local://", "local:///", "/",
                        f"local?state={self.nix_state}/&real={self.store}",
                        f"local?store={self.store}"):
            self.check(setting, others=False)

    def test_queue_that_is_for_it(self):
        mounted = os.path.join(self.base, "mnt")
        real = os.path.join(mounted, self.store.lstrip("/"))
        os.makedirs(os.path.dirname(real))
        os.symlink(self.store, real)
        self.nix_state = os.path.join(mounted, "nix/var/nix")
        self.roots = os.path.join(self.nix_state, "gcroots", "arm-cache")
        self.check(f"local?root={mounted}", others=False,
                   NIX_QUEUED_REAL_STORE_DIR=real)


class Process(HookTest):

    def test_no_arguments(self):
        _, drv = self.add_build()
        result = self.run_hook("--frobnicate", DRV_PATH=drv)
        self.assertEqual((result.code, result.out, len(result.lines)),
                         (0, "", 1), result)
        result = self.run_hook("x", "y", NIX_QUEUED_STRICT="1")
        self.assertEqual((result.code, len(result.lines)), (1, 1), result)
        self.assertFalse(os.path.exists(self.state))

    def test_help_and_version(self):
        result = self.run_hook("--help")
        self.assertEqual((result.code, result.err), (0, ""))
        self.assertIn("post-build-hook", result.out)
        result = self.run_hook("--version")
        self.assertEqual((result.code, result.err), (0, ""))
        self.assertRegex(result.out, r"\Aqueued-hook \d+\.\d+\.\d+\n\Z")

    def test_nothing_to_do_is_said(self):
        for variables in ({}, {"DRV_PATH": ""}, {"OUT_PATHS": None}):
            result = self.run_hook(**variables)
            self.assertEqual((result.code, result.out, len(result.lines)),
                             (0, "", 1), result)
        self.assertEqual(self.run_hook(NIX_QUEUED_STRICT="1").code, 1)

    def test_strict_is_no_stricter_when_all_is_well(self):
        _, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv, NIX_QUEUED_STRICT="1"))

    def test_leaves_no_child(self):
        _, drv = self.add_build()
        # Orphans of the shell's session become this script's children.
        script = ('import ctypes, os, subprocess, sys\n'
                  'ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n'
                  'code = subprocess.run(sys.argv[1:]).returncode\n'
                  'try:\n'
                  '    print("left", os.waitpid(-1, 0))\n'
                  'except ChildProcessError:\n'
                  '    print("none")\n'
                  'sys.exit(code)\n')
        for _ in range(20):
            result = self.run_hook(DRV_PATH=drv,
                                   prefix=("python3", "-c", script))
            self.assertEqual((result.code, result.out, result.err),
                             (0, "none\n", ""))

    def test_closed_standard_streams(self):
        _, drv = self.add_build()
        for streams in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- 2>&-"):
            result = self.run_hook(
                DRV_PATH=drv, prefix=("sh", "-c", f'exec "$0" {streams}'))
            self.assert_silent(result)
        self.assertEqual(len(self.rows()), 5)
        self.assertEqual(self.spooled(), [])

    def test_inherited_descriptors_do_no_harm(self):
        _, drv = self.add_build()
        read_end, write_end = os.pipe()
        try:
            self.assert_silent(self.run_hook(
                DRV_PATH=drv, options={"pass_fds": (write_end,)}))
        finally:
            os.close(write_end)
        with open(read_end, "rb") as stream:
            self.assertEqual(stream.read(), b"")
        self.assertEqual(len(self.rows()), 1)

    def test_signals_that_were_blocked_or_ignored(self):
        _, drv = self.add_build()
        script = ('import os, signal, sys\n'
                  'for number in (signal.SIGCHLD, signal.SIGALRM,\n'
                  '               signal.SIGPIPE, signal.SIGTERM):\n'
                  '    signal.signal(number, signal.SIG_IGN)\n'
                  'signal.pthread_sigmask(signal.SIG_BLOCK,\n'
                  '                       signal.valid_signals())\n'
                  'os.execv(sys.argv[1], sys.argv[1:])\n')
        self.assert_silent(self.run_hook(
            DRV_PATH=drv, prefix=("python3", "-c", script)))
        self.assertEqual(len(self.rows()), 1)

    def test_umask_does_not_matter(self):
        for mask in ("0", "077", "0777"):
            output, drv = self.add_build()
            self.state = os.path.join(self.base, f"state{mask}")
            self.nix_state = os.path.join(self.base, f"var{mask}")
            self.roots = os.path.join(self.nix_state, "gcroots", "arm-cache")
            self.assert_silent(self.run_hook(DRV_PATH=drv, prefix=(
                "sh", "-c", f'umask {mask}; exec "$0"')))
            self.assertEqual(self.paths(), [output])
            self.assertEqual(
                stat.S_IMODE(os.stat(self.roots).st_mode), 0o755)
            self.assertEqual(os.stat(self.database).st_mode & 0o007, 0)

    def test_nobody_reads_standard_error(self):
        output = self.add_path()
        read_end, write_end = os.pipe()
        try:
            os.set_blocking(write_end, False)
            with self.assertRaises(BlockingIOError):
                while True:
                    os.write(write_end, b"x" * 4096)
            os.set_blocking(write_end, True)
            result = self.run_hook(OUT_PATHS=f"bad {output}",
                                   options={"stderr": write_end})
            self.assertEqual(result.code, 0)
            self.assertLess(result.seconds, PATIENCE)
        finally:
            os.close(read_end)
            os.close(write_end)
        self.assertEqual(self.paths(), [output])
        self.assert_held(output)

    def test_standard_error_that_is_gone(self):
        output = self.add_path()
        read_end, write_end = os.pipe()
        os.close(read_end)
        try:
            result = self.run_hook(OUT_PATHS=f"bad {output}",
                                   options={"stderr": write_end})
        finally:
            os.close(write_end)
        self.assertEqual(result.code, 0)
        self.assertEqual(self.paths(), [output])

    def test_no_process_to_be_had(self):
        if os.geteuid() != 0 or not shutil.which("prlimit"):
            note("a limit on processes is not tested: needs root, prlimit")
            return
        output, drv = self.add_build()
        for place in (self.state, self.roots):
            os.makedirs(place)
            os.chown(place, 65534, 65534)
        self.assert_silent(self.run_hook(
            DRV_PATH=drv, prefix=("prlimit", "--nproc=1", "--"),
            options={"user": 65534, "group": 65534, "extra_groups": []}))
        self.assertEqual(self.paths(), [output])
        self.assert_held(output)

    def test_out_of_memory_fails_no_build(self):
        """Whatever it got to, it neither aborts nor says that it did well."""
        if os.environ.get("NIXQ_SANITIZE") or not shutil.which("prlimit"):
            note("limits on memory are not tested: sanitizers need more, and "
                 "prlimit sets them")
            return
        _, drv = self.add_build()
        codes = []
        for limit in range(4_000_000, 7_000_000, 150_000):
            codes.append(self.run_hook(
                DRV_PATH=drv, OUT_PATHS=" ".join(
                    os.path.join(self.store, store_name("x"))
                    for _ in range(800)),
                prefix=("prlimit", f"--as={limit}", "--")).code)
        # Kernel and C library end what does not even fit in, before it is us.
        started = [code for code in codes if code not in (-11, 127)]
        self.assertEqual(set(started), {0}, codes)
        self.assertGreater(len(started), 5, codes)

    def test_interrupted_build(self):
        """Ctrl-C reaches the whole process group of a single user's build;
        what was built is queued all the same."""
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(OUT_PATHS=self.add_path("first")))
        connection = sqlite3.connect(self.database, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute("BEGIN IMMEDIATE")
        process = self.start(variables={"DRV_PATH": drv},
                             start_new_session=True)
        children.wait_until(lambda: os.path.islink(self.root(output)), 60,
                            "the root, which comes before the lock")
        workers = children.descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, -signal.SIGINT)
        self.assertTrue(workers)
        connection.execute("ROLLBACK")
        children.wait_until(
            lambda: output in self.paths() + self.spooled_paths(), 60,
            "the path in the queue")

    def test_limit_on_the_size_of_files(self):
        output, drv = self.add_build()
        if not shutil.which("prlimit"):
            note("a limit on the size of files is not tested: no prlimit")
            return
        result = self.run_hook(
            DRV_PATH=drv, prefix=("prlimit", "--fsize=4096", "--"))
        self.assert_silent(result)  # a spool file is small enough
        self.assertEqual(self.spooled_paths(), [output])
        if "thread" in os.environ.get("NIXQ_SANITIZE", ""):
            note("no file at all is not tested: the thread sanitizer itself "
                 "wants to write one before the hook begins")
            return
        result = self.run_hook(
            DRV_PATH=drv, prefix=("prlimit", "--fsize=0", "--"))
        self.assertEqual((result.code, len(result.lines)), (0, 2), result)
        self.assertIn(f"not queued: {output}", result.err)

    def test_is_static(self):
        if os.environ.get("NIXQ_HOOK_IS_STATIC") not in ("1", "ON", "TRUE"):
            note("this build of the hook is not static")
            return
        headers = subprocess.run(["readelf", "-lW", HOOK], check=False,
                                 capture_output=True, text=True)
        if headers.returncode != 0:
            note(f"readelf does not work here: {headers.stderr}")
            return
        self.assertNotIn("INTERP", headers.stdout)


if __name__ == "__main__":
    unittest.main()
