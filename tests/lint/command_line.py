"""What the programs' --help says, as data."""

import os
import re
import subprocess

BIN = os.environ.get("NIXQ_BIN", "")
LIMIT_SECONDS = 60
COMMANDS = ("status", "list", "show", "add", "retry", "forget", "pause",
            "resume", "prune", "wait", "check", "version")

OPTION_LINE = re.compile(r"^ {1,4}(-\S.*)$")
OPTION = re.compile(r"(?:^|[,\s])(--?[A-Za-z][\w-]*)")


def help_text(*command):
    """The --help of `queued` or of `queuectl`, VERB."""
    program = os.path.join(BIN, command[0])
    if not os.access(program, os.X_OK):
        raise AssertionError(
            f"no program {program}: NIXQ_BIN must name a complete build")
    result = subprocess.run(
        [program, *command[1:], "--help"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=LIMIT_SECONDS, check=False, env={"PATH": "/usr/bin:/bin"})
    if result.returncode != 0:
        raise AssertionError(f"{command} --help: exit code "
                             f"{result.returncode}\n{result.stderr}")
    return result.stdout


def options_in(text):
    """The options that a --help text lists, with their dashes."""
    found = set()
    for line in text.splitlines():
        match = OPTION_LINE.match(line)
        if match:
            # Names end where two spaces or a value's type begin.
            names = re.match(r"-{1,2}[\w-]+(?:\s*,\s*-{1,2}[\w-]+)*",
                             match.group(1)).group(0)
            found.update(OPTION.findall(names))
    return found


def options(*command):
    return options_in(help_text(*command))


def commands_in(text):
    """The subcommands that a --help text lists."""
    _, _, rest = text.partition("ubcommands:")
    if not rest:
        _, _, rest = text.partition("UBCOMMANDS:")
    return set(re.findall(r"^ {1,4}([a-z]+) ", rest, re.MULTILINE))
