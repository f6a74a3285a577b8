"""Two booted machines with what our modules make of them: one builds and
pushes, the other keeps and serves.

In containers with a real systemd, sshd, nginx and Nix daemon. The one thing
that is not real is Harmonia, which Debian has not: store_server.py stands in
its place, on its port.
"""

import os
import subprocess
import tempfile
import time
import unittest
import uuid

import containers
import machines
import support

import children  # noqa: E402  found by containers
import private_nix  # noqa: E402
import ssh_server  # noqa: E402

ROOTS = "/nix/var/nix/gcroots/arm-cache"
ADDRESSES = {"client": "10.7.0.1", "nix-cache": "10.7.0.2"}
HOSTS = "127.0.0.1 localhost\n" + "".join(
    f"{address} {name}\n" for name, address in ADDRESSES.items())
PUBLIC_KEY = "two-hosts-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
CLIENT_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPLACEHOLDER client"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHOSTKEY"

UPSTREAM_UNIT = """\
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 8090
WorkingDirectory=/srv/upstream

[Install]
WantedBy=multi-user.target
"""


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def derivation(name):
    """Never built before; alice builds it with /bin/sh.

    Nobody is asked for it: with a cache down, the daemon of Nix 2.8 crashes.
    """
    return private_nix.derivation(name, f"echo {uuid.uuid4().hex} > $out",
                                  allowSubstitutes="false")


class Site:
    """Both machines and their keys, made once for all tests."""

    def __init__(self, base):
        self.base = base
        self.secret, self.public = self.signing_key("two-hosts-1")
        self.other_public = self.signing_key("somebody-else-1")[1]
        ssh_key = os.path.join(base, "ssh-key")
        ssh_server.generate_ssh_key(ssh_key)
        root = containers.debian_root()
        host_key = read(f"{root}/etc/ssh/ssh_host_ed25519_key.pub")
        self.changes = {
            PUBLIC_KEY: self.public,
            CLIENT_KEY: read(f"{ssh_key}.pub").strip(),
            HOST_KEY: " ".join(host_key.split()[:2]),
        }
        self.password = uuid.uuid4().hex
        self.client = self.machine("client", "client", {
            "/var/secrets/signing-key": (self.secret, 0o600),
            "/var/secrets/ssh-key": (read(ssh_key), 0o600),
            "/var/secrets/netrc": (
                f"machine nix-cache login up password {self.password}\n",
                0o600),
        })
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", "-stdin"], input=self.password,
            capture_output=True, text=True, check=True).stdout
        self.cache = self.machine("nix-cache", "cacheHost", {
            "/var/secrets/signing-key": (self.secret, 0o600),
            "/var/secrets/htpasswd": f"up:{hashed}",
            "/srv/upstream/foreign.txt": "from far away\n",
            "/etc/systemd/system/upstream.service": UPSTREAM_UNIT,
        }, {"/etc/systemd/system/multi-user.target.wants/upstream.service":
            "/etc/systemd/system/upstream.service"})

    def signing_key(self, name):
        secret, public = (os.path.join(self.base, f"{name}.{kind}")
                          for kind in ("secret", "public"))
        support.run_nix(["nix-store", "--generate-binary-cache-key", name,
                         secret, public])
        return read(secret), read(public).strip()

    def files(self, case):
        return machines.files(support.render("two-hosts", case), self.changes)

    def machine(self, name, case, extra, links=None):
        files, its_links = self.files(case)
        return containers.Container(
            name, self.base, {**files, "/etc/hosts": HOSTS, **extra},
            {**its_links, **(links or {})})

    def boot(self):
        self.cache.boot()
        self.boot_client()

    def boot_client(self):
        self.client.boot()
        containers.join({self.client: ADDRESSES["client"],
                         self.cache: ADDRESSES["nix-cache"]})

    def crash_client(self):
        self.client.cut_power()
        self.boot_client()

    def end(self):
        for machine in (self.client, self.cache):
            machine.end()


class TwoHosts(unittest.TestCase):

    """Both machines, up; what tests of them do again and again."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        started = time.monotonic()
        base = tempfile.mkdtemp(prefix="nixq-hosts-")
        cls.addClassCleanup(private_nix.remove_tree, base)
        cls.site = Site(base)
        cls.addClassCleanup(cls.site.end)
        cls.site.boot()
        cls.client, cls.cache = cls.site.client, cls.site.cache
        print(f"both are up after {time.monotonic() - started:.1f} s")

    def tell(self, text):
        print(f"  {text}", flush=True)

    def build(self, name):
        """As alice, through the Nix daemon. Returns the path."""
        return self.client.text(
            ["nix-build", "--no-out-link", "-E", derivation(name)],
            user="alice").split()[-1]

    def wait_until_sent(self):
        done = self.client.run(["queuectl", "wait", "--timeout", "60s"],
                               check=False)
        self.assertEqual(0, done.returncode, done.stderr + self.client.text(
            ["queuectl", "list"]) + self.client.journal("nix-queued.service"))

    def built_and_sent(self, name):
        path = self.build(name)
        self.wait_until_sent()
        return path

    def valid(self, machine, path):
        return machine.run(["nix-store", "--check-validity", path],
                           check=False).returncode == 0

    def root(self, machine, path):
        """On the cache, what the client pushed is in the client's own
        directory."""
        directory = ROOTS
        if machine is self.cache:
            directory += "/" + self.client.text(
                ["cat", "/var/lib/nix-queued/sender-name"])
        return f"{directory}/{os.path.basename(path)}"

    def pinned(self, machine, path):
        return machine.run(["readlink", self.root(machine, path)],
                           check=False).stdout.strip() == path

    def lose(self, path):
        """The client has it no more."""
        self.client.run(["rm", self.root(self.client, path)])
        self.client.run(["nix-store", "--delete", path])
        self.assertFalse(self.valid(self.client, path))

    def collect(self):
        for machine in (self.client, self.cache):
            machine.run(["nix-store", "--gc"])

    def requests(self, text):
        """X-Cache-Status and so on, as the proxy has logged it."""
        def look():
            found = [line for line in self.cache.text(
                ["journalctl", "--no-pager", "-o", "cat", "-t", "nginx"]
            ).splitlines() if text in line and "X-Cache-Status=" in line]
            return found
        return children.wait_until(look, 30, f"{text} in the journal",
                                   lambda: self.cache.journal("nginx"))

    def configure(self, case):
        """The daemon, as another case does, while it runs."""
        path = "/etc/nix-queued/queued.toml"
        self.client.write(path, *self.site.files(case)[0][path])
        self.client.run(["systemctl", "reload", "nix-queued.service"])

    def switch_to(self, case):
        """Every file, and all that depends on them, as nixos-rebuild does."""
        for path, content in self.site.files(case)[0].items():
            self.client.write(path, *content)
        self.client.run(["systemctl", "daemon-reload"])
        self.client.run(["systemctl", "restart", "nix-daemon.service",
                         "nix-queued.service"])

    def switch_for_this_test(self, case):
        self.addCleanup(self.switch_to, "client")
        self.switch_to(case)
