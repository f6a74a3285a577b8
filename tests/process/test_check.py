"""`queuectl check`: what is wrong is found, and said with what to do."""

import os
import socket
import sqlite3
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import children
import ctl_case
import nginx
import private_nix
import queued


class Checking(ctl_case.CtlCase):

    def problems(self):
        """What `check` finds wrong, and its exit code."""
        result = self.queue.ctl("check", code=None)
        return result.returncode, result.stdout + result.stderr

    def findings(self, what, *arguments):
        """Those of `check` about one thing."""
        return [finding for finding in self.queue.ctl_json(
            "check", *arguments, code=None) if finding["check"] == what]

    def test_all_is_well(self):
        # nix.conf of this world wires the hook.
        code, text = self.problems()
        self.assertEqual(0, code, text)

    def test_a_name_that_is_not_utf_8(self):
        file = os.path.join(self.base, os.fsdecode(b"\xff.toml"))
        os.rename(self.queue.config_file, file)
        self.queue.config_file = file
        finding = self.queue.ctl_json("check")[0]
        self.assertEqual("configuration", finding["check"])
        self.assertTrue(finding["text"].endswith("/\ufffd.toml"), finding)

    def test_a_missing_key(self):
        self.queue.tables["signing"] = {"key-files": ["/nowhere/key"]}
        self.queue.write_config()
        code, text = self.problems()
        self.assertEqual(1, code)
        self.assertIn("/nowhere/key", text)

    def test_an_unreachable_target(self):
        self.queue.tables["target"] = [
            {"name": "away", "url": f"http://127.0.0.1:{nginx.free_port()}"}]
        self.queue.write_config()
        code, text = self.problems()
        self.assertEqual(1, code)
        self.assertIn("away", text)

    def test_a_bad_configuration(self):
        self.queue.write_config("[[target]]\nurl = 7\n")
        code, text = self.problems()
        self.assertEqual(1, code)
        self.assertIn("queued.toml:2:", text)

    def test_a_damaged_database(self):
        self.build("x")
        self.queue.wait()
        self.queue.stop()
        file = os.path.join(self.queue.state_dir, "queue.db")
        # All of it into the file, then a page in its middle overwritten.
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        with open(file, "rb") as whole:
            right = whole.read()
        damages = {
            "a page": right[:4096 * 2] + b"\xaa" * 4096 * 3
            + right[4096 * 5:],
            "garbage": b"\xaa" * len(right),
            "cut short": right[:4096 * 3],
        }
        for name, content in damages.items():
            with self.subTest(name):
                for suffix in ("-wal", "-shm"):
                    if os.path.exists(file + suffix):
                        os.unlink(file + suffix)
                with open(file, "wb") as damaged:
                    damaged.write(content)
                finding, = self.findings("queue")
                self.assertEqual("failed", finding["level"])
                self.assertIn(file, finding["text"])
                self.assertNotIn("***", finding["text"])
                self.assertNotIn("\n", finding["text"])
                self.assertGreater(len(finding["text"]), len(file) + 12)
                self.assertIn("move the file", finding["hint"])

    def test_no_queue_is_for_the_daemon_to_make(self):
        self.queue.stop()
        finding, = self.findings("queue", "--state-dir", self.place("empty"))
        self.assertIn("start the daemon once", finding["hint"])

    def test_each_finding_is_printed_as_it_is_made(self):
        silent = []
        for _ in range(2):
            listener = socket.socket()
            self.addCleanup(listener.close)
            listener.bind(("127.0.0.1", 0))
            listener.listen(8)
            silent.append(listener)
        self.queue.stop()
        self.queue.tables["target"] = [
            {"name": f"silent{number}", "url":
             f"http://127.0.0.1:{listener.getsockname()[1]}"}
            for number, listener in enumerate(silent)] + [
                {"name": "dir", "url": "file://" + self.cache.directory}]
        self.queue.write_config()
        with subprocess.Popen(
                [os.path.join(queued.BIN, "queuectl"), "--config",
                 self.queue.config_file, "check"], env=self.queue.environment,
                stdout=subprocess.PIPE, text=True) as check:
            for line in check.stdout:
                if line.startswith("ok       target dir"):
                    break
            else:
                self.fail("no word of the good one")
            # Asked at the same time: both are connected and wait.
            accepted = [listener.accept()[0] for listener in silent]
            self.assertIsNone(check.poll())
            for connection in accepted:
                connection.close()
            for listener in silent:
                listener.close()
            rest = check.stdout.read()
        self.assertEqual(1, check.returncode)
        for name in ("silent0", "silent1"):
            self.assertIn(f"failed   target {name}", rest)

    def test_a_target_that_hangs_is_given_up(self):
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        self.queue.tables["target"] = [
            {"name": "hang", "url":
             f"http://127.0.0.1:{listener.getsockname()[1]}"}]
        self.queue.write_config()
        # The target's own limit is a minute.
        result = self.queue.ctl("check", code=1, limit=40)
        self.assertIn("failed   target hang", result.stdout)

    def test_a_hook_that_writes_elsewhere(self):
        here = self.findings("hook")[1]
        self.assertEqual("warning", here["level"])
        self.assertIn("/var/lib/nix-queued", here["text"])
        self.assertIn(f"NIX_QUEUED_STATE_DIR={self.queue.state_dir}",
                      here["hint"])
        roots = os.path.join(self.nix.state_dir, "gcroots", "elsewhere")
        self.queue.tables["roots"] = {"directory": roots}
        self.queue.write_config()
        self.assertTrue([finding for finding in self.findings("hook")
                         if f"NIX_QUEUED_ROOTS_DIR={roots}"
                         in finding["hint"]])
        # A hook that is a script which says where.
        script = os.path.join(self.base, "queued-hook")
        with open(script, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n"
                       f"export NIX_QUEUED_STATE_DIR={self.queue.state_dir}\n"
                       f"export NIX_QUEUED_ROOTS_DIR={roots}\n"
                       f"exec {queued.HOOK}\n")
        os.chmod(script, 0o755)
        private_nix.write_nix_conf(self.nix.conf_dir, {
            **self.nix.settings, "post-build-hook": script})
        self.assertEqual(["ok"], [finding["level"] for finding
                                  in self.findings("hook")])

    @unittest.skipIf(os.geteuid() != 0, "the store has to be somebody else's")
    def test_what_hooks_have_left_in_their_own_queue(self):
        home = self.place("state-home")
        theirs = os.path.join(home, "nix-queued")
        path = self.build("stranded")
        self.queue.wait()
        self.queue.run_hook([path], NIX_QUEUED_STATE_DIR=theirs)
        # A store of one user: the hook is that user's.
        os.chown(self.nix.store_dir, 65534, 65534)
        del self.queue.environment["NIX_QUEUED_STATE_DIR"]
        self.queue.environment["XDG_STATE_HOME"] = home
        finding = self.findings("hook")[-1]
        self.assertEqual(f"nobody takes in what waits in {theirs}: 1 path",
                         finding["text"])
        self.assertEqual("warning", finding["level"])

    def test_roots_that_hold_nothing(self):
        self.assertEqual(["ok"], [finding["level"] for finding
                                  in self.findings("roots")])
        self.queue.stop()
        self.queue.tables["roots"] = {"directory": self.place("roots")}
        self.queue.write_config()
        self.queue.start()
        self.assertIn("roots-hold-nothing", self.queue.log())
        self.assertIn("holds nothing", self.findings("roots")[0]["text"])
        result = subprocess.run(
            [os.path.join(queued.BIN, "queued"), "--config",
             self.queue.config_file, "--check-config"],
            env=self.queue.environment, capture_output=True, text=True,
            timeout=60 * children.SLOWNESS, check=True)
        self.assertIn("holds nothing", result.stderr)

    @unittest.skipIf(os.geteuid() != 0, "root looks for somebody else")
    def test_what_the_daemons_user_may_not_do(self):
        self.queue.stop()
        self.assertEqual([], self.findings("daemon's user"))
        os.chmod(self.base, 0o755)
        os.chown(self.queue.state_dir, 65534, 65534)
        os.chmod(os.path.dirname(self.queue.state_dir), 0o755)
        texts = [finding["text"] for finding
                 in self.findings("daemon's user")]
        for path in (self.secret_key, self.nix.roots_dir,
                     self.cache.directory,
                     os.path.join(self.queue.state_dir, "queue.db")):
            self.assertTrue([text for text in texts if text.endswith(path)],
                            (path, texts))
        os.chown(os.path.join(self.queue.state_dir, "queue.db"), 65534, 65534)
        self.assertEqual(3, len(self.findings("daemon's user")))

    def test_a_nix_that_does_not_run(self):
        programs = self.place("bin")
        nix = os.path.join(programs, "nix")
        with open(nix, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nkill -ABRT $$\n")
        os.chmod(nix, 0o755)
        self.queue.tables["nix"]["bin-dir"] = programs
        self.queue.write_config()
        finding = self.findings("hook")[0]
        self.assertIn("ended by signal 6", finding["text"])
        self.assertNotIn("post-build-hook", finding["hint"])
        self.assertIn("home", finding["hint"])

    def test_a_hook_that_is_not_wired(self):
        settings = dict(self.nix.settings)
        del settings["post-build-hook"]
        private_nix.write_nix_conf(self.nix.conf_dir, settings)
        _, text = self.problems()
        self.assertIn("post-build-hook", text)


if __name__ == "__main__":
    unittest.main()
