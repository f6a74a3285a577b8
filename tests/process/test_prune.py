"""`queuectl prune`, as the weekly timer runs it: also without a daemon."""

import os
import sqlite3
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import private_nix
import queued
import world

MONTH_S = 30 * 86400


class Prune(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.cache = binary_cache.BinaryCache(os.path.join(self.base, "c"))
        self.queue = self.make_queue([
            {"name": "dir", "url": "file://" + self.cache.directory}])

    def build(self, name):
        return self.nix.build(private_nix.derivation(
            name, f"echo {name} {self.salt} > $out"))[0]

    def link(self, path):
        return os.path.join(self.nix.roots_dir, os.path.basename(path))

    def age(self, *paths):
        """Their roots are older than a month now."""
        then = time.time() - MONTH_S - 86400
        for path in paths:
            os.utime(self.link(path), (then, then), follow_symlinks=False)

    def database(self):
        return sqlite3.connect(os.path.join(self.queue.state_dir, "queue.db"),
                               isolation_level=None)

    def assert_held(self, *paths):
        self.nix.collect_garbage()
        for path in paths:
            self.assertTrue(os.path.islink(self.link(path)), path)
            self.assertTrue(self.nix.valid(path), path)

    def test_what_waits_in_the_inbox_is_kept_and_arrives(self):
        done = self.build("done")
        self.queue.wait()
        self.queue.stop()
        held = self.build("held")
        self.age(done, held)
        text = self.queue.ctl("prune").stdout
        self.assertIn(f"removed {done}", text)
        self.assertIn(f"kept {held} (not yet taken in", text)
        self.assert_held(held)
        self.queue.start()
        self.queue.wait(held)
        self.assertTrue(self.cache.has(held))

    def test_what_waits_in_the_spool_is_kept_and_arrives(self):
        self.build("first")
        self.queue.wait()
        self.queue.stop()
        lock = self.database()
        lock.execute("BEGIN EXCLUSIVE")
        held = self.build("spooled")
        lock.execute("ROLLBACK")
        lock.close()
        spool = os.path.join(self.queue.state_dir, "spool")
        self.assertEqual(1, len(os.listdir(spool)))
        self.age(held)
        self.assertIn(f"kept {held} (not yet taken in",
                      self.queue.ctl("prune").stdout)
        self.assert_held(held)
        # What such a file held is not known, so nothing goes.
        with open(os.path.join(spool, "1-1-1.entries"), "w",
                  encoding="utf-8") as file:
            file.write("cut sh")
        result = self.queue.ctl("prune", "--older-than", "0s", code=1)
        self.assertIn("1-1-1.entries", result.stderr)
        self.assertEqual(1, len(result.stderr.splitlines()))
        self.assertEqual(2, len(os.listdir(self.nix.roots_dir)))
        self.queue.start()
        self.queue.wait(held)
        self.assertTrue(self.cache.has(held))

    def test_without_the_queue_nothing_is_removed(self):
        path = self.build("old")
        self.queue.wait()
        self.queue.stop()
        self.age(path)
        empty = self.place("elsewhere")
        for more in ([], ["--dry-run"]):
            result = self.queue.ctl("prune", "--state-dir", empty, *more,
                                    code=1)
            self.assertEqual("", result.stdout)
            self.assertEqual(1, len(result.stderr.splitlines()))
            for word in (os.path.join(empty, "queue.db"), "--state-dir",
                         "--config"):
                self.assertIn(word, result.stderr)
        self.assertEqual([], os.listdir(empty))
        self.assert_held(path)

    def test_a_queue_that_only_hooks_have_written(self):
        old, held = self.build("old"), self.build("held")
        self.queue.wait()
        self.queue.stop()
        # As on a machine where the daemon has never run.
        self.queue.state_dir = self.place("hooks-only")
        self.queue.environment["NIX_QUEUED_STATE_DIR"] = self.queue.state_dir
        self.assertEqual(0, self.queue.run_hook([held]).returncode)
        self.age(old, held)
        text = self.queue.ctl("prune").stdout
        self.assertIn(f"removed {old}", text)
        self.assertIn(f"kept {held} (not yet taken in", text)
        self.assertEqual([os.path.basename(held)],
                         os.listdir(self.nix.roots_dir))

    @unittest.skipIf(os.geteuid() != 0, "root alone becomes somebody else")
    def test_rehearsing_needs_no_more_than_reading(self):
        path = self.build("old")
        self.queue.wait()
        self.age(path)
        for directory in (self.base, os.path.dirname(self.queue.state_dir),
                          self.queue.state_dir, self.nix.base):
            os.chmod(directory, 0o755)
        for name in ("queue.db", "queue.db-wal", "queue.db-shm"):
            os.chmod(os.path.join(self.queue.state_dir, name), 0o644)
        nobody = ("setpriv", "--reuid", "65534", "--regid", "65534",
                  "--clear-groups")
        self.assertIn(f"would remove {path}", self.queue.ctl(
            "prune", "--dry-run", wrapper=nobody).stdout)
        for verb in (["prune"], ["pause", "dir"], ["retry", path],
                     ["forget", path]):
            with self.subTest(verb=verb):
                result = self.queue.ctl(*verb, code=1, wrapper=nobody)
                self.assertIn("root", result.stderr, "who may")
                self.assertEqual(1, len(result.stderr.splitlines()))
        for name in ("queue.db", "queue.db-wal", "queue.db-shm"):
            os.chmod(os.path.join(self.queue.state_dir, name), 0o640)
        self.assertIn("may read it", self.queue.ctl(
            "prune", "--dry-run", code=1, wrapper=nobody).stderr)
        self.assert_held(path)

    def test_json_tells_all_that_text_does(self):
        path = self.build("pinned")
        gone = self.build("unlinked")
        self.queue.wait()
        os.unlink(self.link(gone))
        with open(os.path.join(self.nix.roots_dir, "stranger"), "w",
                  encoding="utf-8"):
            pass
        said = self.queue.ctl_json("prune")
        self.assertEqual([path], [root["path"] for root in said["kept"]])
        self.assertEqual([gone], said["unlinked"])
        self.assertEqual(["stranger"],
                         [entry["name"] for entry in said["strange"]])
        self.assertEqual([], self.queue.rows(
            "SELECT 1 FROM roots WHERE path = ?", gone))


if __name__ == "__main__":
    unittest.main()
