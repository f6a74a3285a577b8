"""The table of nixos-module/README.md: no row is missing, and every option,
command, file and test that it names exists."""

import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import support

HERE = os.path.dirname(os.path.abspath(__file__))
README = os.path.join(support.MODULES, "README.md")
# How many rows of a kind there are, and those that belong to one site only.
ROWS = {"M": 30, "O": 9, "U": 9, "C": 18, "P": 10, "B": 28, "V": 13, "T": 13}
OF_ONE_SITE = {"M20", "M27", "M28", "C13", "C15", "B22"}
WITHOUT_A_FOLDER = {"queuectl", "queued-hook", "sqlite3", "nix"}
FROM_ELSEWHERE = {"nix.gc", "require-sigs", "max-jobs", "roots",
                  "max-jobs = 0", "--no-link", "enable", "substituers"}


def rows():
    """(row, what, covered by, shown by) of every row."""
    with open(README, encoding="utf-8") as file:
        for line in file:
            cells = [cell.strip() for cell in line.strip().strip("|")
                     .split(" | ")]
            if re.fullmatch(r"[A-Z]\d+", cells[0]):
                if len(cells) != 4:
                    raise ValueError(line)
                yield cells


class Table(unittest.TestCase):

    def test_every_row_is_there_once(self):
        expected = {f"{kind}{number + 1}" for kind, count in ROWS.items()
                    for number in range(count)} - OF_ONE_SITE
        found = [row[0] for row in rows()]
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual(expected, set(found))

    def test_what_covers_it_exists(self):
        with open(os.path.join(support.MODULES, "OPTIONS.md"),
                  encoding="utf-8") as file:
            options = re.findall(r"^##+ `([^`]+)`", file.read(), re.M)
        with open(os.path.join(support.MODULES, "default.nix"),
                  encoding="utf-8") as file:
            outputs = file.read()
        commands = set(os.listdir(os.path.join(support.MODULES, "scripts")))
        for row, _, covered, _ in rows():
            for word in re.findall(r"`([^`]+)`", covered):
                with self.subTest(row, word=word):
                    if word.startswith(("services.", "kernelcore.")):
                        self.assertTrue(any(
                            option == word or option.startswith(word + ".")
                            for option in options), word)
                    elif word.startswith(("darwinModules", "nixosModules")):
                        self.assertIn(word.split(".")[-1], outputs)
                    elif word.startswith("lib."):
                        self.assertTrue(os.path.exists(os.path.join(
                            support.MODULES, "lib", word[4:] + ".nix")))
                    elif word not in FROM_ELSEWHERE | {"lib"}:
                        self.assertIn(word.split()[0],
                                      commands | WITHOUT_A_FOLDER)

    def test_what_shows_it_exists(self):
        for row, _, _, shown in rows():
            self.assertTrue(shown, row)
            file = None
            for name in shown.split(", "):
                words = name.split()
                if words[0].startswith(("test_", "../")):
                    file = words.pop(0)
                with self.subTest(row, name=name):
                    self.assertIsNotNone(file)
                    with open(os.path.join(HERE, file + ".py"),
                              encoding="utf-8") as source:
                        text = source.read()
                    if words:
                        group, _, method = words[0].partition(".")
                        body = re.search(rf"^class {group}\b.*?(?=^class |\Z)",
                                         text, re.M | re.S)
                        self.assertTrue(body, f"{file} has no {group}")
                        if method:
                            self.assertIn(f"def {method}(", body[0])


if __name__ == "__main__":
    unittest.main()
