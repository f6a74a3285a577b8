"""`cmake --install` puts everything where people look for it."""

import os
import plistlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import command_line
import source_tree

LIMIT_SECONDS = 300
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


def configured():
    """(build directory, prefix) of the build under test."""
    build = os.path.dirname(command_line.BIN)
    cache = os.path.join(build, "CMakeCache.txt")
    if not os.path.exists(cache):
        raise AssertionError(f"{build} is no build: set NIXQ_BIN to its bin/")
    with open(cache, encoding="utf-8") as file:
        return build, re.search(r"^CMAKE_INSTALL_PREFIX:\w+=(.*)$",
                                file.read(), re.MULTILINE).group(1)


def starts(name, text):
    """The program that a service or launchd job starts."""
    if name.endswith(".plist"):
        return plistlib.loads(text)["ProgramArguments"][0]
    return re.search(r"^ExecStart=(\S+)", text.decode(), re.MULTILINE)[1]


class Install(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="nixq-install-")
        self.addCleanup(shutil.rmtree, self.root)

    def install(self, *options, destdir=""):
        result = subprocess.run(
            ["cmake", "--install", configured()[0], *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS,
            check=False, env={**os.environ, "DESTDIR": destdir})
        self.assertEqual(0, result.returncode, result.stdout)

    def check_services(self, prefix, destdir):
        """What they start has the prefix, and is there."""
        count = 0
        for name in APPLE if sys.platform == "darwin" else LINUX:
            file = f"{destdir}{prefix}/{name}"
            with open(file, "rb") as stream:
                text = stream.read()
            self.assertNotIn(b"@CMAKE", text, name)
            self.assertEqual(0o644, os.stat(file).st_mode & 0o7777, name)
            if name.endswith((".service", ".plist")):
                program = starts(name, text)
                self.assertEqual(f"{prefix}/bin", os.path.dirname(program))
                self.assertTrue(os.access(destdir + program, os.X_OK), name)
                count += 1
        self.assertGreater(count, 0)

    def test_everything_is_in_its_place(self):
        prefix = configured()[1]
        self.install(destdir=self.root)
        installed = self.root + prefix
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
        self.check_services(prefix, self.root)
        for name in commands:
            said = subprocess.run(
                [os.path.join(installed, "bin", name), "--help"],
                capture_output=True, text=True, timeout=LIMIT_SECONDS,
                check=False)
            self.assertEqual((0, ""), (said.returncode, said.stderr), name)

    def test_the_prefix_of_the_installation_counts(self):
        """As a package is made: --prefix /usr into a DESTDIR."""
        self.assertNotEqual("/usr", configured()[1])
        self.install("--prefix", "/usr", destdir=self.root)
        self.check_services("/usr", self.root)
        self.assertEqual(["usr"], os.listdir(self.root))
        with open(os.path.join(configured()[0], "install_manifest.txt"),
                  encoding="utf-8") as file:
            listed = file.read().splitlines()
        for name in APPLE if sys.platform == "darwin" else LINUX:
            self.assertIn("/usr/" + name, listed)

    def test_without_a_destdir(self):
        prefix = os.path.join(self.root, "opt")
        self.install("--prefix", prefix)
        self.check_services(prefix, "")


if __name__ == "__main__":
    unittest.main()
