"""What queuectl says happens next, and when, whatever the daemon does."""

import grp
import os
import signal
import sqlite3
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import children
import ctl_case
import queued


class Outlook(ctl_case.CtlCase):
    """In show, list and status."""

    def next_of(self, path):
        """What `show` says in text and JSON, and `list` in its column."""
        shown = self.queue.ctl_json("show", path)
        step, = {entry["next"] for entry in shown["jobs"] + shown["arrivals"]}
        self.assertIn("next: " + step, self.queue.ctl("show", path).stdout)
        listed, = (entry["next"] for entry in self.queue.ctl_json("list")
                   if entry["path"] == path)
        self.assertEqual(step, listed)
        heading, *rows = self.queue.ctl("list").stdout.splitlines()
        row, = (row for row in rows if path in row)
        column = row[heading.index("NEXT"):heading.index("PATH")].strip()
        return step, column

    def test_a_paused_target(self):
        self.queue.ctl("pause", "dir")
        path = self.build("paused")
        self.queue.wait_for_rows("SELECT 1 FROM jobs", "the job")
        step, column = self.next_of(path)
        self.assertIn("waits for its target: paused", step)
        self.assertEqual("paused", column)
        self.queue.stop()
        step, column = self.next_of(path)
        self.assertTrue(step.startswith("nothing until queued runs; "), step)
        self.assertEqual("paused", column)
        self.queue.ctl("resume", "dir")
        self.assertEqual(("nothing until queued runs", "when queued runs"),
                         self.next_of(path))

    def test_a_target_out_of_reach(self):
        self.queue.tables["retry"] = {"min-delay": "1h", "max-delay": "1h"}
        path = self.open_path()
        self.queue.wait_for_rows(
            "SELECT 1 FROM jobs JOIN targets ON targets.id = target_id "
            "WHERE failures > 0 AND state = 'queued'", "a failure")
        # Due, but not before its target.
        with sqlite3.connect(self.queue.state_dir + "/queue.db") as database:
            database.execute("UPDATE jobs SET next_attempt_unix_ms = 0")
            database.execute("UPDATE targets SET retry_unix_ms = (strftime("
                             "'%s', 'now') + 3000) * 1000")
        database.close()
        step, column = self.next_of(path)
        self.assertRegex(step, "waits for its target: unreachable: .*"
                         r"1 in a row; next try in \d+ min")
        self.assertRegex(column, r"in \d+ min")
        self.queue.stop()
        step, column = self.next_of(path)
        self.assertRegex(step, r"nothing until queued runs; .*unreachable: ")
        self.assertNotIn("next try", step + self.queue.ctl("status").stdout)
        self.assertEqual("when queued runs", column)

    def test_a_target_that_left_the_configuration(self):
        path = self.open_path()
        self.queue.wait_for_rows("SELECT 1 FROM targets WHERE failures > 0 "
                                 "AND name = 'away'", "a failure")
        self.switch_target("another", "file://" + self.cache.directory)
        step, column = self.next_of(path)
        self.assertIn("not in the configuration any more", step)
        self.assertEqual("not configured", column)
        status = self.queue.ctl("status").stdout
        self.assertIn("away: not in the configuration any more", status)
        self.assertNotIn("next try", status)
        # Nothing waits for the first one's return.
        self.assertNotIn("dir: not in the configuration", status)

    def test_a_daemon_that_was_sending_when_it_died(self):
        self.queue.ctl("pause", "dir")
        path = self.build("interrupted")
        self.queue.wait_for_rows("SELECT 1 FROM jobs", "the job")
        self.queue.stop()
        with sqlite3.connect(self.queue.state_dir + "/queue.db") as database:
            database.execute("UPDATE jobs SET state = 'sending', "
                             "lease_unix_ms = 9e12")
            database.execute("UPDATE targets SET paused = 0")
        database.close()
        step, column = self.next_of(path)
        self.assertEqual("nothing until queued runs; it was being sent and "
                         "begins anew", step)
        self.assertEqual("when queued runs", column)

    def test_a_frozen_daemon(self):
        self.queue.process.signal(signal.SIGSTOP)
        self.addCleanup(self.queue.process.signal, signal.SIGCONT)
        path = self.build("frozen")
        self.assertEqual(
            ("nothing until queued answers", "when queued answers"),
            self.next_of(path))
        self.assertIn("does not answer", self.queue.ctl("status").stdout)
        self.assertIn("does not answer", self.queue.ctl("version").stdout)
        status = self.queue.ctl_json("status")
        self.assertEqual((None, "silent"),
                         (status["daemon"], status["daemon_state"]))
        self.assertIn("does not answer", self.queue.ctl(
            "wait", "--timeout", "60s", path, code=3).stderr)

    def test_what_is_not_yet_taken_in(self):
        self.queue.stop()
        path = self.build("fresh")
        shown = self.queue.ctl_json("show", os.path.basename(path)[:40])
        self.assertEqual((path, False, "hook", "hold", ["inbox"], []), (
            shown["path"], shown["accepted"], shown["source"], shown["root"],
            [entry["state"] for entry in shown["arrivals"]], shown["jobs"]))
        self.assertTrue(shown["queued_at"])
        self.assertEqual(("nothing until queued runs", "when queued runs"),
                         self.next_of(path))
        # The database is locked: the hook spools.
        with sqlite3.connect(self.queue.state_dir + "/queue.db",
                             isolation_level=None) as database:
            database.execute("BEGIN EXCLUSIVE")
            spooled = self.build("spooled")
            database.execute("ROLLBACK")
        database.close()
        self.assertEqual(1, len(os.listdir(self.queue.state_dir + "/spool")))
        self.assertIn("  in spool since ",
                      self.queue.ctl("show", spooled).stdout)
        self.assertNotIn("-, by", self.queue.ctl("show", spooled).stdout)
        # A derivation that cannot be resolved.
        derivation = (self.nix.store_dir
                      + "/0123456789abcdfghijklmnpqrsvwxyz-lost.drv")
        with sqlite3.connect(self.queue.state_dir + "/queue.db") as database:
            database.execute(
                "INSERT INTO derivations (path, attempts, error_text, "
                "next_attempt_unix_ms, queued_unix_ms) VALUES (?, 3, 'no "
                "such path', 9e12, 1)", [derivation])
        database.close()
        self.assertEqual(
            [(derivation, "derivation"), (path, "inbox"),
             (spooled, "spool")],
            [(entry["path"], entry["state"])
             for entry in self.queue.ctl_json("list")])
        self.assertEqual([], self.queue.ctl_json("list", "--target", "dir"))
        self.assertEqual(
            "nothing until queued runs; Nix is asked for its outputs "
            "(3 in vain: no such path)", self.next_of(derivation)[0])

    def test_before_the_daemon_has_ever_run(self):
        state = self.place("never")
        self.queue.tables[""]["state-dir"] = state
        self.queue.write_config()
        path = self.nix.add_text("first", self.salt)
        result = self.queue.run_hook([path], NIX_QUEUED_STATE_DIR=state)
        self.assertEqual("", result.stderr)
        del self.queue.environment["NIX_QUEUED_STATE_DIR"]
        status = self.queue.ctl("status").stdout
        self.assertIn("queued has never run", status)
        self.assertIn("not yet taken in: 1", status)
        self.assertEqual("never-ran",
                         self.queue.ctl_json("status")["daemon_state"])
        self.assertEqual(("nothing until queued runs", "when queued runs"),
                         self.next_of(path))
        result = self.queue.ctl("wait", path, code=3)
        self.assertIn("queued has never run, and 1 waits for it",
                      result.stderr)
        self.queue.stop()
        self.queue.start()
        self.queue.wait(path)
        self.assertTrue(self.cache.has(path))


@unittest.skipIf(os.geteuid() != 0, "needs root to be somebody else")
class Readers(ctl_case.CtlCase):
    """Members of the reader group, and those whom the socket refuses."""

    def as_reader(self, *arguments):
        return subprocess.run(
            ["setpriv", "--reuid=65534", f"--regid={self.group.gr_gid}",
             "--clear-groups", os.path.join(queued.BIN, "queuectl"),
             "--config", self.queue.config_file, *arguments],
            env=self.queue.environment, capture_output=True, text=True,
            timeout=60 * children.SLOWNESS, check=False)

    def setUp(self):
        super().setUp()
        self.group = next(group for group in grp.getgrall()
                          if group.gr_gid not in (0, 65534))

    def test_a_group_that_is_new(self):
        self.queue.stop()
        self.queue.tables[""]["reader-group"] = self.group.gr_name
        self.queue.write_config()
        self.queue.start()
        os.chmod(self.base, 0o755)
        socket_file = self.queue.state_dir + "/status.sock"
        self.assertEqual(self.group.gr_gid, os.stat(socket_file).st_gid)
        self.assertIn("(running)", self.as_reader("version").stdout)
        # Whom the socket refuses is not told that nobody runs.
        os.chown(socket_file, -1, 0)
        for command in ("version", "status"):
            self.assertIn("this user may not ask",
                          self.as_reader(command).stdout)
        self.queue.ctl("pause", "dir")
        path = self.build("hidden")
        self.queue.wait_for_rows("SELECT 1 FROM jobs", "the job")
        self.assertIn("if queued runs: this user may not ask it",
                      self.as_reader("show", path).stdout)
        result = self.as_reader("wait", "--timeout", "200ms", path)
        self.assertEqual(1, result.returncode, result.stderr)
        self.assertIn("waiting all the same", result.stderr)


if __name__ == "__main__":
    unittest.main()
