"""The manual pages: well formed, and of one mind with --help."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

import command_line
import source_tree

LIMIT_SECONDS = 60
EXPECTED = ["hook/queued-hook.1", "queued/queuectl/queuectl.1",
            "queued/queued.8", "queued/queued.toml.5"]


def pages():
    return source_tree.files((".1", ".5", ".8"), ("hook", "queued"))


def complaints(page):
    """What the formatter has against a page."""
    if not shutil.which("man"):
        raise AssertionError("man is missing: install man-db")
    result = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", page],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, timeout=LIMIT_SECONDS, check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
             "MANWIDTH": "80", "MANPAGER": "cat", "TERM": "dumb"})
    found = result.stderr.splitlines()
    if result.returncode != 0:
        found.append(f"exit code {result.returncode}")
    if not result.stdout.strip():
        found.append("nothing came out")
    return found


def flags(text):
    """The options that mdoc source names with .Fl, with their dashes."""
    found = set()
    for line in text.splitlines():
        if not line.startswith(".") or line.startswith('.\\"'):
            continue
        words = line[1:].split()
        for index, word in enumerate(words):
            if word == "Fl" and index + 1 < len(words):
                found.add("-" + words[index + 1])
    return found


def commands(text):
    """{command: options} of the .It Cm lines of queuectl(1)."""
    return {match.group(1): flags("." + (match.group(2) or ""))
            for match in re.finditer(r"^\.It Cm ([a-z]+)\b *(.*)$", text,
                                     re.MULTILINE)
            if match.group(1) in command_line.COMMANDS}


class Rendering(unittest.TestCase):
    def test_all_pages_are_there(self):
        self.assertEqual(EXPECTED, pages())

    def test_pages_render_without_warnings(self):
        for page in pages():
            with self.subTest(page):
                self.assertEqual(
                    [], complaints(os.path.join(source_tree.ROOT, page)))

    def test_a_broken_page_is_found(self):
        with tempfile.NamedTemporaryFile("w", suffix=".1") as page:
            page.write(".Dd x\n.Dt A 1\n.Os\n.Sh NAME\n.Nm a\n.Nd b\n"
                       ".Unknown\n.Bl -tag\n.It x\n")
            page.flush()
            self.assertTrue(complaints(page.name))

    def test_pages_say_what_pages_say(self):
        for page in pages():
            text = source_tree.read(page)
            for section in ("NAME", "DESCRIPTION", "SEE ALSO"):
                with self.subTest(page=page, section=section):
                    self.assertIn(f"\n.Sh {section}\n", text)

    def test_pages_of_ours_that_are_named_exist(self):
        ours = {tuple(os.path.basename(page).rsplit(".", 1))
                for page in pages()}
        for page in pages():
            for name, section in re.findall(
                    r"^\.Xr (queue\S+) (\d)", source_tree.read(page),
                    re.MULTILINE):
                with self.subTest(page=page, reference=name):
                    self.assertIn((name, section), ours)


class Options(unittest.TestCase):
    def test_queued(self):
        self.assertEqual(command_line.options("queued"),
                         flags(source_tree.read("queued/queued.8")))

    def setUp(self):
        self.page = source_tree.read("queued/queuectl/queuectl.1")

    def common(self):
        """The options that every command has, as the page lists them."""
        head = self.page.partition(".Ss Reading")[0]
        return {option for option in flags(head) if option != "--version"}

    def test_queuectl_itself(self):
        self.assertEqual(
            command_line.options("queuectl") - {"-h"},
            flags(self.page.partition(".Ss Reading")[0]) - {"-h"})

    def test_commands(self):
        shown = command_line.commands_in(
            command_line.help_text("queuectl"))
        self.assertEqual(set(command_line.COMMANDS), shown)
        self.assertEqual(set(commands(self.page)), shown)

    def test_options_of_each_command(self):
        documented = commands(self.page)
        for command in command_line.COMMANDS:
            with self.subTest(command):
                self.assertEqual(
                    command_line.options("queuectl", command) - {"-h"},
                    (documented.get(command, set()) | self.common())
                    - {"-h"})


if __name__ == "__main__":
    unittest.main()
