"""The systemd units: understood by systemd, and sealed off as they claim."""

import glob
import os
import plistlib
import re
import shutil
import subprocess
import tempfile
import unittest

import source_tree

FOLDER = os.path.join(source_tree.ROOT, "examples", "systemd")
MAX_EXPOSURE = 1.5
LIMIT_SECONDS = 60


def directives(text):
    """{(section, key): [values]} of a unit file."""
    found = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.setdefault((section, key.strip()), []).append(value.strip())
    return found


def unit(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return directives(file.read())


def table(name):
    """The rows of a sysusers.d or tmpfiles.d file."""
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return [re.findall(r'"[^"]*"|\S+', line) for line in file
                if line.strip() and not line.startswith("#")]


class WithSystemdAnalyze(unittest.TestCase):
    """Copies of the units whose programs exist on any machine."""

    def setUp(self):
        if not shutil.which("systemd-analyze"):
            self.fail("systemd-analyze is missing: install systemd")
        self.copies = tempfile.mkdtemp(prefix="nixq-units-")
        self.addCleanup(shutil.rmtree, self.copies)
        for source in glob.glob(os.path.join(FOLDER, "*.*")):
            if source.endswith(".conf"):
                continue
            with open(source, encoding="utf-8") as file:
                self.write(os.path.basename(source), file.read())

    def write(self, name, text):
        text = re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", text,
                      flags=re.MULTILINE)
        with open(os.path.join(self.copies, name), "w",
                  encoding="utf-8") as file:
            file.write(text)

    def analyze(self, *arguments):
        return subprocess.run(
            ["systemd-analyze", *arguments], cwd=self.copies, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS, check=False,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0",
                 "SYSTEMD_PAGER": ""})

    def complaints(self):
        """What `verify` says about these units, not about the machine's."""
        names = sorted(os.listdir(self.copies))
        result = self.analyze("verify", "--man=no",
                              *(os.path.join(self.copies, name)
                                for name in names))
        found = [line for line in result.stdout.splitlines()
                 if any(name in line for name in names)]
        if result.returncode != 0 and not found:
            found = [f"exit code {result.returncode}: {result.stdout}"]
        return found

    def exposure(self, name):
        result = self.analyze("security", "--offline=true",
                              os.path.join(self.copies, name))
        match = re.search(r"exposure level for \S+: ([0-9.]+)", result.stdout)
        self.assertTrue(match, result.stdout)
        return float(match.group(1))

    def test_systemd_understands_them(self):
        self.assertEqual(4, len(os.listdir(self.copies)))
        self.assertEqual([], self.complaints())

    def test_a_misspelt_directive_is_found(self):
        self.write("nix-queued.service",
                   "[Service]\nExecStart=/bin/x\nProtectHoem=true\n")
        self.assertTrue(any("ProtectHoem" in line
                            for line in self.complaints()))

    def test_exposure_is_low(self):
        for name in ("nix-queued.service", "prune-arm-cache-roots.service"):
            with self.subTest(name):
                self.assertLessEqual(self.exposure(name), MAX_EXPOSURE)

    def test_exposure_of_an_open_service_is_high(self):
        self.write("open.service", "[Service]\nExecStart=/bin/x\n")
        self.assertGreater(self.exposure("open.service"), MAX_EXPOSURE)


class Agreement(unittest.TestCase):
    """The files fit one another and what the programs do."""

    def setUp(self):
        self.service = unit("nix-queued.service")
        self.socket = unit("nix-queued.socket")
        self.prune = unit("prune-arm-cache-roots.service")
        self.users = table("nix-queued.sysusers.conf")
        self.directories = {row[1]: row for row in
                            table("nix-queued.tmpfiles.conf")}

    def environment(self, service):
        return dict(value.split("=", 1)
                    for value in service["Service", "Environment"])

    def test_everything_is_in_the_state_directory(self):
        state_dir = "/var/lib/nix-queued"
        for service in (self.service, self.prune):
            environment = self.environment(service)
            self.assertEqual(state_dir, environment["NIX_QUEUED_STATE_DIR"])
            self.assertEqual(state_dir, environment["HOME"])
            self.assertEqual(["nix-queued"],
                             service["Service", "StateDirectory"])
        self.assertEqual([state_dir + "/wake.sock"],
                         self.socket["Socket", "ListenDatagram"])
        self.assertEqual(state_dir, self.users[0][4])
        self.assertIn(state_dir, self.directories)

    def test_one_user_owns_what_is_written(self):
        user = self.users[0][1]
        self.assertEqual("u", self.users[0][0])
        for service in (self.service, self.prune):
            self.assertEqual([user], service["Service", "User"])
            self.assertEqual([user], service["Service", "Group"])
        self.assertEqual([user], self.socket["Socket", "SocketUser"])
        for service in (self.service, self.prune):
            for path in service["Service", "ReadWritePaths"]:
                row = self.directories[path.lstrip("-")]
                self.assertEqual(["d", user, user],
                                 [row[0], row[3], row[4]])

    def test_modes_agree(self):
        row = self.directories["/var/lib/nix-queued"]
        self.assertEqual([row[2]],
                         self.service["Service", "StateDirectoryMode"])
        self.assertEqual([row[2]],
                         self.prune["Service", "StateDirectoryMode"])

    def test_programs_and_signals(self):
        self.assertEqual(
            ["@CMAKE_INSTALL_FULL_BINDIR@/queued "
             "--config /etc/nix-queued/queued.toml"],
            self.service["Service", "ExecStart"])
        self.assertEqual(
            ["@CMAKE_INSTALL_FULL_BINDIR@/queuectl prune "
             "--config /etc/nix-queued/queued.toml"],
            self.prune["Service", "ExecStart"])
        self.assertEqual(["notify"], self.service["Service", "Type"])
        self.assertIn("-HUP $MAINPID",
                      self.service["Service", "ExecReload"][0])
        self.assertEqual(["0"], self.service["Service", "LimitCORE"])
        self.assertIn(("Service", "WatchdogSec"), self.service)

    def test_launchd_starts_the_same(self):
        with open(os.path.join(source_tree.ROOT, "examples", "launchd",
                               "org.nix-queued.plist"), "rb") as file:
            job = plistlib.load(file)
        self.assertEqual(self.service["Service", "ExecStart"],
                         [" ".join(job["ProgramArguments"])])
        self.assertEqual("/var/lib/nix-queued",
                         job["EnvironmentVariables"]["NIX_QUEUED_STATE_DIR"])
        self.assertEqual(0o027, job["Umask"])
        self.assertEqual(0, job["HardResourceLimits"]["Core"])


if __name__ == "__main__":
    unittest.main()
