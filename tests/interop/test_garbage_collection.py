"""Garbage collection running in a loop while paths wait for their targets."""

import os
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import children
import private_nix
import queued
import world

ROUNDS = 4 if children.SANITIZED else 12


def read(name):
    with open(name, encoding="utf-8") as file:
        return file.read()


class GarbageCollection(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.cache = binary_cache.BinaryCache(os.path.join(self.base, "c"))
        self.queue = self.make_queue([
            {"name": "c", "url": "file://" + self.cache.directory}])
        self.done = threading.Event()
        self.collections = 0
        self.error = None

    def collect(self):
        """In a thread: one collection after the other."""
        try:
            while not self.done.is_set():
                self.nix.collect_garbage()
                self.collections += 1
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def start_collecting(self):
        thread = threading.Thread(target=self.collect)
        thread.start()

        def stop():
            self.done.set()
            thread.join()
        self.addCleanup(stop)
        return stop

    def test_while_a_target_is_paused(self):
        self.queue.wait_for_rows("SELECT 1 FROM targets", "the target's row")
        self.queue.ctl("pause", "c")
        litter = self.nix.add_text("litter", self.salt)
        stop = self.start_collecting()
        paths = []
        for number in range(ROUNDS):
            salt = f"{self.salt}{number}"
            multi = private_nix.all_outputs(
                private_nix.multi_output(f"m{number}", salt))
            paths += self.nix.build(
                f"[ ({private_nix.chain(f'c{number}', 3, salt)}) ] ++ {multi}")
        before = self.collections
        self.wait_until(lambda: self.collections >= before + 2 or self.error,
                        "two more collections", limit=120)
        self.assertIsNone(self.error)
        self.assertFalse(self.nix.valid(litter), "no garbage was collected")
        self.assertEqual([], self.cache.narinfo_keys())
        missing = [path for path in paths if not self.nix.valid(path)]
        self.assertEqual([], missing, self.queue.log_tail())
        self.queue.ctl("resume", "c")
        self.queue.wait()
        # Also afterwards: they are pinned.
        before = self.collections
        self.wait_until(lambda: self.collections >= before + 2 or self.error,
                        "two more collections", limit=120)
        stop()
        self.assertIsNone(self.error)
        print(f"{self.collections} collections, {len(paths)} paths kept",
              flush=True)
        self.assertEqual([], [path for path in paths
                              if not self.nix.valid(path)])
        self.assert_whole(self.cache, self.nix.closure(paths))

    def test_a_root_made_after_the_roots_were_read(self):
        """A collection reads permanent roots, then temporary ones. What ends
        and begins in between is known to it only if the hook tells it."""
        self.nix.stop_daemon()
        self.nix.settings.pop("post-build-hook")
        private_nix.write_nix_conf(self.nix.conf_dir, self.nix.settings)
        kept, litter = self.nix.build("[ (%s) (%s) ]" % tuple(
            private_nix.derivation(name, f"echo {self.salt} > $out")
            for name in ("kept", "litter")))
        derivation, = self.nix.lines(["nix-store", "-q", "--deriver", kept])
        # The collector opens the profiles after all other permanent roots, and
        # then the temporary ones, five seconds late.
        trace = os.path.join(self.base, "trace")
        profiles, temporary = (os.path.join(self.nix.state_dir, name)
                               for name in ("profiles", "temproots"))
        collector = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", trace, "-P", profiles,
             "-P", temporary, "-e", "trace=openat", "-e",
             "inject=openat:delay_enter=5000000:when=2", "nix-store", "--gc"],
            env=self.nix.environment, stderr=subprocess.PIPE, text=True)
        self.addCleanup(collector.stderr.close)
        self.addCleanup(collector.wait)
        self.assertIn("finding garbage collector roots",
                      collector.stderr.readline())
        self.wait_until(lambda: profiles in read(trace),
                        "the permanent roots to have been read", limit=60)
        hook = self.nix.run([queued.HOOK], DRV_PATH=derivation, OUT_PATHS=kept)
        self.assertEqual("", hook.stderr)
        self.assertIsNone(collector.poll(), "the collection was over too soon")
        collector.communicate(timeout=120)
        self.assertFalse(self.nix.valid(litter), "no garbage was collected")
        self.assertTrue(self.nix.valid(kept))

    def test_while_uploads_and_the_pinning_of_some_systems_go_on(self):
        """Holds that end must end after the upload, never before."""
        self.queue.stop()
        self.queue.tables["roots"]["systems"] = ["no-system"]
        self.queue.write_config()
        self.queue.start()
        stop = self.start_collecting()
        built = []
        for number in range(ROUNDS):
            built += self.nix.build(private_nix.chain(
                f"c{number}", 3, f"{self.salt}{number}"))
        self.queue.wait()
        stop()
        self.assertIsNone(self.error)
        outcomes = {row["outcome"] for row in self.queue.jobs()}
        self.assertLessEqual(outcomes, {"sent", "present"}, outcomes)
        self.assertEqual([], self.cache.lacks(built))
        self.assertEqual([], self.cache.problems())
        links = [name for name in os.listdir(self.nix.roots_dir)
                 if not name.startswith(".")]
        self.assertEqual([], links)


if __name__ == "__main__":
    unittest.main()
