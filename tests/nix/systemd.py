"""What systemd says about units that are not installed."""

import os
import re
import shutil
import subprocess
import tempfile

LIMIT_SECONDS = 120


def directives(text):
    """{(section, key): [values]} of a unit."""
    found = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.setdefault((section, key), []).append(value)
    return found


def analyze(folder, *arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS, check=False,
        env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0",
             "SYSTEMD_PAGER": ""})


class Units:
    """Units of one machine in a directory of their own, as context.

    Programs are replaced by one that is there. A service that only adds to
    another one's is given a program, too.
    """

    def __init__(self, units):
        self.units = units
        self.folder = None

    def __enter__(self):
        if not shutil.which("systemd-analyze"):
            raise FileNotFoundError("systemd-analyze: install systemd")
        self.folder = tempfile.mkdtemp(prefix="nixq-units-")
        for name, text in self.units.items():
            text = re.sub(r"^(Exec\w+)=([-@:+!]*)\S.*", r"\1=\2/bin/true",
                          text, flags=re.MULTILINE)
            if name.endswith(".service") and "\nExecStart=" not in text:
                text += "\n[Service]\nExecStart=/bin/true\n"
            self.write(name, text)
        for name in self.needed() - set(self.units):
            self.write(name, "[Service]\nExecStart=/bin/true\n")
        return self

    def needed(self):
        """Services of other packages without which these would not start."""
        return {name for text in self.units.values()
                for (_, key), values in directives(text).items()
                if key in ("Requires", "Requisite", "BindsTo")
                for value in values for name in value.split()
                if name.endswith(".service")}

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w",
                  encoding="utf-8") as file:
            file.write(text)

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def complaints(self):
        """What `verify` says about these units, not about the machine's."""
        names = sorted(self.units)
        result = analyze(self.folder, "verify", "--man=no",
                         *(os.path.join(self.folder, name) for name in names))
        found = [line for line in result.stdout.splitlines()
                 if any(name in line for name in names)]
        if result.returncode != 0 and not found:
            found = [f"exit code {result.returncode}: {result.stdout}"]
        return found

    def exposure(self, name):
        """From 0 (sealed) to 10."""
        result = analyze(self.folder, "security", "--offline=true",
                         os.path.join(self.folder, name))
        match = re.search(r"exposure level for \S+: ([0-9.]+)", result.stdout)
        if not match:
            raise AssertionError(result.stdout)
        return float(match.group(1))
