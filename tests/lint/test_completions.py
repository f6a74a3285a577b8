"""The completions offer what --help lists."""

import os
import re
import subprocess
import tempfile
import unittest

import command_line
import source_tree

FOLDER = "queued/queuectl/completions/"
LIMIT_SECONDS = 60


def complete(program, words, path):
    """What bash offers for the last of `words`."""
    script = (
        'source "$1"; shift\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        f"_{program} 2>/dev/null\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n')
    result = subprocess.run(
        ["bash", "-c", script, "bash",
         os.path.join(source_tree.ROOT, FOLDER, program + ".bash"),
         program, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, timeout=LIMIT_SECONDS, check=True,
        env={"PATH": path + ":/usr/bin:/bin"})
    return set(result.stdout.split())


def zsh_options(text):
    found = set(re.findall(r"'(?:\(- \*\))?(--[a-z-]+)\[", text))
    for group in re.findall(r"\{([^}$]*)\}'\[", text):
        found.update(group.split(","))
    return found


def zsh_commands(text):
    """{command: options beside the common ones} of _queuectl."""
    body = text[text.index("case $words[1] in"):]
    branches = re.findall(r"^        ([a-z| ]+)\)(.*?);;", body,
                          re.MULTILINE | re.DOTALL)
    return {name.strip(): zsh_options(branch)
            for names, branch in branches for name in names.split("|")}


def fish_commands(text):
    """{command: options beside the common ones} of queuectl.fish."""
    found = {}
    for names, option in re.findall(
            r'-n "\$seen ([a-z ]+)" -l ([a-z-]+)', text):
        for name in names.split():
            found.setdefault(name, set()).add("--" + option)
    return found


class Completions(unittest.TestCase):
    def setUp(self):
        self.common = command_line.options("queuectl") - {"--version"}

    def test_bash_queued(self):
        self.assertEqual(command_line.options("queued") - {"-h"},
                         complete("queued", ["-"], ""))
        self.assertEqual({"debug", "info", "warning", "error"},
                         complete("queued", ["--log-level", ""], ""))

    def test_bash_queuectl(self):
        self.assertEqual(set(command_line.COMMANDS),
                         complete("queuectl", [""], ""))
        self.assertEqual({"status"}, complete(
            "queuectl", ["--config", "list", "--json", "st"], ""))
        self.assertEqual(command_line.options("queuectl") - {"-h"},
                         complete("queuectl", ["-"], ""))
        for command in command_line.COMMANDS:
            with self.subTest(command):
                self.assertEqual(
                    command_line.options("queuectl", command) - {"-h"},
                    complete("queuectl", [command, "-"], ""))

    def test_bash_asks_for_targets(self):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "queuectl")
            with open(program, "w", encoding="utf-8") as file:
                file.write('#!/bin/sh\n[ "$*" = '
                           '"status --json --config c.toml" ] || exit 1\n'
                           'echo \'{\n  "targets": [\n    {\n'
                           '      "error_text": "\\"name\\": \\"no\\"",\n'
                           '      "name": "nas",\n    },\n    {\n'
                           '      "name": "web"\n    }\n  ]\n}\'\n')
            os.chmod(program, 0o755)
            self.assertEqual({"nas", "web"}, complete(
                "queuectl", ["--config", "c.toml", "pause", ""], folder))
            self.assertEqual({"web"}, complete(
                "queuectl", ["list", "--config", "c.toml", "--target", "w"],
                folder))

    def test_zsh(self):
        self.assertEqual(command_line.options("queued"),
                         zsh_options(source_tree.read(FOLDER + "_queued")))
        text = source_tree.read(FOLDER + "_queuectl")
        described = set(re.findall(r"^    '([a-z]+):", text, re.MULTILINE))
        self.assertEqual(set(command_line.COMMANDS), described)
        commands = zsh_commands(text)
        common = zsh_options(text[:text.index("commands=(")])
        self.assertEqual(self.common, common)
        for command in command_line.COMMANDS:
            with self.subTest(command):
                self.assertEqual(
                    command_line.options("queuectl", command),
                    commands.get(command, set()) | common)

    def test_fish(self):
        self.assertEqual(
            command_line.options("queued") - {"-h"},
            {"--" + option for option in re.findall(
                r" -l ([a-z-]+)", source_tree.read(FOLDER + "queued.fish"))})
        text = source_tree.read(FOLDER + "queuectl.fish")
        self.assertEqual(set(command_line.COMMANDS), set(re.findall(
            r"^complete -c queuectl -n \$none -a ([a-z]+)", text,
            re.MULTILINE)))
        listed = text[text.index("set -l commands"):text.index("\n\ncompl")]
        self.assertEqual(set(command_line.COMMANDS), set(re.findall(
            r"\b[a-z]+\b", listed)) - {"set", "l", "commands"})
        commands = fish_commands(text)
        common = {"--" + option for option in re.findall(
            r"^complete -c queuectl (?:-s h )?-l ([a-z-]+)", text,
            re.MULTILINE)}
        for command in command_line.COMMANDS:
            with self.subTest(command):
                self.assertEqual(
                    command_line.options("queuectl", command) - {"-h"},
                    commands.get(command, set()) | common)


if __name__ == "__main__":
    unittest.main()
