#!/usr/bin/env python3
"""A build that another machine has ordered, by the installed Nix.

The builder gets the derivation without its .drv: neither OUT_PATHS (empty in
Nix 2.8.0) nor a file says what the outputs are; Nix's database does. The
builder is the same machine in a mount namespace of its own, in which the store
directory shows another store.
"""

import os
import shlex
import subprocess
import unittest

from hook_world import HookTest, HOOK, note

import private_nix  # noqa: E402  (found through hook_world)

SSH = """#!/bin/sh
for word; do command=$word; done
exec unshare --mount sh -c {script} sh "$command"
"""
SCRIPT = """
mount --bind {builder}/store {store} && mount --bind {builder}/var {state} &&
cd / && export NIX_CONF_DIR={builder}/etc NIX_STATE_DIR={state} \
  NIX_STORE_DIR={store} NIX_QUEUED_STATE_DIR={queue} NIX_CONFIG= NIX_REMOTE= &&
eval "exec $1"
"""


class Builder(HookTest):

    def setUp(self):
        super().setUp()
        self.nix = private_nix.PrivateNix(os.path.join(self.base, "n"))
        self.addCleanup(self.nix.remove)
        builder = os.path.join(self.base, "builder")
        for name in ("store", "var", "etc"):
            os.makedirs(os.path.join(builder, name))
        private_nix.write_nix_conf(
            os.path.join(builder, "etc"),
            {**private_nix.BASE_SETTINGS, "post-build-hook": HOOK})
        self.roots = os.path.join(builder, "var", "gcroots", "arm-cache")
        programs = os.path.join(self.base, "bin")
        os.mkdir(programs)
        script = SCRIPT.format(builder=builder, store=self.nix.store_dir,
                               state=self.nix.state_dir, queue=self.state)
        with open(os.path.join(programs, "ssh"), "w",
                  encoding="ascii") as file:
            file.write(SSH.format(script=shlex.quote(script)))
        os.chmod(file.name, 0o755)
        self.nix.environment["PATH"] = (
            programs + ":" + self.nix.environment["PATH"])

    def on_the_builder(self, *argv):
        return subprocess.run(["ssh", "builder", shlex.join(argv)],
                              env=self.nix.environment, check=True,
                              capture_output=True, text=True).stdout

    def check(self, scheme):
        if os.geteuid() != 0 or subprocess.run(
                ["unshare", "--mount", "true"], check=False,
                capture_output=True).returncode != 0:
            note("builds for other machines are not tested: no namespaces")
            return
        self.on_the_builder("nix-store", "--init")
        result = self.nix.run(
            ["nix-build", "--no-out-link", "--max-jobs", "0", "--builders",
             f"{scheme}://builder x86_64-linux,aarch64-linux - 2",
             "-E", private_nix.chain("far", 2, scheme)], check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = self.rows()
        self.assertEqual(
            [(kind, path[-5:], deriver[-9:]) for kind, path, deriver, _, _
             in rows],
            [("output", "far-0", "far-0.drv"),
             ("output", "far-1", "far-1.drv")])
        self.assert_held(*(row[1] for row in rows))
        self.on_the_builder("nix-store", "--gc")
        for row in rows:
            self.on_the_builder("nix-store", "--check-validity", row[1])

    def test_over_ssh(self):
        self.check("ssh")

    def test_over_ssh_ng(self):
        self.check("ssh-ng")


if __name__ == "__main__":
    unittest.main()
