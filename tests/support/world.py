"""A test case with a Nix, a queue and whatever caches it asks for."""

import faulthandler
import os
import tempfile
import unittest
import uuid

import cache_server
import children
import nginx
import private_nix
import queued
import ssh_server


class WorldTest(unittest.TestCase):
    """Makes things on request and unmakes all of them, whatever happens."""

    maxDiff = None

    def setUp(self):
        # A test that hangs says where before whoever runs it loses patience.
        faulthandler.dump_traceback_later(240 * children.SLOWNESS)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        # Short, since Unix sockets have 108 bytes for their whole path.
        self.base = tempfile.mkdtemp(prefix="nixq-", dir="/tmp")
        self.addCleanup(private_nix.remove_tree, self.base)
        self.salt = uuid.uuid4().hex
        self.nix = None
        self.second_stores = 0
        self.queues = 0

    def place(self, name):
        directory = os.path.join(self.base, name)
        os.makedirs(directory, exist_ok=True)
        return directory

    def make_nix(self, hook=None, settings=None, environment=None,
                 daemon=True):
        """The Nix of this test; its hook writes to the first queue."""
        self.nix = private_nix.PrivateNix(self.place("n"), hook, settings, {
            "NIX_QUEUED_STATE_DIR": os.path.join(self.base, "q1", "state"),
            **(environment or {})})
        self.addCleanup(self.nix.remove)
        if daemon:
            self.nix.start_daemon()
        self.secret_key, self.public_key = self.nix.generate_key("test-1")
        return self.nix

    def make_queue(self, targets, tables=None, start=True, **options):
        """A queue with its daemon, signing with the test's key."""
        self.queues += 1
        options.setdefault("key_files", [self.secret_key])
        queue = queued.Queued(self.place(f"q{self.queues}"), self.nix, targets,
                              tables, **options)
        self.addCleanup(queue.end)
        if start:
            queue.start()
        return queue

    def make_second_store(self, public_keys=None):
        self.second_stores += 1
        store = private_nix.SecondStore(
            self.place(f"s{self.second_stores}"), self.nix,
            [self.public_key] if public_keys is None else public_keys)
        self.addCleanup(private_nix.remove_tree, store.base)
        return store

    def make_cache_server(self, **options):
        server = cache_server.CacheServer(self.place("served"), **options)
        self.addCleanup(server.stop)
        return server

    def make_nginx(self):
        server = nginx.Nginx(self.place("nginx"))
        self.addCleanup(server.stop)
        return server

    def make_ssh_store(self):
        store = ssh_server.SshStore(self.place("ssh"),
                                    self.make_second_store())
        self.addCleanup(store.stop)
        return store

    # --- What more than one test asserts -----------------------------------

    def assert_whole(self, cache, paths):
        """All of `paths` are at `cache`, and nothing is half-visible."""
        self.assertEqual([], cache.lacks(paths))
        self.assertEqual([], cache.problems())

    def assert_reads_back(self, url, paths):
        """Nix copies the closures from `url` to a store that requires
        signatures, and is content with every byte. Returns that store."""
        store = self.make_second_store()
        store.copy_from(url, paths)
        store.verify(paths)
        closure = self.nix.closure(paths)
        self.assertEqual(sorted(closure), sorted(store.closure(paths)))
        return store

    def wait_until(self, condition, what, limit=60, detail=lambda: ""):
        return children.wait_until(condition, limit, what, detail)
