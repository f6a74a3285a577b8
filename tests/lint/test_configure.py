"""What CMake decides by itself, and what people are told to do before it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import source_tree

LIMIT_SECONDS = 300
# A compiler of a system without static libraries.
NO_STATIC = """#!/bin/sh
for word; do
  [ "$word" != -static ] || { echo "no static libraries" >&2; exit 1; }
done
exec c++ "$@"
"""


@unittest.skipIf(sys.platform == "darwin", "macOS has no static programs")
class StaticHook(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="nixq-configure-")
        self.addCleanup(shutil.rmtree, self.base)
        self.compiler = os.path.join(self.base, "c++")
        with open(self.compiler, "w", encoding="utf-8") as file:
            file.write(NO_STATIC)
        os.chmod(self.compiler, 0o755)

    def configure(self, *options):
        """(exit code, what was said in words with one space between)."""
        done = subprocess.run(
            ["cmake", "-G", "Ninja", "-S", source_tree.ROOT, "-B",
             os.path.join(self.base, "build"), "-DNIXQ_BUILD_TESTS=OFF",
             f"-DCMAKE_CXX_COMPILER={self.compiler}", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS,
            check=False)
        return done.returncode, " ".join(done.stdout.split())

    def test_no_static_libraries(self):
        code, said = self.configure()
        self.assertEqual(0, code, said)
        self.assertIn("queued-hook is linked dynamically", said)
        with open(os.path.join(self.base, "build", "build.ninja"),
                  encoding="utf-8") as file:
            self.assertNotIn("-static", file.read())
        with self.subTest("asked for"):
            code, said = self.configure("-DNIXQ_STATIC_HOOK=ON")
            self.assertNotEqual(0, code, said)
            self.assertIn("NIXQ_STATIC_HOOK=ON, but there are no static "
                          "libraries", said)
        with self.subTest("not wanted"):
            code, said = self.configure("-DNIXQ_STATIC_HOOK=OFF")
            self.assertEqual(0, code, said)
            self.assertNotIn("queued-hook is linked", said)


class Release(unittest.TestCase):
    """What people build who only want to install it."""

    def test_needs_nothing_of_a_developer(self):
        presets = json.loads(source_tree.read("CMakePresets.json"))
        values, = [preset["cacheVariables"]
                   for preset in presets["configurePresets"]
                   if preset["name"] == "release"]
        self.assertEqual(("OFF", "OFF"), (values["NIXQ_BUILD_TESTS"],
                                          values["NIXQ_WERROR"]))

    def test_documented_packages_are_those_that_are_installed(self):
        wanted = re.search(
            r"^build_packages=\((.*?)\)",
            source_tree.read("tests/support/packages.sh"), re.M | re.S)[1]
        for page in ("README.md", "nixos-module/docs/linux.md"):
            text = source_tree.read(page).replace("\\\n", " ")
            named = re.search(r"^sudo apt install (.*)$", text, re.M)[1]
            with self.subTest(page):
                self.assertEqual(wanted.split(), named.split())


if __name__ == "__main__":
    unittest.main()
