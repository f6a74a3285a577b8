"""Garbage collection running in a loop while paths wait for their targets."""

import os
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
        paths = []
        for number in range(ROUNDS):
            salt = f"{self.salt}{number}"
            multi = private_nix.all_outputs(
                private_nix.multi_output(f"m{number}", salt))
            paths += self.nix.build(
                f"[ ({private_nix.chain(f'c{number}', 3, salt)}) ] ++ {multi}")
            # Begun after the hooks have exited: what a collection that began
            # earlier may take is between it and Nix's temporary roots.
            self.nix.collect_garbage()
        self.assertFalse(self.nix.valid(litter), "no garbage was collected")
        self.assertEqual([], self.cache.narinfo_keys())
        missing = [path for path in paths if not self.nix.valid(path)]
        self.assertEqual([], missing, self.queue.log_tail())
        self.queue.ctl("resume", "c")
        self.queue.wait()
        # Also afterwards: they are pinned.
        self.nix.collect_garbage()
        self.assertEqual([], [path for path in paths
                              if not self.nix.valid(path)])
        self.assert_whole(self.cache, self.nix.closure(paths))

    def test_while_uploads_and_the_pinning_of_some_systems_go_on(self):
        """Holds that end must end after the upload, never before."""
        self.queue.stop()
        self.queue.tables["roots"]["systems"] = ["no-system"]
        self.queue.write_config()
        self.queue.start()
        self.queue.wait_for_rows("SELECT 1 FROM targets", "the target's row")
        self.queue.ctl("pause", "c")
        built = []
        for number in range(ROUNDS):
            built += self.nix.build(private_nix.chain(
                f"c{number}", 3, f"{self.salt}{number}"))
        stop = self.start_collecting()
        self.queue.ctl("resume", "c")
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
