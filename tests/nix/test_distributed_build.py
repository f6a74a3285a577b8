"""A coordinator hands builds to another machine, and keeps what comes back.

Both are booted, with what our modules make of them: sshd and the login that
takes nothing but Nix' protocols on one, Nix' list of machines, ssh's settings,
the hook and the agent on the other.
"""

import os
import tempfile
import unittest
import uuid

import containers
import machines
import support

import private_nix  # noqa: E402  found by containers
import ssh_server  # noqa: E402

ROOTS = "/nix/var/nix/gcroots/arm-cache"
CACHE = "/srv/nix-cache"
ADDRESSES = {"nas-01": "10.7.1.1", "nix-01": "10.7.1.2"}
HOSTS = "127.0.0.1 localhost\n::1 localhost\n" + "".join(
    f"{address} {name}\n" for name, address in ADDRESSES.items())
COORDINATORS_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPLACEHOLDER nas-01"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHOSTKEY"
LOGIN = ["ssh", "-i", "/var/secrets/builder-key", "-o", "BatchMode=yes",
         "nix-builder@nix-01"]


setUpModule = containers.require


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Site:
    """Both machines and their keys."""

    def __init__(self, base):
        self.base = base
        secret = os.path.join(base, "secret")
        support.run_nix(["nix-store", "--generate-binary-cache-key",
                         "nas-01-cache", secret, f"{secret}.public"])
        ssh_key = os.path.join(base, "ssh-key")
        ssh_server.generate_ssh_key(ssh_key)
        root = containers.debian_root()
        host_key = read(f"{root}/etc/ssh/ssh_host_ed25519_key.pub")
        self.changes = {
            COORDINATORS_KEY: read(f"{ssh_key}.pub").strip(),
            HOST_KEY: " ".join(host_key.split()[:2]),
        }
        self.coordinator = self.machine("nas-01", "coordinator", {
            "/var/secrets/builder-key": (read(ssh_key), 0o600),
            "/var/secrets/signing-key": (read(secret), 0o600),
        })
        self.builder = self.machine("nix-01", "builder", {})

    def files(self, case):
        return machines.files(support.render("distributed", case),
                              self.changes)

    def machine(self, name, case, extra):
        files, links = self.files(case)
        return containers.Container(
            name, self.base, {**files, "/etc/hosts": HOSTS, **extra}, links)

    def boot(self):
        self.builder.boot()
        self.coordinator.boot()
        containers.join({self.coordinator: ADDRESSES["nas-01"],
                         self.builder: ADDRESSES["nix-01"]})

    def end(self):
        self.coordinator.end()
        self.builder.end()


class Distributed(unittest.TestCase):

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        base = tempfile.mkdtemp(prefix="nixq-build-")
        cls.addClassCleanup(private_nix.remove_tree, base)
        cls.site = Site(base)
        cls.addClassCleanup(cls.site.end)
        cls.site.boot()
        cls.coordinator = cls.site.coordinator
        cls.builder = cls.site.builder

    # --- What several tests do ---------------------------------------------

    def try_build(self, name, *options, user="alice"):
        """Builds something that says where it was built."""
        expression = private_nix.derivation(
            name, f"read host < /etc/hostname; echo $host > $out; "
            f": {uuid.uuid4().hex}")
        return self.coordinator.run(
            ["nix-build", "--no-out-link", *options, "-E", expression],
            user=user, check=False)

    def build(self, name, *options, **others):
        result = self.try_build(name, *options, **others)
        self.assertEqual(0, result.returncode, result.stderr
                         + self.coordinator.journal("nix-daemon"))
        path = result.stdout.split()[-1]
        print(f"  {path}: built on {self.built_on(path)}", flush=True)
        return path

    def built_on(self, path):
        return self.coordinator.text(["cat", path])

    def wait_until_done(self):
        done = self.coordinator.run(["queuectl", "wait", "--timeout", "60s"],
                                    check=False)
        self.assertEqual(0, done.returncode, done.stderr
                         + self.coordinator.text(["queuectl", "list"])
                         + self.coordinator.journal("nix-queued"))

    def assert_kept(self, path):
        """Pinned, signed, shown by the local cache and in the other one."""
        name = os.path.basename(path)
        self.assertEqual(path, self.coordinator.text(
            ["readlink", f"{ROOTS}/{name}"]))
        narinfo = f"{name[:32]}.narinfo"
        for text in (
                self.coordinator.text(["cat", f"{CACHE}/{narinfo}"]),
                self.coordinator.text(["curl", "--silent", "--fail",
                                       f"http://localhost:5000/{narinfo}"])):
            self.assertIn(f"StorePath: {path}\n", text)
            self.assertIn("Sig: nas-01-cache:", text)

    def builder_is_down(self):
        self.builder.run(["systemctl", "stop", "ssh"])
        self.addCleanup(self.builder.run, ["systemctl", "start", "ssh"])

    def switch_to(self, case):
        """Nix' configuration of another case."""
        path = "/etc/nix/nix.conf"
        self.coordinator.write(path, self.site.files(case)[0][path][0])
        self.coordinator.run(["systemctl", "restart", "nix-daemon"])

    def only_remote(self):
        self.switch_to("onlyRemote")
        self.addCleanup(self.switch_to, "coordinator")

    # --- Tests -------------------------------------------------------------

    def test_nothing_has_failed(self):
        for machine in (self.coordinator, self.builder):
            self.assertEqual("running", machine.text(
                ["systemctl", "is-system-running"]), machine.what_failed())

    def test_built_there_and_kept_here(self):
        result = self.try_build("far-away", "--max-jobs", "0")
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertIn("on 'ssh://nix-builder@nix-01'", result.stderr)
        path = result.stdout.split()[-1]
        self.assertEqual("nix-01", self.built_on(path))
        self.wait_until_done()
        self.assert_kept(path)
        self.coordinator.run(["nix-store", "--gc"])
        self.coordinator.run(["nix-store", "--check-validity", path])
        print(f"  {path}: built on nix-01, kept here", flush=True)

    def test_dependencies_go_there_and_come_back(self):
        expression = private_nix.chain("chain", 3, uuid.uuid4().hex)
        path = self.coordinator.text(
            ["nix-build", "--no-out-link", "--max-jobs", "0", "-E",
             expression], user="alice").split()[-1]
        closure = self.coordinator.text(
            ["nix-store", "--query", "--requisites", path]).split()
        self.assertEqual(3, len(closure))
        self.wait_until_done()
        for one in closure:
            self.assert_kept(one)

    def test_the_login_is_good_for_builds_only(self):
        self.assertIn("nix-store (Nix)", self.coordinator.text(
            [*LOGIN, "nix-store", "--version"]))
        self.assertEqual("OK", self.coordinator.text([*LOGIN, "echo", "OK"]))
        for command in (["id"], ["sh"], ["nix-store", "--gc"],
                        ["nix-store --version; id"], ["echo", "$(id)"]):
            with self.subTest(command):
                result = self.coordinator.run([*LOGIN, *command], check=False)
                self.assertNotIn("uid=", result.stdout)
                if command[0] != "echo":
                    self.assertEqual(1, result.returncode)
                    self.assertIn("this login is for Nix builds",
                                  result.stderr)
        self.assertNotEqual(0, self.coordinator.run(
            [*LOGIN[:-1], "root@nix-01", "true"], check=False).returncode)

    def test_built_here_while_the_builder_is_down(self):
        self.builder_is_down()
        path = self.build("fallback")
        self.assertEqual("nas-01", self.built_on(path))
        self.wait_until_done()
        self.assert_kept(path)

    def test_only_remote(self):
        self.only_remote()
        path = self.build("by-others-only")
        self.assertEqual("nix-01", self.built_on(path))
        self.wait_until_done()
        self.assert_kept(path)

    def test_only_remote_while_the_builder_is_down(self):
        self.only_remote()
        self.builder_is_down()
        refused = self.try_build("nowhere")
        self.assertNotEqual(0, refused.returncode)
        message = "Failed to find a machine for remote build"
        self.assertIn(message, refused.stderr)
        print("  " + next(line for line in refused.stderr.splitlines()
                          if message in line).strip(), flush=True)
        # The way out, which the module's warning names.
        warnings = support.one_line(" ".join(
            support.render("distributed", "onlyRemote").warnings))
        self.assertIn('--option max-jobs auto --option builders ""', warnings)
        path = self.build("emergency", "--option", "max-jobs", "auto",
                          "--option", "builders", "", user=None)
        self.assertEqual("nas-01", self.built_on(path))


if __name__ == "__main__":
    unittest.main()
