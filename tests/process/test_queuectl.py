"""queuectl's verbs, with the daemon up and down."""

import json
import os
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
import world

READS = (["status"], ["list"], ["version"], ["check"],
         ["list", "--state", "done"])


class Credentials(ctl_case.CtlCase):
    """Keys that systemd hands to the service, seen by root without the
    variable."""

    def check_key(self, run):
        """The finding about the key, where /run holds what `run` makes."""
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-euc",
             "mount -t tmpfs tmpfs /run\n" + run + '\nexec "$@" check --json',
             "-", os.path.join(queued.BIN, "queuectl"), "--config",
             self.queue.config_file],
            env=self.queue.environment, capture_output=True, text=True,
            timeout=120, check=False)
        try:
            findings = json.loads(result.stdout)
        except ValueError:
            self.fail(result.stderr)
        key, = [finding for finding in findings
                if finding["check"].startswith("signing key")]
        return key

    @unittest.skipIf(os.geteuid() != 0, "needs root for a /run of its own")
    def test_signing_key(self):
        self.queue.tables["signing"]["key-files"] = [
            "$CREDENTIALS_DIRECTORY/key"]
        self.queue.write_config()
        here = self.check_key(
            "install -d /run/credentials/nix-queued.service\n"
            f"cp {self.secret_key} /run/credentials/nix-queued.service/key")
        self.assertEqual("ok", here["level"], here)
        self.assertIn(self.public_key, here["text"])
        away = self.check_key("")
        self.assertEqual("warning", away["level"], away)
        self.assertIn("systemctl start", away["hint"])


class Reading(ctl_case.CtlCase):

    def test_json_of_every_read_is_json(self):
        path = self.build("x")
        self.queue.wait()
        for up in (True, False):
            for verb in READS + (["show", path],):
                with self.subTest(verb=verb, daemon=up):
                    result = self.queue.ctl(*verb, "--json", code=None)
                    self.assertIn(result.returncode, (0, 1))
                    json.loads(result.stdout)
            if up:
                self.queue.stop()

    def test_status(self):
        self.build("x")
        self.queue.wait()
        status = self.queue.ctl_json("status")
        self.assertEqual(self.queue.pid, status["daemon"]["pid"])
        target = status["targets"][0]
        self.assertEqual(("dir", "ok", 0, 0, 1),
                         tuple(target[key] for key in (
                             "name", "health", "queued", "parked", "done")))
        self.assertGreater(target["sent_last_hour_bytes"], 0)
        self.queue.stop()
        status = self.queue.ctl_json("status")
        self.assertIsNone(status["daemon"])
        self.assertEqual("stopped", status["daemon_state"])
        self.assertIn("not running", self.queue.ctl("status").stdout)

    def test_list_filters(self):
        done = self.build("done")
        self.queue.wait()
        waiting = self.open_path()
        self.assertEqual(
            [done], [job["path"] for job in self.queue.ctl_json(
                "list", "--state", "done")])
        self.assertEqual(
            [waiting], [job["path"] for job in self.queue.ctl_json(
                "list", "--target", "away")])
        self.assertEqual([], self.queue.ctl_json("list", "--older-than",
                                                 "1h"))
        self.assertEqual(
            "", self.queue.ctl("--json", "list", "--limit", "1").stderr)
        another = self.build("another")
        self.queue.wait_for_rows(
            f"SELECT 1 FROM queue WHERE path = '{another}' "
            "AND state = 'queued'", "the other job")
        for options in [], ["--json"]:
            cut = self.queue.ctl(*options, "list", "--limit", "1")
            self.assertIn("more than these 1; see --limit", cut.stderr)
            self.assertIn(waiting, cut.stdout)
        self.assertEqual("", self.queue.ctl("list", "--limit", "2").stderr)
        self.assertEqual(1, len(self.queue.ctl_json("list", "--limit", "1")))

    def test_show_tells_everything(self):
        path = self.open_path()
        self.queue.wait_for_rows("SELECT 1 FROM targets WHERE failures > 0 "
                                 "AND name = 'away'", "a failure")
        shown = self.queue.ctl_json("show", path)
        self.assertEqual((path, "hold", "hook"), tuple(
            shown[key] for key in ("path", "root", "source")))
        jobs = {job["target"]: job for job in shown["jobs"]}
        # "sending" while a probe is out.
        self.assertIn(jobs["away"]["state"], ("queued", "sending"))
        self.assertTrue(jobs["away"]["next"])
        text = self.queue.ctl("show", path).stdout
        self.assertIn("away", text)
        self.assertIn("connect", text, "the last error")
        # By base name, and by a unique prefix of it.
        name = os.path.basename(path)
        for argument in (name, name[:12]):
            self.assertEqual(path, self.queue.ctl_json("show",
                                                       argument)["path"])

    def test_plain_text_in_a_pipe(self):
        self.build("x")
        self.queue.wait()
        for verb in (["status"], ["list"], ["check"]):
            result = self.queue.ctl(*verb, code=None)
            self.assertNotIn("\x1b", result.stdout + result.stderr)

    def test_version(self):
        self.assertRegex(self.queue.ctl("version").stdout,
                         r"queuectl \d+\.\d+\.\d+\nqueued \d+\.\d+\.\d+")


class ExitCodes(ctl_case.CtlCase):

    def test_usage(self):
        for arguments in ([], ["frobnicate"], ["list", "--state", "silly"],
                          ["show"], ["wait", "--timeout", "soon"],
                          ["prune", "--older-than", "7"], ["retry"],
                          ["add"], ["pause"], ["status", "extra"]):
            with self.subTest(arguments=arguments):
                result = self.queue.ctl(*arguments, code=2)
                self.assertEqual("", result.stdout)
                self.assertNotEqual("", result.stderr)

    def test_failures_are_one_line(self):
        for arguments in (["show", "/etc/passwd"],
                          ["show", self.nix.store_dir
                           + "/0123456789abcdfghijklmnpqrsvwxyz-none"],
                          ["pause", "nobody"], ["resume", "nobody"],
                          ["list", "--target", "typo"],
                          ["add", "/etc/passwd"]):
            with self.subTest(arguments=arguments):
                result = self.queue.ctl(*arguments, code=1)
                self.assertEqual(1, len(result.stderr.splitlines()))

    def test_help(self):
        self.assertIn("status", self.queue.ctl("--help").stdout)
        self.assertIn("--timeout", self.queue.ctl("wait", "--help").stdout)

    def test_no_queue_yet(self):
        empty = self.place("empty")
        result = subprocess.run(
            [os.path.join(queued.BIN, "queuectl"), "--config",
             self.queue.config_file, "--state-dir", empty, "status"],
            env=self.queue.environment, capture_output=True, text=True,
            timeout=60 * children.SLOWNESS, check=False)
        self.assertEqual(1, result.returncode)
        self.assertIn(empty, result.stderr)
        self.assertEqual([], os.listdir(empty), "reading makes nothing")

    def test_wait(self):
        path = self.build("arrives")
        self.queue.wait(path)
        self.assertTrue(self.cache.has(path))
        path = self.open_path()
        result = self.queue.ctl("wait", "--timeout", "200ms", code=1)
        self.assertIn("1 still open", result.stderr)
        self.assertEqual(
            {"open": 1, "parked": 0, "failed": []}, json.loads(self.queue.ctl(
                "wait", "--timeout", "0s", "--json", path, code=1).stdout))
        self.queue.ctl("pause", "away")
        result = self.queue.ctl("wait", "--timeout", "0s", path, code=1)
        self.assertIn("away: paused", result.stderr)
        self.switch_target("another", "file://" + self.cache.directory)
        result = self.queue.ctl("wait", "--timeout", "0s", code=1)
        self.assertIn("away: not in the configuration", result.stderr)
        self.queue.stop()
        result = self.queue.ctl("wait", "--timeout", "60s", code=3)
        self.assertIn("queued is not running, and 1 waits for it",
                      result.stderr)
        # Also when there is no time to wait for one.
        self.queue.ctl("wait", "--timeout", "0s", path, code=3)

    def test_wait_on_a_terminal_leaves_no_trace(self):
        path = self.open_path()
        result = subprocess.run(
            ["script", "-qec", " ".join([
                os.path.join(queued.BIN, "queuectl"), "--config",
                self.queue.config_file, "wait", "--timeout", "200ms", path]),
             "/dev/null"], env={**self.queue.environment, "TERM": "xterm"},
            stdin=subprocess.DEVNULL, capture_output=True,
            timeout=60 * children.SLOWNESS, check=False)
        shown = result.stdout.decode()
        self.assertEqual(1, result.returncode, shown)
        self.assertIn("1 to go", shown)
        *_, last = shown.split("\r\x1b[K")
        self.assertTrue(last.startswith("queuectl: 1 still open"), shown)

    def test_output_that_goes_nowhere(self):
        path = self.build("x")
        self.queue.wait()
        for arguments in (["status"], ["list"], ["show", path], ["version"],
                          ["check"], ["status", "--json"], ["--help"],
                          ["pause", "dir"], ["wait", "--json"]):
            with self.subTest(arguments=arguments), \
                    open("/dev/full", "wb") as full:
                result = subprocess.run(
                    [os.path.join(queued.BIN, "queuectl"), "--config",
                     self.queue.config_file, *arguments], stdout=full,
                    stderr=subprocess.PIPE, text=True, check=False,
                    env=self.queue.environment,
                    timeout=60 * children.SLOWNESS)
                self.assertIn("write the output: ", result.stderr)

    def test_wait_for_what_will_not_arrive(self):
        unknown = self.nix.add_text("plain", self.salt)
        gone = self.build("gone")
        self.queue.wait()
        # As after a collection that came before the upload.
        with sqlite3.connect(self.queue.state_dir + "/queue.db") as database:
            database.execute("UPDATE jobs SET outcome = 'gone', error_text = "
                             "'not in the local store any more'")
        database.close()
        result = self.queue.ctl("wait", unknown, gone, code=1)
        self.assertEqual([
            f"queuectl: {unknown}: the queue has never heard of it; "
            "`queuectl add` queues it",
            f"queuectl: {gone}: gone before target dir had it: not in the "
            "local store any more; build it again",
        ], result.stderr.splitlines())
        self.assertEqual([unknown], [failure["path"] for failure in json.loads(
            self.queue.ctl("wait", "--json", unknown, code=1).stdout)[
                "failed"]])
        self.queue.ctl("forget", gone)
        self.assertIn("forgotten",
                      self.queue.ctl("wait", gone, code=1).stderr)
        self.assertIn("nothing until `queuectl add`",
                      self.queue.ctl("show", gone).stdout)


class Changing(ctl_case.CtlCase):

    def test_add(self):
        self.queue.stop()
        paths = self.nix.build(private_nix.chain("old", 3, self.salt),
                               "--option", "post-build-hook", "")
        lone = self.nix.build(private_nix.derivation(
            "lone", f"echo {self.salt} > $out"), "--option",
            "post-build-hook", "")
        # With the daemon down, as a link such as ./result, with its closure.
        link = os.path.join(self.base, "result")
        os.symlink(paths[0], link)
        self.queue.ctl("add", "--closure", link)
        self.queue.start()
        self.queue.wait()
        closure = self.nix.closure(paths)
        self.assert_whole(self.cache, closure)
        self.assertEqual({"queuectl"}, {row["source"] for row in
                                        self.queue.rows(
                                            "SELECT source FROM paths")})
        for path in closure:
            self.assertTrue(os.path.islink(os.path.join(
                self.nix.roots_dir, os.path.basename(path))))
        # With the daemon up, all that was built here.
        self.queue.ctl("add", "--all-local")
        self.queue.wait()
        self.assert_whole(self.cache, closure + lone)

    def test_add_of_what_is_not_valid(self):
        path = self.build("gone")
        self.queue.wait()
        os.unlink(os.path.join(self.nix.roots_dir, os.path.basename(path)))
        self.nix.collect_garbage()
        result = self.queue.ctl("add", path, code=1)
        self.assertIn("not valid", result.stderr)
        self.assertEqual([], os.listdir(self.nix.roots_dir))

    def test_add_of_good_and_bad_ones(self):
        self.queue.stop()
        good, gone = [self.nix.build(
            private_nix.derivation(name, f"echo {name} {self.salt} > $out"),
            "--option", "post-build-hook", "")[0] for name in ("good", "gone")]
        keep = os.path.join(self.nix.state_dir, "gcroots", "keep")
        os.symlink(good, keep)
        self.nix.collect_garbage()
        os.unlink(keep)
        for more in ([], ["--closure"]):
            with self.subTest(more=more):
                result = self.queue.ctl("add", "/etc/passwd", gone, good,
                                        *more, code=1)
                self.assertEqual("added 1 path\n", result.stdout)
                passwd, other = result.stderr.splitlines()
                self.assertIn("/etc/passwd", passwd)
                self.assertIn(f"{gone}: not valid", other)
        self.assertEqual([os.path.basename(good)],
                         os.listdir(self.nix.roots_dir))
        self.queue.start()
        self.queue.wait(good)
        self.assertTrue(self.cache.has(good))

    def test_pause_and_resume(self):
        for up in (True, False):
            with self.subTest(daemon=up):
                if not up:
                    self.queue.stop()
                self.queue.ctl("pause", "dir")
                path = self.build(f"paused-{up}")
                if up:
                    self.queue.wait_for_rows(
                        "SELECT 1 FROM jobs WHERE state = 'queued'",
                        "the job")
                self.assertIn("paused", self.queue.ctl("status").stdout)
                self.assertFalse(self.cache.has(path))
                self.queue.ctl("resume", "dir")
                if not up:
                    self.queue.start()
                self.queue.wait()
                self.assertTrue(self.cache.has(path))

    def test_forget(self):
        path = self.open_path()
        for up in (True, False):
            with self.subTest(daemon=up):
                if not up:
                    self.queue.stop()
                    path = self.build("again")
                    self.queue.start()
                    self.queue.wait_for_rows(
                        "SELECT 1 FROM jobs WHERE state = 'queued'",
                        "the job")
                    self.queue.stop()
                self.assertIn(path, self.queue.ctl(
                    "forget", "--dry-run", path).stdout)
                self.assertEqual(1, len(self.open_jobs()))
                self.queue.ctl("forget", path)
                self.assertEqual([], self.open_jobs())
        # Its hold ends as any finished hold does: with a pin, by age.
        self.queue.start()
        self.queue.wait_for_rows(
            "SELECT 1 WHERE NOT EXISTS "
            "(SELECT 1 FROM paths WHERE root = 'hold')", "the hold to end")

    def open_jobs(self):
        return [job for job in self.queue.jobs() if job["state"] != "done"]

    def test_retry_brings_the_next_attempt_forward(self):
        server = self.make_cache_server()
        server.stop()
        self.queue.tables["retry"] = {"min-delay": "1h", "max-delay": "1h"}
        self.switch_target("later", server.url)
        path = self.build("later")
        self.queue.wait_for_rows("SELECT 1 FROM targets WHERE failures > 0 "
                                 "AND name = 'later'", "a failure")
        again = world.cache_server.CacheServer(server.directory,
                                               port=server.port)
        self.addCleanup(again.stop)
        self.assertIn("later was in trouble",
                      self.queue.ctl("retry", path).stdout)
        self.queue.wait()
        self.assertTrue(again.cache.has(path))

    def test_retry_says_that_a_target_is_paused(self):
        path = self.open_path()
        self.queue.ctl("pause", "away")
        said = self.queue.ctl_json("retry", path)
        self.assertEqual((["away"], []), (said["paused"], said["probed"]))
        self.assertIn("queuectl resume away",
                      self.queue.ctl("retry", "--target", "away").stdout)

    def test_what_the_queue_does_not_know(self):
        self.queue.stop()
        waiting = self.build("waiting")
        unknown = (self.nix.store_dir
                   + "/0123456789abcdfghijklmnpqrsvwxyz-none")
        for verb in (["retry"], ["forget"], ["forget", "--dry-run"]):
            with self.subTest(verb=verb):
                result = self.queue.ctl(*verb, unknown, waiting, code=1)
                self.assertEqual("", result.stdout)
                first, second = result.stderr.splitlines()
                self.assertIn(f"{unknown}: the queue does not know", first)
                self.assertIn(f"{waiting}: the daemon has not yet", second)
        self.assertEqual(1, self.queue.value("SELECT count(*) FROM inbox"))

    def test_forget_the_jobs_of_a_target_that_is_gone(self):
        path = self.open_path()
        self.queue.stop()
        self.queue.tables["target"] = [
            {"name": "dir", "url": "file://" + self.cache.directory}]
        self.queue.write_config()
        self.queue.start()
        self.queue.ctl("wait", "--timeout", "0s", code=1)
        said = self.queue.ctl_json("forget", "--target", "away", "--dry-run")
        self.assertEqual([(path, "away")],
                         [(job["path"], job["target"])
                          for job in said["would_forget"]])
        self.assertEqual({"forgot": 1, "revived": 0}, self.queue.ctl_json(
            "forget", "--target", "away"))
        self.queue.ctl("wait", "--timeout", "0s")
        self.queue.stop()
        self.queue.start()
        self.assertEqual(["dir"], [target["name"] for target in
                                   self.queue.ctl_json("status")["targets"]])

    def test_forgetting_a_reference_revives_what_it_blocked(self):
        self.queue.ctl("pause", "dir")
        paths = self.nix.build(private_nix.chain("chain", 2, self.salt))
        first, = [path for path in self.nix.closure(paths)
                  if path not in paths]
        with open(first, encoding="utf-8") as file:
            right = file.read()
        self.write_into_the_store(first, right.upper())
        self.queue.ctl("resume", "dir")
        self.queue.wait(code=1)
        job, = [job for job in self.queue.ctl_json("list", "--state", "parked")
                if job["path"] in paths]
        self.assertEqual(first, job["blocked_by"])
        self.write_into_the_store(first, right)
        self.assertEqual({"forgot": 1, "revived": 1},
                         self.queue.ctl_json("forget", first))
        self.queue.wait()
        self.assert_whole(self.cache, [first, *paths])

    @staticmethod
    def write_into_the_store(path, text):
        os.chmod(path, 0o644)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o444)


if __name__ == "__main__":
    unittest.main()
