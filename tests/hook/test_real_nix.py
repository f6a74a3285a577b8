#!/usr/bin/env python3
"""Real builds by the installed Nix, with the hook as its post-build-hook."""

import os
import unittest
import uuid

from hook_world import HookTest, HOOK

import private_nix  # noqa: E402  (found through hook_world)

CONTENT_ADDRESSED = {
    "__contentAddressed": "true",
    "outputHashMode": '"recursive"',
    "outputHashAlgo": '"sha256"',
}


class RealNix(HookTest):
    """Without a daemon: Nix itself runs the hook."""

    daemon = False

    def setUp(self):
        super().setUp()
        self.salt = uuid.uuid4().hex
        self.nix = private_nix.PrivateNix(
            os.path.join(self.base, "n"), HOOK,
            environment={"NIX_QUEUED_STATE_DIR": self.state})
        self.addCleanup(self.nix.remove)
        self.roots = self.nix.roots_dir
        if self.daemon:
            self.nix.start_daemon()

    def build(self, expression):
        """Builds; the hook must not have said anything."""
        result = self.nix.build(expression, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        for line in result.stderr.splitlines():
            # Nix's own line of it ends in "...", not in what it printed.
            self.assertNotIn("queued-hook: ", line)
            self.assertFalse(line.startswith("post-build-hook: "), line)
        return result.stdout.split()

    def test_one(self):
        [output] = self.build(private_nix.derivation(
            "one", f"echo {self.salt} > $out"))
        [(kind, path, deriver, named, source)] = self.rows()
        self.assertEqual((kind, path, named, source),
                         ("output", output, 1, "hook"))
        self.assertTrue(deriver.endswith("-one.drv"), deriver)
        self.assert_held(output)

    def test_chain_and_garbage_collection(self):
        [output] = self.build(private_nix.chain("chain", 4, self.salt))
        rows = self.rows()
        self.assertEqual(len(rows), 4)
        self.assertEqual(rows[-1][1], output)
        built = [row[1] for row in rows]
        self.assert_held(*built)
        self.nix.collect_garbage()
        for path in built:
            self.assertTrue(self.nix.valid(path), path)
        # The roots are what held them.
        for path in built:
            os.unlink(self.root(path))
        self.nix.collect_garbage()
        for path in built:
            self.assertFalse(self.nix.valid(path), path)

    def test_all_outputs_though_one_was_wanted(self):
        [output] = self.build(private_nix.multi_output("lib", self.salt))
        names = sorted(path[len(self.nix.store_dir) + 34:]
                       for path in self.paths())
        self.assertEqual(names, ["lib", "lib-dev", "lib-doc"])
        self.assertIn(output, self.paths())
        self.assert_held(*self.paths())

    def check_told_by_the_database(self, names):
        """All are queued and held, and nothing is left to ask the daemon."""
        self.assertEqual({row[0] for row in self.rows()}, {"output"})
        self.assertEqual({path[len(self.nix.store_dir) + 34:]
                          for path in self.paths()}, names)
        self.assert_held(*self.paths())
        self.nix.collect_garbage()
        for path in self.paths():
            self.assertTrue(self.nix.valid(path), path)

    def test_content_addressed(self):
        self.build(private_nix.derivation(
            "floating", f"echo {self.salt} > $out", **CONTENT_ADDRESSED))
        self.check_told_by_the_database({"floating"})

    def test_content_addressed_with_several_outputs(self):
        attributes = " ".join(f"{name} = {value};" for name, value
                              in CONTENT_ADDRESSED.items())
        self.build(private_nix.multi_output("lib", self.salt).replace(
            "outputs =", f"{attributes} outputs ="))
        self.check_told_by_the_database({"lib", "lib-dev", "lib-doc"})

    def test_of_a_content_addressed_input(self):
        """Nix runs the hook for the derivation as written, and again, or
        only, for the one with the real input."""
        dependency = private_nix.derivation(
            "dependency", f"echo {self.salt} > $out", **CONTENT_ADDRESSED)
        self.build(private_nix.derivation(
            "deferred", "echo $dependency > $out",
            dependency=f"({dependency})"))
        self.check_told_by_the_database({"dependency", "deferred"})

    def test_queue_that_cannot_be_written_does_not_stop_a_build(self):
        with open(self.state, "w", encoding="ascii") as file:
            file.write("in the way")
        result = self.nix.build(private_nix.derivation(
            "lost", f"echo {self.salt} > $out"), check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("not queued: " + result.stdout.strip(), result.stderr)

    def test_built_again(self):
        expression = private_nix.derivation("again",
                                            f"echo {self.salt} > $out")
        [output] = self.build(expression)
        os.utime(self.root(output), (1, 1), follow_symlinks=False)
        result = self.nix.build(expression, "--check", check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        # Whether Nix runs the hook for a check depends on its version.
        if len(self.rows()) > 1:
            self.assertGreater(os.lstat(self.root(output)).st_mtime, 1)
        self.assertEqual(set(self.paths()), {output})


class RealNixDaemon(RealNix):
    """Through the daemon, which runs the hook with its own environment."""

    daemon = True


if __name__ == "__main__":
    unittest.main()
