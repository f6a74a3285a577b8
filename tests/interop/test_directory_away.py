"""A directory cache on a mount that goes away and comes back.

What is left is the empty mount point: nothing may be written there, and
nothing that is not at the cache may be called done.
"""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import private_nix
import queued
import world


class DirectoryAway(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.directory = self.place("cache")
        self.cache = binary_cache.BinaryCache(self.directory)
        self.queue = self.make_queue([{"name": "disk",
                                       "url": "file://" + self.directory}])

    def derivation(self, name):
        return private_nix.derivation(name, f"echo {name} {self.salt} > $out")

    def build(self, name):
        return self.nix.build(self.derivation(name))[0]

    def unmount(self):
        os.rename(self.directory, self.directory + ".mount")
        os.mkdir(self.directory)

    def mount(self):
        os.rmdir(self.directory)
        os.rename(self.directory + ".mount", self.directory)

    def check_waits_and_arrives(self, path):
        self.queue.wait_for_rows(
            "SELECT 1 FROM targets WHERE failures >= 2 AND "
            "error_text LIKE '%mounted%'", "the cache to be missed")
        self.assertEqual([], os.listdir(self.directory))
        self.mount()
        self.queue.wait()
        self.assert_whole(self.cache, [path])

    def test_while_the_daemon_runs(self):
        self.build("first")
        self.queue.wait()
        self.unmount()
        self.check_waits_and_arrives(self.build("second"))

    def test_before_the_daemon_starts(self):
        self.build("first")
        self.queue.wait()
        self.queue.stop()
        self.unmount()
        self.queue.start()
        self.check_waits_and_arrives(self.build("second"))

    def test_another_disk_in_its_place(self):
        """What was known to be at the old one is not taken for granted."""
        first = self.build("first")
        self.queue.wait()
        self.unmount()
        second = self.nix.build(
            f"let a = {self.derivation('first')}; in "
            + private_nix.derivation("second", "echo $a > $out", a="a"))[0]
        self.queue.wait_for_rows(
            "SELECT 1 FROM targets WHERE failures >= 2",
            "the cache to be missed")
        with open(os.path.join(self.directory + ".mount", "nix-cache-info"),
                  encoding="ascii") as info, \
                open(os.path.join(self.directory, "nix-cache-info"), "w",
                     encoding="ascii") as copy:
            copy.write(info.read())
        self.queue.wait()
        self.assert_whole(self.cache, [first, second])


if __name__ == "__main__":
    unittest.main()
