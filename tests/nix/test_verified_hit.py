"""The last step of the guides: a path that another machine has built is
downloaded, signed and trusted, while nothing may be built."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands

import private_nix

NO_BUILDS = ["--option", "max-jobs", "0", "--option", "builders", ""]


class VerifiedHit(commands.CacheTest):

    def setUp(self):
        super().setUp()
        self.path = self.upload(self.build())

    def client(self, key):
        """Another machine, configured as the page for clients says."""
        store = self.make_second_store([key])
        store.settings.update(commands.PATIENT)
        store.settings["substituters"] = self.server.url
        private_nix.write_nix_conf(os.path.join(store.base, "etc"),
                                   store.settings)
        return store

    def realise(self, store):
        return store.run(["nix-store", "--realise", self.path, *NO_BUILDS],
                         check=False)

    def test_a_hit(self):
        store = self.client(self.public_key)
        result = self.realise(store)
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertIn(f"copying path '{self.path}' from '{self.server.url}'",
                      result.stderr)
        self.assertTrue(store.valid(self.path))

    def test_a_key_that_is_not_trusted_makes_none(self):
        _, other = self.nix.generate_key("other-1")
        store = self.client(other)
        self.assertNotEqual(0, self.realise(store).returncode)
        self.assertFalse(store.valid(self.path))

    def test_a_no_is_remembered_until_it_is_cleared(self):
        store = self.client(self.public_key)
        narinfo = self.server.cache.file(
            os.path.basename(self.path)[:32] + ".narinfo")
        os.rename(narinfo, narinfo + ".later")
        self.assertNotEqual(0, self.realise(store).returncode)
        os.rename(narinfo + ".later", narinfo)
        self.assertNotEqual(0, self.realise(store).returncode)
        self.run_command("cache-management", "clear", **{
            name: store.environment[name]
            for name in ("XDG_CACHE_HOME", "NIX_CONF_DIR", "NIX_REMOTE")})
        self.assertEqual(0, self.realise(store).returncode)


if __name__ == "__main__":
    unittest.main()
