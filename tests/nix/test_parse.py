"""Every Nix file is one: it parses, and keeps the house's style."""

import os
import re
import subprocess
import unittest

import support

MAX_COLUMNS = 80
# Addresses and keys cannot be broken.
UNBREAKABLE = re.compile(r"http|[\w.-]:[A-Za-z0-9+/]{43}=|ssh-ed25519")
FOLDERS_WITHOUT = {"build", "__pycache__", "node_modules"}


def nix_files():
    found = []
    for folder, children, names in os.walk(support.ROOT):
        children[:] = [child for child in children
                       if not child.startswith(".")
                       and child not in FOLDERS_WITHOUT]
        found += [os.path.join(folder, name) for name in names
                  if name.endswith(".nix")]
    return sorted(found)


def read(file):
    with open(file, encoding="utf-8") as text:
        return text.read()


def complaints(name, text):
    """What is not the house's style."""
    found = []
    if not text.startswith("#"):
        found.append(f"{name}: does not say at its top what it is")
    if not text.endswith("\n"):
        found.append(f"{name}: no newline at its end")
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        if len(line) > MAX_COLUMNS and not UNBREAKABLE.search(line):
            found.append(f"{where}: {len(line)} columns")
        if line != line.rstrip() or "\t" in line:
            found.append(f"{where}: stray whitespace")
        if re.match(r"with lib;", line):
            found.append(f"{where}: `with lib` for a whole file")
    return found


class Files(unittest.TestCase):

    def test_parse(self):
        files = nix_files()
        self.assertGreater(len(files), 20)
        result = support.run_nix(["nix-instantiate", "--parse", *files],
                                 check=False)
        self.assertEqual(0, result.returncode, result.stderr)

    def test_an_error_is_found(self):
        result = subprocess.run(
            ["nix-instantiate", "--parse", "-"], input="{ a = 1 }",
            text=True, env=support.environment(), capture_output=True,
            timeout=60, check=False)
        self.assertIn("syntax error", result.stderr)
        self.assertNotEqual(0, result.returncode)

    def test_style(self):
        found = [complaint for file in nix_files()
                 for complaint in complaints(
                     os.path.relpath(file, support.ROOT), read(file))]
        self.assertEqual([], found, "\n" + "\n".join(found))

    def test_style_is_looked_at(self):
        long = "# x\n" + "a" * (MAX_COLUMNS + 1) + "\n"
        for text in ("{ }\n", "# x", long, "# x\na \n", "# x\n\ta\n",
                     "# x\nwith lib;\n"):
            with self.subTest(text):
                self.assertEqual(1, len(complaints("x.nix", text)))
        self.assertEqual([], complaints("x.nix", "# x\n{ }\n"))

    def test_every_file_of_the_modules_is_used(self):
        """A file that nothing imports is a file that nothing tests."""
        files = [file for file in nix_files()
                 if file.startswith(support.MODULES + os.sep)]
        everything = "".join(read(file) for file in files)
        for file in files:
            name = os.path.basename(file)
            folder = os.path.basename(os.path.dirname(file))
            if os.path.relpath(file, support.MODULES) in ENTRANCES:
                continue
            with self.subTest(os.path.relpath(file, support.MODULES)):
                self.assertRegex(
                    everything,
                    rf"[./](/?{re.escape(folder)})?/?{re.escape(name)}\b"
                    if name != "default.nix" else rf"/{re.escape(folder)}\b")


# What users import.
ENTRANCES = {"flake.nix", "default.nix"}


if __name__ == "__main__":
    unittest.main()
