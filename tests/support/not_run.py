#!/usr/bin/env python3
"""What a run of ctest has left out: `not_run.py BUILD_DIR...`

Reads what ctest keeps of its last run in each build and prints one line for
each test that skipped itself, or a part of itself:

    hook/test_hang: frozen file systems are not tested here: no mkfs.ext4

Those are what unittest and GoogleTest call skipped, and lines of output that
begin with "NOTE: ". --skipped prints how many whole tests ctest counts among
the passed ones although they only skipped themselves.
"""

import ast
import os
import re
import sys

TEST = re.compile(r"\d+/\d+ Test(?:ing)?: (.*)")
UNITTEST = re.compile(r"(?:\s*(\w+) \(.*\))?.*\.\.\. skipped "
                      r"('.*'|\".*\")")
GTEST = re.compile(r"\S+:\d+: Skipped")


def left_out(lines):
    """[(test, reason)] of a LastTest.log, in its order, each once."""
    found = {}
    test = ""
    lines = iter(lines)
    for line in lines:
        line = line.rstrip()
        if match := TEST.fullmatch(line):
            test = match[1]
        elif line.startswith("NOTE: "):
            found[test, line.removeprefix("NOTE: ")] = True
        elif match := UNITTEST.fullmatch(line):
            part = match[1] or ""
            where = f"{test} {part}" if part.startswith("test") else test
            found[where, ast.literal_eval(match[2])] = True
        elif GTEST.fullmatch(line):
            reason = next(lines, "").strip().removeprefix("NOT RUN: ")
            found[test, reason or "skipped"] = True
    return list(found)


def last_run(build):
    """The lines of the last run's log; none if there was no run."""
    name = os.path.join(build, "Testing", "Temporary", "LastTest.log")
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.readlines()
    except FileNotFoundError:
        return []


def main():
    if sys.argv[1] == "--skipped":
        print(sum(line.startswith("Skip regular expression found")
                  for build in sys.argv[2:] for line in last_run(build)))
        return
    for build in sys.argv[1:]:
        for test, reason in left_out(last_run(build)):
            print(f"{test}: {reason}")


if __name__ == "__main__":
    main()
