"""A name server that never answers: a target whose name nobody resolves.

It may hold up that target and no other. The daemon runs in a mount namespace
of its own, whose resolv.conf names a server that takes questions and is silent;
that needs root and Linux.
"""

import errno
import os
import random
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import private_nix
import queued
import world

NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             'mount --bind "$0" /etc/resolv.conf && '
             'mount --bind "$1" /etc/nsswitch.conf && shift && exec "$@"']


def why_not():
    """Why there can be no such namespace here, or ""."""
    if not sys.platform.startswith("linux"):
        return "mount namespaces are Linux's"
    result = subprocess.run(
        [*NAMESPACE, "/etc/resolv.conf", "/etc/nsswitch.conf", "true"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else (
        "no private mount namespace, or no resolv.conf and nsswitch.conf "
        "in it: " + result.stderr.strip())


class SilentNameServer:
    """Takes questions on some address of loopback and counts them."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:
            self.address = "127." + ".".join(
                str(random.randrange(1, 255)) for _ in range(3))
            try:
                self.socket.bind((self.address, 53))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise

    def was_asked(self):
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(4096))
        except BlockingIOError:
            return False


@unittest.skipIf(why_not(), why_not())
class Names(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.server = self.make_cache_server()
        self.names = SilentNameServer()
        self.addCleanup(self.names.socket.close)
        # The resolver gives up after 30 s times 5: longer than any wait here.
        resolver = os.path.join(self.base, "resolv.conf")
        with open(resolver, "w", encoding="ascii") as file:
            file.write(f"nameserver {self.names.address}\n"
                       "options timeout:30 attempts:5\n")
        switch = os.path.join(self.base, "nsswitch.conf")
        with open(switch, "w", encoding="ascii") as file:
            file.write("hosts: files dns\n")
        self.wrapper = [*NAMESPACE, resolver, switch]

    def build(self, name):
        return self.nix.build(private_nix.derivation(
            name, f"echo {name} {self.salt} > $out"))[0]

    def test_hold_up_their_own_target_only(self):
        queue = self.make_queue([
            {"name": "far", "url": "http://cache.example.org",
             "connect-limit": "1s"},
            {"name": "near", "url": self.server.url}], start=False)
        queue.start(wrapper=self.wrapper)
        first = self.build("first")
        self.wait_until(self.names.was_asked, "a question for the name")
        # The connect limit counts, not the resolver's patience.
        queue.wait_for_rows(
            "SELECT 1 FROM targets WHERE name = 'far' AND failures >= 2",
            "the target to be given up for now")
        second = self.build("second")
        self.wait_until(
            lambda: not self.server.cache.lacks([first, second]),
            "the other target to have both", detail=queue.log_tail)
        self.assertEqual(
            [{"health": "ok"}],
            queue.rows("SELECT health FROM targets WHERE name = 'near'"))
        code, _ = queue.stop()
        self.assertEqual(0, code)


if __name__ == "__main__":
    unittest.main()
