"""`cmake --install` puts everything where people look for it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import command_line
import source_tree

LIMIT_SECONDS = 100
MAN = "share/man/"
UNITS = "lib/systemd/system/"
COMMANDS = "share/nix-queued/commands/"
SCRIPTS = os.path.join(source_tree.ROOT, "nixos-module", "scripts")
COMMON = [
    "bin/queued-hook", "bin/queued", "bin/queuectl",
    MAN + "man1/queued-hook.1", MAN + "man1/queuectl.1",
    MAN + "man5/queued.toml.5", MAN + "man8/queued.8",
    "share/doc/nix-queued/examples/queued.toml",
    "share/doc/nix-queued/examples/minimal.toml",
    "share/bash-completion/completions/queued",
    "share/bash-completion/completions/queuectl",
    "share/zsh/site-functions/_queued", "share/zsh/site-functions/_queuectl",
    "share/fish/vendor_completions.d/queued.fish",
    "share/fish/vendor_completions.d/queuectl.fish",
]
LINUX = [
    UNITS + "nix-queued.service", UNITS + "nix-queued.socket",
    UNITS + "prune-arm-cache-roots.service",
    UNITS + "prune-arm-cache-roots.timer",
    "lib/sysusers.d/nix-queued.conf", "lib/tmpfiles.d/nix-queued.conf",
]
APPLE = ["Library/LaunchDaemons/org.nix-queued.plist"]


class Install(unittest.TestCase):
    def test_everything_is_in_its_place(self):
        build = os.path.dirname(command_line.BIN)
        cache = os.path.join(build, "CMakeCache.txt")
        if not os.path.exists(cache):
            self.fail(f"{build} is no build: set NIXQ_BIN to its bin/")
        with open(cache, encoding="utf-8") as file:
            prefix = re.search(r"^CMAKE_INSTALL_PREFIX:\w+=(.*)$",
                               file.read(), re.MULTILINE).group(1)
        root = tempfile.mkdtemp(prefix="nixq-install-")
        self.addCleanup(shutil.rmtree, root)
        result = subprocess.run(
            ["cmake", "--install", build], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=LIMIT_SECONDS, check=False,
            env={**os.environ, "DESTDIR": root})
        self.assertEqual(0, result.returncode, result.stdout)
        installed = root + prefix
        found = sorted(
            os.path.relpath(os.path.join(folder, name), installed)
            for folder, _, names in os.walk(installed) for name in names)
        commands = [name for name in os.listdir(SCRIPTS) if "-" in name]
        self.assertIn("cache-status", commands)
        wanted = COMMON + (APPLE if sys.platform == "darwin" else LINUX)
        wanted = wanted + [COMMANDS + os.path.relpath(
            os.path.join(folder, name), SCRIPTS)
            for folder, _, names in os.walk(SCRIPTS) for name in names
        ] + ["bin/" + name for name in commands]
        self.assertEqual(sorted(wanted), found)
        for name in found:
            with open(os.path.join(installed, name), "rb") as file:
                text = file.read()
            if name.startswith(("lib/systemd", "Library")):
                self.assertNotIn(b"@CMAKE", text, name)
            if name.endswith(".service"):
                self.assertIn(f"\nExecStart={prefix}/bin/queue".encode(),
                              text, name)
        for name in commands:
            said = subprocess.run(
                [os.path.join(installed, "bin", name), "--help"],
                capture_output=True, text=True, timeout=LIMIT_SECONDS,
                check=False)
            self.assertEqual((0, ""), (said.returncode, said.stderr), name)


if __name__ == "__main__":
    unittest.main()
