"""A server that has no answer for one key, for ever, and serves all others.

The path that it concerns waits alone; the target is not to blame.
"""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import cache_server
import private_nix
import world


class OneBadKey(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix()
        self.server = self.make_cache_server()
        self.queue = self.make_queue([{"name": "one",
                                       "url": self.server.url}])

    def build(self, name):
        return self.nix.build(private_nix.derivation(
            name, f"echo {name} {self.salt} > $out"))[0]

    def refuse(self, path, *methods):
        key = os.path.basename(path)[:32] + ".narinfo"

        def fault(request):
            if request.key == key and request.method in methods:
                return cache_server.Fault("status", 500)
            return None
        self.server.fault = fault

    def wait_for_attempts(self):
        self.queue.wait_for_rows("SELECT 1 FROM jobs WHERE attempts >= 3",
                                 "some attempts in vain")

    def check_others_pass(self):
        good = self.build("good")
        self.queue.ctl("add", good)
        self.queue.wait(good)
        self.assert_whole(self.server.cache, [good])
        self.assertEqual(
            [{"health": "ok", "failures": 0}],
            self.queue.rows("SELECT health, failures FROM targets"))

    def check_recovers(self, paths):
        self.server.fault = lambda request: None
        self.queue.wait()
        self.assert_whole(self.server.cache, paths)

    def check(self, *methods):
        bad = self.build("bad")
        self.refuse(bad, *methods)
        self.queue.ctl("add", bad)
        self.wait_for_attempts()
        self.check_others_pass()
        self.assertEqual(
            [("queued", "unavailable")],
            [(job["state"], job["error_code"]) for job in self.queue.jobs()
             if job["path"] == bad])
        self.check_recovers([bad])

    def test_that_cannot_be_asked_for(self):
        self.check("HEAD", "GET")

    def test_that_cannot_be_stored(self):
        self.check("PUT")

    def test_of_a_reference(self):
        """What needs it waits for it; what does not, goes."""
        paths = self.nix.build(private_nix.chain("chain", 2, self.salt))
        closure = self.nix.closure(paths)
        reference = next(path for path in closure if path not in paths)
        self.refuse(reference, "HEAD", "PUT")
        self.queue.ctl("add", *paths)
        self.wait_for_attempts()
        self.check_others_pass()
        self.assertFalse(self.server.cache.has(paths[0]))
        self.check_recovers(closure)

    def test_of_a_reference_that_is_queued_as_well(self):
        """Both are looked at together; what needs it is not shown first."""
        paths = self.nix.build(private_nix.chain("chain", 2, self.salt))
        closure = self.nix.closure(paths)
        self.queue.stop()
        self.queue.ctl("add", *closure)
        self.refuse(next(path for path in closure if path not in paths),
                    "HEAD")
        self.queue.start()
        # As a reference of the other it is sent, as if it were missing.
        self.queue.wait()
        self.assertEqual([], self.server.violations)
        self.assert_whole(self.server.cache, closure)


if __name__ == "__main__":
    unittest.main()
