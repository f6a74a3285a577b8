"""For tests of the commands in nixos-module/scripts: they run as anybody
would run them, on a Nix of their own."""

import json
import os
import subprocess
import sys

SOURCE = os.environ.get("NIXQ_SOURCE", os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
# pylint: disable=wrong-import-position
import cache_server
import children
import private_nix
import queued
import ssh_server
import world

SCRIPTS = os.path.join(SOURCE, "nixos-module", "scripts")
FAILED, USAGE, MISSING, AWAY = 1, 2, 3, 4
LEVELS = {"ok", "warning", "failed", "away"}

# What systemctl says of a server on which all is well, or one unit is down.
UNITS = """
  case "$*" in
    *{down}*) echo LoadState=loaded; echo ActiveState=failed ;;
    *basic.target* | *nix-daemon.socket* | *ssh.service* | *nix-serve*)
      echo LoadState=loaded; echo ActiveState=active ;;
    *) echo LoadState=not-found; echo ActiveState=inactive ;;
  esac"""

# What is a complaint about a test's Nix is told from what is being tested.
PATIENT = {"connect-timeout": "2", "fallback": "true"}


def write_program(directory, name, text):
    """A program that stands in for another one."""
    os.makedirs(directory, exist_ok=True)
    file = os.path.join(directory, name)
    with open(file, "w", encoding="utf-8") as out:
        out.write("#!/bin/bash\n" + text)
    os.chmod(file, 0o755)
    return file


class Report:
    """What a command said with --json."""

    def __init__(self, result):
        try:
            self.document = json.loads(result.stdout)
        except ValueError:
            raise AssertionError(f"no JSON, exit code {result.returncode}:\n"
                                 f"{result.stdout}{result.stderr}") from None
        self.findings = self.document["findings"]

    def about(self, check):
        """The findings whose check begins with `check`."""
        return [finding for finding in self.findings
                if finding["check"].startswith(check)]


class CommandTest(world.WorldTest):
    """Has self.nix, and a folder of programs that come first on the PATH."""

    scripts = SCRIPTS

    def setUp(self):
        super().setUp()
        self.fakes = self.place("fakes")

    def fake(self, name, text):
        return write_program(self.fakes, name, text)

    def run_command(self, name, *arguments, code=0, path=None, user=None,
                    **variables):
        """Runs a command, as another user if need be, and expects exit code
        `code`."""
        environment = {
            **self.nix.environment,
            "PATH": path or ":".join([self.fakes, queued.BIN,
                                      private_nix.PROGRAM_PATH]),
            "XDG_CONFIG_HOME": os.path.join(self.base, "no-config"),
            "NIX_QUEUED_ROOTS_DIR": self.nix.roots_dir,
            "TMPDIR": self.base,
            **variables}
        result = subprocess.run(
            ["/bin/bash", os.path.join(self.scripts, name),
             *map(str, arguments)], env=environment, cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            user=user, group=user, extra_groups=None if user is None else [],
            timeout=60 * children.SLOWNESS, check=False)
        self.assertEqual(code, result.returncode,
                         f"{name} {arguments}\n{result.stdout}"
                         f"{result.stderr}")
        return result

    def report(self, name, *arguments, code=0, **variables):
        """What it finds out; its shape is checked on the way."""
        report = Report(self.run_command(name, "--json", *arguments, code=code,
                                         **variables))
        self.assertEqual(code, report.document["exit"])
        levels = {finding["level"] for finding in report.findings}
        self.assertLessEqual(levels, LEVELS)
        self.assertEqual(code == FAILED, "failed" in levels)
        for finding in report.findings:
            self.assertEqual({"check", "level", "text", "hint"}, set(finding))
            if finding["level"] in ("failed", "away"):
                self.assertTrue(finding["hint"], finding)
        return report

    def assert_finding(self, report, level, check, text="", hint=""):
        """There is one of this level whose texts have these words."""
        for finding in report.about(check):
            if (finding["level"] == level and text in finding["text"]
                    and hint in finding["hint"]):
                return finding
        self.fail(f"no finding {level} {check}: {text} ({hint}) in\n"
                  + json.dumps(report.findings, indent=2))

    def configure(self, **settings):
        """Changes this test's nix.conf; `_` stands for `-`."""
        self.nix.settings.update({name.replace("_", "-"): value
                                  for name, value in settings.items()})
        private_nix.write_nix_conf(self.nix.conf_dir, self.nix.settings)

    def build(self, name="thing"):
        return self.nix.build(private_nix.derivation(
            name, f"echo {name} {self.salt} > $out"))[0]


class CacheTest(CommandTest):
    """A Nix, a cache behind HTTP, and a signed path in it."""

    def setUp(self):
        super().setUp()
        self.make_nix(daemon=False, settings=PATIENT)
        self.server = self.make_cache_server()
        self.configure(substituters=self.server.url,
                       trusted_public_keys=self.public_key)

    def upload(self, path, key=True, url=None):
        url = url or self.server.url
        secret = f"&secret-key={self.secret_key}" if key else ""
        self.nix.run(["nix", "copy", "--to",
                      f"{url}?compression=none{secret}", path])
        return path

    def answer(self, status):
        self.server.fault = lambda request: cache_server.Fault(
            "status", status)


class Builder(ssh_server.SshStore):
    """A machine that may be built on: its daemon trusts who logs in."""

    trusted = "root"

    def start_daemon(self):
        self.store.settings["sandbox-paths"] = "/bin /lib /lib64 /usr"
        configuration = os.path.join(self.base, "etc")
        private_nix.write_nix_conf(configuration, {
            **self.store.settings, "trusted-users": self.trusted})
        self.daemon = children.Child(
            ["nix-daemon", "--daemon"],
            {**self.store.environment, "NIX_CONF_DIR": configuration,
             "NIX_DAEMON_SOCKET_PATH": self.socket},
            os.path.join(self.base, "nix-daemon.log"))
        children.wait_until(lambda: os.path.exists(self.socket), 30,
                            "the builder's Nix daemon", self.daemon.log_tail)

    def nix_ssh_options(self, known_hosts=None):
        """For NIX_SSHOPTS: how to get there, but not with which key."""
        return (f"-F none -p {self.port} "
                f"-oUserKnownHostsFile={known_hosts or self.known_hosts}")


class SuspiciousBuilder(Builder):
    """One that lets people in, and lets nobody build."""

    trusted = ""


class OffloadTest(CommandTest):
    """A Nix without a daemon: a build then logs in with the environment of
    the test, and not with that of a daemon."""

    def setUp(self):
        super().setUp()
        self.make_nix(daemon=False, settings={
            **PATIENT, "builders-use-substitutes": "true"})
        # One that the machine of the test may have is not looked at.
        self.configure(builders="")

    def make_builder(self, kind=Builder):
        builder = kind(self.place("ssh"), self.make_second_store())
        self.addCleanup(builder.stop)
        return builder

    def machine(self, builder, key=None, features="-"):
        return (f"ssh-ng://{builder.user}@127.0.0.1 x86_64-linux,i686-linux "
                f"{key or builder.key_file} 3 2 {features}")

    def use(self, builder, **settings):
        """Makes it this Nix's builder."""
        self.configure(builders=self.machine(builder), **settings)
        return {"NIX_SSHOPTS": builder.nix_ssh_options()}


class ServerTest(CacheTest):
    """This machine is the server; user `nobody` is who builders log in as."""

    def setUp(self):
        super().setUp()
        self.configure(trusted_users="root nobody", experimental_features=(
            "nix-command"))
        self.path = self.upload(self.build())
        os.makedirs(self.nix.roots_dir)
        os.symlink(self.path, os.path.join(self.nix.roots_dir,
                                           os.path.basename(self.path)))
        self.home = self.place("home")
        self.authorize("ssh-ed25519 AAAA client")
        self.play()

    def authorize(self, text):
        os.makedirs(os.path.join(self.home, ".ssh"), exist_ok=True)
        with open(os.path.join(self.home, ".ssh", "authorized_keys"), "w",
                  encoding="ascii") as file:
            file.write("# who may\n" + text + "\n")

    def play(self, shell="/bin/sh", down="nothing", listening="0.0.0.0:5000",
             exports=""):
        self.fake("systemctl", UNITS.format(down=down))
        self.fake("getent", f"echo 'nobody:x:65534:65534::{self.home}:{shell}'"
                  )
        self.fake("ss", f"echo 'LISTEN 0 5 {listening} 0.0.0.0:*'")
        self.fake("exportfs", f"echo '{exports}'")
        # This machine's own nginx is none of a test's business.
        self.fake("nginx", "exit 0")

    def arguments(self):
        return ["--url", self.server.url, "--key-file", self.secret_key,
                "--user", "nobody"]

    def status(self, *arguments, code=0, **variables):
        return self.report("offload-server-status", *self.arguments(),
                           *arguments, code=code, **variables)
