"""offload-server-test and offload-generate-cache-keys."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands
from commands import FAILED, USAGE


class TryIt(commands.ServerTest):

    def test_what_is_built_is_served(self):
        # As a cache of this machine's own store does, the server gets what
        # was built, and signs it.
        def publish(request):
            if request.key.endswith(".narinfo") and (
                    not os.path.exists(self.server.cache.file(request.key))):
                self.publish(request.key)
        self.server.fault = publish
        report = self.report("offload-server-test", *self.arguments())
        path = report.document["path"]
        self.assertTrue(self.nix.valid(path))
        self.assert_finding(report, "ok", "build", path)
        self.assert_finding(report, "ok", "path ", "signed by test-1")

    def publish(self, key):
        for path in self.nix.lines(["nix", "path-info", "--all"]):
            if os.path.basename(path).startswith(key[:32]):
                self.upload(path, url="file://" + self.server.directory)

    def test_what_is_built_is_not_served(self):
        report = self.report("offload-server-test", *self.arguments(),
                             code=FAILED)
        self.assert_finding(report, "failed", "served", "just built",
                            "nix path-info --store")

    def test_it_does_not_build(self):
        self.configure(sandbox_paths="/nonexistent", sandbox="true",
                       sandbox_fallback="false")
        report = self.report("offload-server-test", *self.arguments(),
                             code=FAILED)
        self.assert_finding(report, "failed", "build", "", "nix-build -v")


class Keys(commands.CommandTest):

    def setUp(self):
        super().setUp()
        self.make_nix(daemon=False)
        self.secret = os.path.join(self.base, "keys", "cache-priv-key.pem")
        self.public = os.path.join(self.base, "keys", "cache-pub-key.pem")

    def make(self, *arguments, code=0):
        return self.report("offload-generate-cache-keys", "--secret",
                           self.secret, *arguments, code=code)

    def read(self, file):
        with open(file, encoding="ascii") as text:
            return text.read()

    def test_a_new_pair(self):
        report = self.make("--name", "hawk.internal-1")
        self.assertEqual(0o600, os.stat(self.secret).st_mode & 0o777)
        self.assertTrue(self.read(self.secret).startswith("hawk.internal-1:"))
        public = self.read(self.public).strip()
        self.assertTrue(public.startswith("hawk.internal-1:"))
        self.assertEqual(public, report.document["public_key"])
        # It is a pair: what the one signs, the other proves.
        path = self.nix.build('derivation { name = "x"; system = builtins.'
                              'currentSystem; builder = "/bin/sh"; args = '
                              '[ "-c" "echo > $out" ]; }')[0]
        self.nix.run(["nix", "store", "sign", "--key-file", self.secret, path])
        cache = self.place("c")
        self.nix.run(["nix", "copy", "--to", f"file://{cache}", path])
        self.nix.run(["nix", "store", "verify", "--store", f"file://{cache}",
                      "--option", "trusted-public-keys", public, path])

    def test_a_secret_is_neither_shown_nor_an_argument(self):
        self.fake("nix", f"""
          echo "$*" >>{self.base}/arguments
          exec /usr/bin/nix "$@" """)
        result = self.run_command("offload-generate-cache-keys", "--secret",
                                  self.secret)
        secret = self.read(self.secret).split(":")[1].strip()
        self.assertNotIn(secret, result.stdout + result.stderr)
        self.assertIn("convert-secret-to-public",
                      self.read(self.base + "/arguments"))
        self.assertNotIn(secret, self.read(self.base + "/arguments"))

    def test_what_is_there_is_kept(self):
        first = self.make("--name", "a-1").document["public_key"]
        os.unlink(self.public)
        self.assertEqual(first, self.make().document["public_key"])
        self.assertEqual(first + "\n", self.read(self.public))
        report = self.make("--name", "a-2", code=FAILED)
        self.assert_finding(report, "failed", "name", "is a-1, not a-2")
        self.assertTrue(self.read(self.secret).startswith("a-1:"))

    def test_the_public_key_of_another(self):
        self.make("--name", "a-1")
        with open(self.public, "w", encoding="ascii") as file:
            file.write("b-1:AAAA\n")
        report = self.make(code=FAILED)
        self.assert_finding(report, "failed", "public key", "another key")

    def test_an_owner_who_does_not_exist(self):
        report = self.make("--owner", "nixq-" + self.salt[:8], code=FAILED)
        self.assert_finding(report, "failed", "signing key", "invalid user")

    def test_a_place_that_cannot_be_written(self):
        report = self.report("offload-generate-cache-keys", "--secret",
                             "/proc/key", code=FAILED)
        self.assert_finding(report, "failed", "signing key", "cannot write")

    def test_names(self):
        self.run_command("offload-generate-cache-keys", "--name", "a:b",
                         code=USAGE)
        for secret, public in (("x.secret", "x.public"), ("key", "key.pub")):
            self.report("offload-generate-cache-keys", "--secret",
                        os.path.join(self.base, secret))
            self.assertTrue(os.path.exists(os.path.join(self.base, public)))


if __name__ == "__main__":
    unittest.main()
