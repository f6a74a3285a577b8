#!/usr/bin/env python3
"""The manual page, the help and the program agree."""

import os
import re
import shutil
import subprocess
import unittest

from hook_world import HookTest, SOURCE, note

VARIABLE = re.compile(
    r"\b(?:NIX_[A-Z_]+|DRV_PATH|OUT_PATHS|XDG_STATE_HOME|HOME)\b")


def read(*names):
    with open(os.path.join(SOURCE, *names), encoding="utf-8") as file:
        return file.read()


class Manual(HookTest):

    def test_variables_are_those_that_the_program_reads(self):
        program = set()
        for name in ("settings.cc", "main.cc"):
            program |= {word for text in re.findall(r'"[^"\n]*"',
                                                    read("hook", name))
                        for word in VARIABLE.findall(text)}
        manual = set()
        for line in read("hook", "queued-hook.1").splitlines():
            if line.startswith(".It Ev "):
                manual |= set(VARIABLE.findall(line))
        self.assertEqual(manual, program)

    def test_options_are_those_of_the_help(self):
        text = self.run_hook("--help").out
        manual = {f"-{name}" for name in re.findall(
            r"^\.It Fl (-\w+)", read("hook", "queued-hook.1"), re.MULTILINE)}
        self.assertEqual(set(re.findall(r"--\w+", text)), manual)
        for option in manual:
            self.assertEqual(self.run_hook(option).code, 0)

    def test_page_has_no_mistakes(self):
        page = os.path.join(SOURCE, "hook", "queued-hook.1")
        if shutil.which("mandoc"):
            command = ["mandoc", "-Tlint", "-Wwarning", page]
        elif shutil.which("man"):
            command = ["man", "-l", "--warnings", page]
        else:
            note("the manual page is not rendered: neither mandoc nor man")
            return
        shown = subprocess.run(command, check=False, capture_output=True,
                               text=True)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
