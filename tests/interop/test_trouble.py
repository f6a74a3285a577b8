"""Targets that are away or refuse, and store paths whose bytes have rotted."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import cache_server
import nginx
import private_nix
import queued
import world


class Away(world.WorldTest):

    def test_away_for_long_and_back(self):
        self.make_nix(hook=queued.HOOK)
        port = nginx.free_port()
        there = binary_cache.BinaryCache(os.path.join(self.base, "there"))
        queue = self.make_queue([
            {"name": "away", "url": f"http://127.0.0.1:{port}"},
            {"name": "there", "url": "file://" + there.directory}])
        paths = self.nix.closure(self.nix.build(
            private_nix.chain("patient", 4, self.salt)))
        queue.wait_for_rows(
            "SELECT 1 FROM targets WHERE name = 'away' AND failures >= 8 "
            "AND health = 'unreachable'", "eight probes in vain")
        jobs = [job for job in queue.jobs() if job["target"] == "away"]
        self.assertEqual({("queued", path) for path in paths},
                         {(job["state"], job["path"]) for job in jobs})
        self.assert_whole(there, paths)
        # A reboot in between, and the garbage collector.
        queue.stop()
        self.nix.collect_garbage()
        queue.start()
        self.assertEqual([], [path for path in paths
                              if not self.nix.valid(path)])
        server = cache_server.CacheServer(self.place("served"), port=port)
        self.addCleanup(server.stop)
        queue.wait()
        self.assert_whole(server.cache, paths)
        self.assertEqual([], server.violations)

    def test_a_directory_that_is_not_mounted(self):
        self.make_nix(hook=queued.HOOK)
        mount = os.path.join(self.base, "mount")
        cache = binary_cache.BinaryCache(os.path.join(mount, "cache"))
        queue = self.make_queue([{"name": "nfs",
                                  "url": "file://" + cache.directory}])
        paths = self.nix.build(private_nix.derivation(
            "x", f"echo {self.salt} > $out"))
        queue.wait_for_rows("SELECT 1 FROM targets WHERE failures > 0",
                            "a failure")
        self.assertFalse(os.path.exists(mount))
        os.mkdir(mount)
        queue.ctl("resume", "nfs")
        queue.wait()
        self.assert_whole(cache, paths)


class Refused(world.WorldTest):

    WRONG = "wrong-7d1c40f2a9"
    RIGHT = "right-58b6e3d0c1"

    def test_401_pauses_the_target_until_it_is_resumed(self):
        self.make_nix(hook=queued.HOOK)
        server = self.make_cache_server()
        server.authorizations = {"Bearer " + self.RIGHT}
        other = binary_cache.BinaryCache(os.path.join(self.base, "other"))
        token_file = os.path.join(self.base, "token")
        self.write(token_file, self.WRONG)
        queue = self.make_queue([
            {"name": "locked", "url": server.url,
             "bearer-token-file": token_file},
            {"name": "other", "url": "file://" + other.directory}])
        paths = self.nix.closure(self.nix.build(
            private_nix.chain("secret", 3, self.salt)))
        queue.wait_for_rows("SELECT 1 FROM targets WHERE name = 'locked' "
                            "AND health = 'refused'", "the refusal")
        self.wait_until(lambda: not other.lacks(paths), "the other target")
        self.assertEqual(
            {"queued"}, {job["state"] for job in queue.jobs()
                         if job["target"] == "locked"})
        self.assertIn("refused", queue.ctl("status").stdout)
        refusals = server.count("GET", status=401) + server.count(
            "HEAD", status=401) + server.count("PUT", status=401)
        # More work must not knock at a door that is closed.
        self.nix.build(private_nix.derivation("more",
                                              f"echo {self.salt} > $out"))
        queue.wait_for_rows("SELECT 1 FROM paths WHERE path LIKE '%-more'",
                            "the new path")
        self.wait_until(lambda: len(other.narinfo_keys()) == len(paths) + 1,
                        "the new path at the other target")
        self.assertEqual(refusals, server.count("GET", status=401)
                         + server.count("HEAD", status=401)
                         + server.count("PUT", status=401))
        self.write(token_file, self.RIGHT)
        queue.ctl("resume", "locked")
        queue.wait()
        self.assert_whole(server.cache, paths)
        self.assertEqual([], server.violations)
        for secret in (self.WRONG, self.RIGHT):
            self.assert_nowhere(secret, queue)

    @staticmethod
    def write(file, text):
        with open(file, "w", encoding="ascii") as out:
            out.write(text + "\n")
        os.chmod(file, 0o600)

    def assert_nowhere(self, secret, queue):
        """Not in the log, not in the database, not in any output."""
        said = queue.log() + queue.ctl("status", "--json").stdout
        self.assertNotIn(secret, said)
        for name in os.listdir(queue.state_dir):
            file = os.path.join(queue.state_dir, name)
            if os.path.isfile(file):
                with open(file, "rb") as content:
                    self.assertNotIn(secret.encode(), content.read(), name)


class FlippedByte(world.WorldTest):
    """`nix copy` publishes such a path; we must not."""

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.server = self.make_cache_server()
        self.directory = binary_cache.BinaryCache(
            os.path.join(self.base, "directory"))
        self.queue = self.make_queue([
            {"name": "http", "url": self.server.url},
            {"name": "dir", "url": "file://" + self.directory.directory}],
            start=False)

    def flip(self, path):
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data[0] ^= 1
        os.chmod(path, 0o644)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o444)

    def test_it_is_refused_and_reported_and_others_go_on(self):
        expression = private_nix.chain("rot", 3, self.salt)
        top = self.nix.build(expression)[0]
        bottom, middle = [path for path in self.nix.closure([top])
                          if path != top]
        others = self.nix.build(private_nix.many("fine", 5, self.salt))
        self.flip(middle)
        self.queue.start()
        result = self.queue.wait(code=None)
        self.assertEqual(1, result.returncode)
        for cache in (self.server.cache, self.directory):
            self.assert_whole(cache, others + [bottom])
            # Neither the path nor what would need it.
            self.assertFalse(cache.has(middle))
            self.assertFalse(cache.has(top))
        jobs = {job["path"]: job for job in self.queue.jobs()
                if job["target"] == "http"}
        self.assertEqual(("parked", "data_loss"),
                         (jobs[middle]["state"], jobs[middle]["error_code"]))
        shown = self.queue.ctl("show", middle).stdout
        self.assertIn("parked", shown)
        self.assertIn("data_loss", shown)
        errors = [line for line in self.queue.log().splitlines()
                  if os.path.basename(middle) in line and "error" in
                  line.lower()]
        self.assertTrue(errors, self.queue.log_tail())
        # It is not collected either: someone may want to look at it.
        self.nix.collect_garbage()
        self.assertTrue(self.nix.valid(middle))
        # Once it is whole again, a word is enough.
        self.flip(middle)
        self.queue.ctl("retry", "--parked")
        self.queue.wait()
        for cache in (self.server.cache, self.directory):
            self.assert_whole(cache, [top, middle, bottom])
        self.assertEqual([], self.server.violations)

    def test_a_reference_that_no_hook_has_seen(self):
        """The rotten path is not of the queue, only of the closure."""
        old = self.nix.build(private_nix.derivation(
            "old", f"echo {self.salt} > $out"), "--option", "post-build-hook",
            "")[0]
        new = self.nix.build(private_nix.derivation(
            "new", "echo $old > $out", old=private_nix.derivation(
                "old", f"echo {self.salt} > $out")))[0]
        self.flip(old)
        self.queue.start()
        self.queue.wait(code=None)
        self.assertEqual([], self.server.cache.narinfo_keys())
        states = {(job["path"], job["state"], job["error_code"])
                  for job in self.queue.jobs() if job["target"] == "dir"}
        self.assertIn((old, "parked", "data_loss"), states)
        self.assertNotIn((new, "done", ""), states)
        self.flip(old)
        self.queue.ctl("retry", "--parked")
        self.queue.wait()
        self.assert_whole(self.directory, [old, new])

    def test_a_size_that_is_not_the_registered_one(self):
        path = self.nix.build(private_nix.derivation(
            "short", f"echo {self.salt} > $out"))[0]
        os.chmod(path, 0o644)
        with open(path, "a", encoding="ascii") as file:
            file.write("more")
        self.queue.start()
        self.queue.wait(code=None)
        self.assertEqual({("parked", "data_loss")},
                         {(job["state"], job["error_code"])
                          for job in self.queue.jobs()})
        self.assertEqual([], self.directory.narinfo_keys())

    def test_a_path_that_is_gone_is_done_with_its_reason(self):
        path = self.nix.build(private_nix.derivation(
            "gone", f"echo {self.salt} > $out"))[0]
        os.unlink(os.path.join(self.nix.roots_dir, os.path.basename(path)))
        self.nix.collect_garbage()
        self.assertFalse(self.nix.valid(path))
        self.queue.start()
        self.queue.wait()
        self.assertEqual({("done", "gone")},
                         {(job["state"], job["outcome"])
                          for job in self.queue.jobs()})


if __name__ == "__main__":
    unittest.main()
