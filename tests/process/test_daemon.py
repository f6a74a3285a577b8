"""The daemon as a process: starting, stopping, signals, systemd."""

import ctypes
import copy
import glob
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import cache_server
import children
import private_nix
import queued
import world


def hang_on_nars(request):
    if request.method == "PUT" and request.key.startswith("nar/"):
        return cache_server.Fault("hang")
    return None


NOBODY = 65534
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WAIT_FOR_THREADS = 0x40000000  # __WALL


def stop_workers(pid):
    """Stops all threads of a process but its main one, as a disk would that
    does not answer. Returns what lets their ends be seen, once there are."""
    threads = []
    libc = ctypes.CDLL(None, use_errno=True)
    for name in os.listdir(f"/proc/{pid}/task"):
        thread = int(name)
        if thread == pid:
            continue
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            if libc.ptrace(request, thread, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "ptrace")
        os.waitpid(thread, WAIT_FOR_THREADS)
        threads.append(thread)

    def reap():
        for thread in threads:
            os.waitpid(thread, WAIT_FOR_THREADS)
    return reap


class Stopping(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.server = self.make_cache_server()
        # A delay that no other wait in here comes near.
        self.queue = self.make_queue(
            [{"name": "http", "url": self.server.url}],
            {"retry": {"min-delay": "1s", "max-delay": "1s"}})

    def build_and_wait_until_it_hangs(self):
        self.server.fault = hang_on_nars
        paths = self.nix.build(private_nix.chain("hanging", 3, self.salt))
        self.wait_until(lambda: self.server.hanging, "an upload that hangs",
                        detail=self.queue.log_tail)
        return paths

    def test_sigterm_while_a_server_hangs(self):
        paths = self.build_and_wait_until_it_hangs()
        code, seconds = self.queue.stop()
        self.assertEqual(0, code)
        self.assertLess(seconds, 2 * children.SLOWNESS)
        for job in self.queue.jobs():
            with self.subTest(path=job["path"]):
                self.assertEqual("queued", job["state"])
                self.assertEqual(0, job["attempts"], "a stop is no attempt")
                self.assertLessEqual(job["next_attempt_unix_ms"],
                                     job["changed_unix_ms"], "due at once")
        self.server.fault = lambda request: None
        self.queue.start()
        self.queue.wait()
        self.assert_whole(self.server.cache, self.nix.closure(paths))
        self.assertEqual([], self.server.violations)

    def lock(self):
        """A person's transaction; returns what ends it."""
        database = sqlite3.connect(
            os.path.join(self.queue.state_dir, "queue.db"),
            isolation_level=None)
        self.addCleanup(database.close)
        database.execute("BEGIN IMMEDIATE")
        return lambda: database.execute("ROLLBACK")

    def test_sigterm_while_somebody_locks_the_queue(self):
        self.build_and_wait_until_it_hangs()
        unlock = self.lock()
        code, seconds = self.queue.stop()
        self.assertEqual(0, code)
        self.assertLess(seconds, 4 * children.SLOWNESS)
        unlock()

    def test_a_lock_is_waited_for(self):
        """A second, that is, and not until the next minute's look."""
        unlock = self.lock()
        paths = self.nix.build(private_nix.derivation(
            "while-locked", f"echo {self.salt} > $out"))
        self.wait_until(lambda: "locked" in self.queue.log(),
                        "the daemon to run into the lock",
                        detail=self.queue.log_tail)
        unlock()
        self.wait_until(lambda: self.server.cache.has(paths[0]), "the upload",
                        30, detail=self.queue.log_tail)

    def test_a_queue_that_was_removed(self):
        self.nix.build(private_nix.derivation(
            "before", f"echo {self.salt} > $out"))
        self.queue.wait()
        for file in glob.glob(os.path.join(self.queue.state_dir, "queue.db*")):
            os.unlink(file)
        paths = self.nix.build(private_nix.derivation(
            "after", f"echo {self.salt} > $out"))
        self.wait_until(lambda: self.server.cache.has(paths[0]),
                        "what the hook wrote to a new file",
                        detail=self.queue.log_tail)
        self.assertIn("queue-replaced", self.queue.log())
        self.queue.wait()

    def test_a_new_start_is_a_new_chance(self):
        self.queue.stop()
        paths = self.nix.build(private_nix.derivation(
            "x", f"echo {self.salt} > $out"))
        with sqlite3.connect(os.path.join(self.queue.state_dir,
                                          "queue.db")) as database:
            database.execute(
                "UPDATE targets SET health = 'unreachable', failures = 9, "
                "retry_unix_ms = 1000 * strftime('%s', '2040-01-01')")
        database.close()
        self.queue.start()
        self.queue.wait()
        self.assert_whole(self.server.cache, paths)

    def test_sigint_stops_too(self):
        self.queue.process.signal(signal.SIGINT)
        self.assertEqual(0, self.queue.process.wait(10))

    def test_sigkill_while_a_server_hangs(self):
        paths = self.build_and_wait_until_it_hangs()
        self.queue.kill()
        self.assertIn("sending", [job["state"] for job in self.queue.jobs()])
        self.server.wait_idle()
        self.server.fault = lambda request: None
        self.queue.start()
        # Not only when the dead daemon's leases have run out.
        self.queue.wait()
        self.assert_whole(self.server.cache, self.nix.closure(paths))
        self.assertEqual([], self.server.violations)

    def test_only_one_for_each_state_directory(self):
        result = subprocess.run(
            [os.path.join(queued.BIN, "queued"), "--config",
             self.queue.config_file], env=self.queue.environment,
            capture_output=True, text=True, timeout=60 * children.SLOWNESS,
            check=False)
        self.assertEqual(1, result.returncode, result.stderr)
        self.assertIn(self.queue.state_dir, result.stderr)
        paths = self.nix.build(private_nix.derivation(
            "after", f"echo {self.salt} > $out"))
        self.queue.wait()
        self.assert_whole(self.server.cache, paths)

    def test_it_survives_the_nix_daemon(self):
        before = self.nix.build(private_nix.derivation(
            "before", f"echo {self.salt} > $out"))
        self.queue.wait()
        self.nix.stop_daemon()
        self.nix.start_daemon()
        after = self.nix.build(private_nix.derivation(
            "after", f"echo {self.salt} > $out"))
        self.queue.wait()
        self.assert_whole(self.server.cache, before + after)


class Reloading(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.first = binary_cache.BinaryCache(os.path.join(self.base, "one"))
        self.second = binary_cache.BinaryCache(os.path.join(self.base, "two"))
        self.queue = self.make_queue(
            [{"name": "one", "url": "file://" + self.first.directory}])

    def build(self, name):
        return self.nix.build(private_nix.derivation(
            name, f"echo {name} {self.salt} > $out"))

    def test_a_good_configuration_is_taken(self):
        before = self.build("before")
        self.queue.wait()
        self.queue.tables["target"].append(
            {"name": "two", "url": "file://" + self.second.directory})
        self.queue.write_config()
        self.queue.reload()
        self.queue.wait_for_rows("SELECT 1 FROM targets WHERE name = 'two'",
                                 "the new target's row")
        after = self.build("after")
        self.wait_until(lambda: self.second.has(after[0]),
                        "the path at the new target",
                        detail=self.queue.log_tail)
        self.queue.wait()
        self.assert_whole(self.first, before + after)
        self.assert_whole(self.second, after)
        self.assertTrue(self.queue.running())

    def test_a_bad_one_is_refused_and_the_old_one_stays(self):
        self.queue.write_config("[[target]]\nurl = \"file:///x\"\nurll = 1\n")
        self.queue.reload()
        self.wait_until(
            lambda: f"{self.queue.config_file}:3:" in self.queue.log(),
            "the log to say where the mistake is",
            detail=self.queue.log_tail)
        paths = self.build("meanwhile")
        self.wait_until(lambda: self.first.has(paths[0]),
                        "an upload by the old configuration",
                        detail=self.queue.log_tail)
        self.queue.write_config()
        self.queue.wait()
        self.assert_whole(self.first, paths)

    def test_a_group_that_does_not_exist_is_refused(self):
        self.queue.tables[""]["reader-group"] = "no-such-group"
        self.queue.write_config()
        self.queue.reload()
        self.wait_until(lambda: "reload-refused" in self.queue.log(),
                        "the refusal", detail=self.queue.log_tail)
        paths = self.build("meanwhile")
        self.wait_until(lambda: self.first.has(paths[0]), "the upload",
                        detail=self.queue.log_tail)

    def test_the_same_configuration_aborts_nothing(self):
        server = self.make_cache_server(fault=hang_on_nars)
        self.queue.tables["target"] = [{"name": "h", "url": server.url}]
        self.queue.write_config()
        self.queue.reload()
        self.build("hangs")
        self.wait_until(lambda: server.hanging, "an upload that hangs",
                        detail=self.queue.log_tail)
        self.queue.reload()
        self.wait_until(lambda: "reload-unchanged" in self.queue.log(),
                        "the reload", detail=self.queue.log_tail)
        self.wait_until(
            lambda: self.queue.read_notices()[-1] != "RELOADING=1",
            "the end of the reload")
        self.assertEqual(1, server.hanging)
        self.assertEqual(1, server.count("PUT", "nar/"))

    def test_a_lock_at_the_wrong_moment_is_waited_for(self):
        database = sqlite3.connect(
            os.path.join(self.queue.state_dir, "queue.db"),
            isolation_level=None)
        self.addCleanup(database.close)
        database.execute("BEGIN IMMEDIATE")
        self.queue.tables["target"] = [
            {"name": "two", "url": "file://" + self.second.directory}]
        self.queue.write_config()
        self.queue.reload()
        self.wait_until(lambda: "start-failed" in self.queue.log(),
                        "the start that fails", detail=self.queue.log_tail)
        # What a running daemon would not take up is refused here too.
        tables = copy.deepcopy(self.queue.tables)
        self.queue.tables[""]["reader-group"] = "no-such-group"
        self.queue.write_config()
        self.queue.reload()
        self.wait_until(lambda: "reload-refused" in self.queue.log(),
                        "a group that is not there to be refused",
                        detail=self.queue.log_tail)
        self.queue.tables = tables
        self.queue.write_config()
        database.execute("ROLLBACK")
        paths = self.build("later")
        self.wait_until(lambda: self.second.has(paths[0]),
                        "an upload by the new configuration",
                        detail=self.queue.log_tail)

    def test_what_does_not_start_gives_way_to_what_did(self):
        """The group is there, but the daemon is no member of it."""
        self.queue.stop()
        os.chmod(self.base, 0o755)
        os.makedirs(self.first.directory, exist_ok=True)
        for directory in (self.queue.state_dir, self.nix.roots_dir,
                          self.first.directory):
            for place, _, files in os.walk(directory):
                for name in [place] + [os.path.join(place, file)
                                       for file in files]:
                    os.chown(name, NOBODY, NOBODY, follow_symlinks=False)
        os.chown(self.secret_key, NOBODY, NOBODY)
        starts = self.queue.log().count("ready version=")
        # Its notices are for root.
        self.queue.start(wait=False, wrapper=[
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}",
            "--clear-groups"])
        self.wait_until(lambda: self.queue.log().count("ready version=")
                        > starts, "the daemon", detail=self.queue.log_tail)
        self.queue.tables[""]["reader-group"] = "root"
        self.queue.write_config()
        self.queue.reload()
        self.wait_until(lambda: "start-failed" in self.queue.log(),
                        "the start that fails", detail=self.queue.log_tail)
        paths = self.build("later")
        self.wait_until(lambda: self.first.has(paths[0]),
                        "an upload by the old configuration",
                        detail=self.queue.log_tail)
        self.assertTrue(self.queue.running())

    def test_a_worker_that_hangs_makes_way_for_another_process(self):
        server = self.make_cache_server(fault=hang_on_nars)
        self.queue.stop()
        self.queue.tables["target"] = [{"name": "h", "url": server.url}]
        self.queue.write_config()
        self.queue.start(WATCHDOG_USEC="200000")
        self.build("hangs")
        self.wait_until(lambda: server.hanging, "an upload that hangs",
                        detail=self.queue.log_tail)
        reap = stop_workers(self.queue.pid)
        self.queue.tables["target"][0]["max-connections"] = 3
        self.queue.write_config()
        self.queue.reload()
        self.wait_until(lambda: "RELOADING=1" in self.queue.read_notices(),
                        "the reload", detail=self.queue.log_tail)
        self.wait_until(lambda: "reload-stuck" in self.queue.log(),
                        "the daemon to give up", detail=self.queue.log_tail)
        notices = self.queue.read_notices()
        signs = notices[notices.index("RELOADING=1"):].count("WATCHDOG=1")
        self.assertGreater(signs, 3, "it was alive all the time")
        reap()
        # Not 0, so that the service manager starts it again.
        self.assertEqual(1, self.queue.process.wait(60))

    def test_a_target_that_left_keeps_its_jobs(self):
        self.queue.stop()
        self.queue.tables["target"] = [
            {"name": "gone", "url": "http://127.0.0.1:1"}]
        self.queue.write_config()
        self.queue.start()
        paths = self.build("left")
        self.queue.wait_for_rows(
            "SELECT 1 FROM jobs JOIN targets ON targets.id = target_id "
            "WHERE name = 'gone'", "the job")
        self.queue.tables["target"] = [
            {"name": "one", "url": "file://" + self.first.directory}]
        self.queue.write_config()
        self.queue.reload()
        self.queue.wait_for_rows("SELECT 1 FROM targets WHERE name = 'gone' "
                                 "AND configured = 0", "the target to leave")
        jobs = [job for job in self.queue.jobs() if job["target"] == "gone"]
        self.assertEqual([(paths[0], "queued")],
                         [(job["path"], job["state"]) for job in jobs])
        self.assertIn("target-left target=gone open_jobs=1", self.queue.log())
        self.assertIn("queuectl forget --target gone", self.queue.log())
        back = binary_cache.BinaryCache(os.path.join(self.base, "back"))
        self.queue.tables["target"].append(
            {"name": "gone", "url": "file://" + back.directory})
        self.queue.write_config()
        self.queue.reload()
        self.wait_until(lambda: back.has(paths[0]),
                        "the job of the target that came back",
                        detail=self.queue.log_tail)


class Systemd(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.cache = binary_cache.BinaryCache(os.path.join(self.base, "c"))
        self.queue = self.make_queue(
            [{"name": "c", "url": "file://" + self.cache.directory}],
            start=False)

    def test_notifications(self):
        self.queue.start(WATCHDOG_USEC="200000")
        self.wait_until(lambda: any(notice.startswith("STATUS=") for notice
                                    in self.queue.read_notices()), "a status")
        self.wait_until(
            lambda: self.queue.read_notices().count("WATCHDOG=1") >= 3,
            "three signs of life")
        self.queue.stop()
        # Said before the end, and perhaps read after it.
        self.wait_until(lambda: "STOPPING=1" in self.queue.read_notices(),
                        "STOPPING=1")

    def test_a_manager_that_does_not_listen(self):
        """Its socket fills up; that must not stop the daemon."""
        self.queue.start(wait=False, listen=False, WATCHDOG_USEC="20000")
        paths = []
        for number in range(20):
            paths += self.nix.build(private_nix.derivation(
                f"x{number}", f"echo {number} {self.salt} > $out"))
        self.wait_until(lambda: not self.cache.lacks(paths), "the uploads",
                        detail=self.queue.log_tail)
        self.queue.stop()

    def test_signs_of_life_while_a_server_hangs(self):
        server = self.make_cache_server(fault=hang_on_nars)
        self.queue.tables["target"] = [{"name": "h", "url": server.url}]
        self.queue.write_config()
        self.queue.start(WATCHDOG_USEC="200000")
        self.nix.build(private_nix.derivation("x", f"echo {self.salt} > $out"))
        self.wait_until(lambda: server.hanging, "an upload that hangs")
        before = self.queue.read_notices().count("WATCHDOG=1")
        self.wait_until(
            lambda: self.queue.read_notices().count("WATCHDOG=1")
            >= before + 3, "three more signs of life")

    def test_an_inherited_wake_socket(self):
        file = os.path.join(self.queue.state_dir, "wake.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
            wake.bind(file)
            inode = os.stat(file).st_ino
            self.queue.start(
                pass_fds=[wake.fileno()], LISTEN_FDS="1",
                wrapper=["bash", "-c", "export LISTEN_PID=$$; "
                         f"exec \"$@\" 3<&{wake.fileno()}", "wrapper"])
            self.assertEqual(inode, os.stat(file).st_ino,
                             "the inherited socket was replaced")
            paths = self.nix.build(private_nix.derivation(
                "x", f"echo {self.salt} > $out"))
            self.wait_until(lambda: self.cache.has(paths[0]), "the upload",
                            detail=self.queue.log_tail)
            self.queue.stop()
            self.assertEqual(inode, os.stat(file).st_ino,
                             "the inherited socket was removed")


class Checking(world.WorldTest):

    def check(self, text):
        file = os.path.join(self.base, "queued.toml")
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
        return subprocess.run(
            [os.path.join(queued.BIN, "queued"), "--check-config", "--config",
             file], env={"PATH": private_nix.PROGRAM_PATH, "HOME": self.base},
            capture_output=True, text=True, timeout=60 * children.SLOWNESS,
            check=False)

    def test_one_url_is_enough(self):
        result = self.check('[[target]]\nurl = "file:///srv/cache"\n')
        self.assertEqual((0, ""), (result.returncode, result.stderr))

    def test_a_group_that_this_machine_lacks(self):
        result = self.check('reader-group = "no-such-group"\n'
                            '[[target]]\nurl = "file:///srv/cache"\n')
        self.assertEqual(0, result.returncode, "it may be another machine's")
        self.assertIn("no-such-group", result.stderr)

    def test_every_problem_with_its_place(self):
        result = self.check('log-level = "loud"\n\n[[target]]\n'
                            'url = "gopher://x"\n\n[rots]\nmax-age = "30d"\n')
        self.assertEqual(2, result.returncode)
        said = result.stdout + result.stderr
        for place in ("queued.toml:1:", "queued.toml:4:", "queued.toml:6:"):
            with self.subTest(place=place):
                self.assertIn(place, said)
        self.assertIn("roots", said, "what was meant")

    def test_no_file(self):
        result = subprocess.run(
            [os.path.join(queued.BIN, "queued"), "--check-config", "--config",
             os.path.join(self.base, "none.toml")],
            env={"PATH": private_nix.PROGRAM_PATH, "HOME": self.base},
            capture_output=True, text=True, timeout=60 * children.SLOWNESS,
            check=False)
        self.assertIn(result.returncode, (1, 2))
        self.assertIn("none.toml", result.stderr)

    def test_a_bad_configuration_does_not_start(self):
        file = os.path.join(self.base, "queued.toml")
        with open(file, "w", encoding="utf-8") as out:
            out.write("[[target]]\nurl = 7\n")
        result = subprocess.run(
            [os.path.join(queued.BIN, "queued"), "--config", file],
            env={"PATH": private_nix.PROGRAM_PATH, "HOME": self.base,
                 "NIX_QUEUED_STATE_DIR": self.place("state")},
            capture_output=True, text=True, timeout=60 * children.SLOWNESS,
            check=False)
        self.assertEqual(2, result.returncode)
        self.assertIn("queued.toml:2:", result.stderr)


if __name__ == "__main__":
    unittest.main()
