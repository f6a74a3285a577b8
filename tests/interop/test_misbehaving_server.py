"""A server that does all that servers should not do.

Whatever it does, everything arrives in the end, nothing is ever half-visible
there, and nothing is sent again after its narinfo is there.
"""

import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import cache_server
import private_nix
import queued
import world

Fault = cache_server.Fault


def is_nar_put(request):
    return request.method == "PUT" and request.key.startswith("nar/")


def is_narinfo_put(request):
    return request.method == "PUT" and request.key.endswith(".narinfo")


def is_question(request):
    return (request.method in ("GET", "HEAD")
            and request.key.endswith(".narinfo"))


def is_cache_info(request):
    return request.key == "nix-cache-info"


class SomeTimes:
    """A fault for the first `times` requests that match; thread-safe."""

    def __init__(self, matches, times, fault):
        self.matches = matches
        self.fault = fault
        self.left = times
        self.fired = 0
        self.lock = threading.Lock()

    def __call__(self, request):
        with self.lock:
            if self.left == 0 or not self.matches(request):
                return None
            self.left -= 1
            self.fired += 1
            return self.fault


class MisbehavingServer(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.server = self.make_cache_server()
        self.queue = self.make_queue([{
            "name": "bad", "url": self.server.url, "stall-limit": "1s",
            "connect-limit": "2s"}])
        self.rounds = 0

    def build(self):
        """Three small paths in a chain and a larger one; their closure."""
        self.rounds += 1
        salt = f"{self.salt}{self.rounds}"
        large = private_nix.derivation(
            f"large-{self.rounds}",
            f"/usr/bin/head -c 2000000 /dev/urandom > $out; # {salt}")
        return self.nix.closure(self.nix.build(
            f"[ ({private_nix.chain(f'chain-{self.rounds}', 3, salt)}) "
            f"({large}) ]"))

    def survive(self, name, matches, fault, times=3, parks=False):
        """Builds while the server misbehaves; everything has to arrive."""
        with self.subTest(name):
            faults = SomeTimes(matches, times, fault)
            self.server.fault = faults
            paths = self.build()
            if parks:
                self.queue.wait(limit=30, code=None)
                self.server.fault = lambda request: None
                self.queue.ctl("retry", "--parked")
            self.queue.wait(limit=30)
            self.server.fault = lambda request: None
            self.assertGreater(faults.fired, 0, "the fault never happened")
            self.assert_whole(self.server.cache, paths)
            self.assertEqual([], self.server.violations)

    def test_server_errors(self):
        for status in (500, 502, 503, 504):
            self.survive(f"{status} for NARs", is_nar_put,
                         Fault("status", status))
        self.survive("503 for narinfos", is_narinfo_put, Fault("status", 503))
        self.survive("503 for questions", is_question, Fault("status", 503))
        self.survive("503 before the body is read", is_nar_put,
                     Fault("early_status", 503))
        self.survive("408", is_nar_put, Fault("status", 408))

    def test_errors_from_the_very_first_request(self):
        self.survive("503 for nix-cache-info", is_cache_info,
                     Fault("status", 503))

    def test_broken_connections(self):
        for after in (0, 1, 100, 100_000):
            self.survive(f"reset after {after} bytes of a NAR", is_nar_put,
                         Fault("reset", after=after))
        self.survive("reset within a narinfo", is_narinfo_put,
                     Fault("reset", after=20))
        self.survive("reset at a question", is_question, Fault("reset"))
        self.survive("no answer to a NAR", is_nar_put, Fault("close"))
        self.survive("no answer to a narinfo", is_narinfo_put, Fault("close"))

    def test_answers_that_are_lost(self):
        self.survive("a NAR", is_nar_put, Fault("lost_answer"))
        self.survive("a narinfo", is_narinfo_put, Fault("lost_answer"))

    def test_truncated_answers(self):
        self.survive("to questions", is_question, Fault("truncate"))
        self.survive("to a NAR", is_nar_put, Fault("truncate"))
        self.survive("to a narinfo", is_narinfo_put, Fault("truncate"))

    def test_hanging(self):
        self.survive("at a NAR", is_nar_put, Fault("hang"), times=2)
        self.survive("at a narinfo", is_narinfo_put, Fault("hang"), times=1)
        self.survive("at a question", is_question, Fault("hang"), times=1)

    def test_wrong_redirects(self):
        followed = 0
        for name, status, location in (
                ("that loses the method", 302, "/loop"),
                ("to itself", 307, "/loop"),
                ("to a closed port", 302, "http://127.0.0.1:1/"),
                ("to a file", 301, "file:///etc/passwd"),
                ("to nonsense", 307, "::::"),
                ("to nowhere", 302, None)):
            headers = {"Location": location} if location else {}

            def matches(request):
                return is_nar_put(request) or request.key == "loop"
            self.survive(f"redirect {name}", matches,
                         Fault("status", status, headers), times=-1,
                         parks=True)
            follows = self.server.count("PUT", "loop")
            self.assertEqual(status == 307 and location == "/loop",
                             follows > followed, name)
            followed = follows

    def test_retry_after_is_honoured(self):
        faults = SomeTimes(is_nar_put, 1, Fault(
            "status", 429, {"Retry-After": "2"}))
        self.server.fault = faults
        paths = self.nix.build(private_nix.derivation(
            "later", f"echo {self.salt} > $out"))
        self.queue.wait()
        self.assertEqual(1, faults.fired)
        puts = [request for request in self.server.requests
                if is_nar_put(request)]
        self.assertEqual([429, 201], [request.status for request in puts])
        # Retries begin at 50 ms here: without the header it would be one.
        self.assertGreaterEqual(puts[1].time - puts[0].time, 1.9)
        self.assert_whole(self.server.cache, paths)

    def test_what_is_wrong_for_ever_is_parked_and_revived(self):
        self.server.fault = SomeTimes(is_nar_put, -1, Fault("status", 400))
        paths = self.build()
        result = self.queue.wait(code=None)
        self.assertEqual(1, result.returncode, "parked work is no success")
        self.assertEqual({"parked"},
                         {job["state"] for job in self.queue.jobs()})
        self.assertEqual([], self.server.cache.narinfo_keys())
        self.server.fault = lambda request: None
        self.queue.ctl("retry", "--parked")
        self.queue.wait()
        self.assert_whole(self.server.cache, paths)
        self.assertEqual([], self.server.violations)


if __name__ == "__main__":
    unittest.main()
