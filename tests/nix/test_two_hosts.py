"""Two booted machines with what our modules make of them: one builds and
pushes, the other keeps and serves.

In containers with a real systemd, sshd, nginx and Nix daemon. The one thing
that is not real is Harmonia, which Debian has not: store_server.py stands in
its place, on its port.
"""

import base64
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
UPLOADS = "/ssdpool/local/nix-cache/upload"
ADDRESSES = {"client": "10.7.0.1", "nix-cache": "10.7.0.2"}
HOSTS = "127.0.0.1 localhost\n" + "".join(
    f"{address} {name}\n" for name, address in ADDRESSES.items())
CREDENTIALS = "/run/credentials/nix-queued.service"
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


FLAKE = """\
{{
  outputs = {{ self }}: {{
    packages.{system}.thing = derivation {{
      name = "populated";
      system = "{system}";
      builder = "/bin/sh";
      args = [ "-c" "echo populated > $out" ];
    }};
  }};
}}
"""
COMMIT = """\
cd /srv/flake
git init --quiet
git config user.email flake@example.org
git config user.name flake
git add flake.nix
git commit --quiet --message first
"""


def setUpModule():
    why = containers.why_not()
    if why:
        print(f"\n*** NOT TESTED: {why} ***\n", flush=True)
        raise unittest.SkipTest(why)


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

    # --- What several tests do ---------------------------------------------

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

    def root(self, path):
        return f"{ROOTS}/{os.path.basename(path)}"

    def pinned(self, machine, path):
        return machine.run(["readlink", self.root(path)],
                           check=False).stdout.strip() == path

    def lose(self, path):
        """The client has it no more."""
        self.client.run(["rm", self.root(path)])
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

    # --- Tests -------------------------------------------------------------

    def test_nothing_has_failed(self):
        for machine in (self.client, self.cache):
            with self.subTest(machine.name):
                self.assertEqual("running", machine.text(
                    ["systemctl", "is-system-running"]), machine.what_failed())
                self.assertEqual("", machine.text(
                    ["systemctl", "--failed", "--plain", "--no-legend"]))

    def test_the_daemon_is_ready_and_sealed(self):
        unit = self.client.unit(
            "nix-queued.service", "ActiveState", "SubState", "Type", "MainPID",
            "WatchdogUSec", "WatchdogTimestampMonotonic", "User")
        self.assertEqual(
            ("active", "running", "notify", "1min", "nix-queued"),
            tuple(unit[key] for key in ("ActiveState", "SubState", "Type",
                                        "WatchdogUSec", "User")))
        self.assertGreater(int(unit["WatchdogTimestampMonotonic"]), 0)
        status = self.client.text(["cat", f"/proc/{unit['MainPID']}/status"])
        about = dict(line.split(":\t", 1) for line in status.splitlines()
                     if ":\t" in line)
        self.assertEqual("0" * 16, about["CapEff"])
        self.assertEqual("0" * 16, about["CapBnd"])
        self.assertEqual("1", about["NoNewPrivs"])
        self.assertEqual("2", about["Seccomp"])
        # Read-only for it: all but its state and the roots.
        inside = ["nsenter", f"--target={unit['MainPID']}", "--mount"]
        for directory in ("/etc", "/nix/store", "/usr", "/home", "/root"):
            self.client.run([*inside, "sh", "-c",
                             f"! touch {directory}/x 2>/dev/null"])
        self.client.run([*inside, "test", "-w", ROOTS])
        self.tell("nix-queued.service: ready, watched, sealed")

    def test_the_socket_and_the_timer_are_there(self):
        self.assertEqual("active", self.client.unit(
            "nix-queued.socket", "ActiveState")["ActiveState"])
        self.assertEqual(
            "nix-queued nix-queued 660", self.client.text(
                ["stat", "--format=%U %G %a", "/var/lib/nix-queued/wake.sock"]))
        timers = self.client.text(["systemctl", "list-timers", "--no-legend"])
        self.assertIn("prune-arm-cache-roots.timer", timers)
        self.tell(timers[timers.index("prune-arm-cache-roots.timer"):
                         ].splitlines()[0])

    def test_queuectl_check_finds_nothing_wrong(self):
        self.built_and_sent("for-check")
        found = self.client.run(["queuectl", "check"], check=False)
        self.assertEqual(0, found.returncode, found.stdout + found.stderr)

    def test_secrets_are_the_daemons_alone(self):
        names = self.client.text(["ls", CREDENTIALS]).split()
        self.assertEqual(["signing-key-0", "store.ssh-key-file",
                          "uploads.netrc-file"], sorted(names))
        for user in ("alice", "mallory"):
            for file in (f"{CREDENTIALS}/signing-key-0",
                         "/var/secrets/signing-key"):
                with self.subTest(user, file=file):
                    self.assertNotEqual(0, self.client.run(
                        ["cat", file], user=user, check=False).returncode)
        pid = self.client.unit("nix-queued.service", "MainPID")["MainPID"]
        secret = self.site.secret.split(":")[1].strip()
        for file in (f"/proc/{pid}/environ", f"/proc/{pid}/cmdline",
                     "/etc/nix-queued/queued.toml"):
            text = self.client.text(["cat", file])
            self.assertNotIn(secret, text)
            self.assertNotIn(self.site.password, text)
        journal = self.client.journal("nix-queued.service")
        self.assertNotIn(secret, journal)
        self.assertNotIn(self.site.password, journal)

    def test_readers_and_others(self):
        self.built_and_sent("for-readers")
        ask = ["sqlite3", "-readonly", "/var/lib/nix-queued/queue.db",
               "SELECT count(*) FROM paths WHERE path LIKE '%for-readers'"]
        # alice is in wheel, mallory is not.
        self.assertEqual("1", self.client.text(ask, user="alice"))
        self.assertIn("store", self.client.text(["queuectl", "status"],
                                                user="alice"))
        self.assertNotEqual(0, self.client.run(
            ask, user="mallory", check=False).returncode)
        self.assertNotEqual(0, self.client.run(
            ["queuectl", "status"], user="mallory", check=False).returncode)

    def test_from_build_to_hit(self):
        path = self.built_and_sent("whole-way")
        self.tell(f"alice has built {path}")
        for machine in (self.client, self.cache):
            self.assertTrue(self.valid(machine, path))
            self.assertTrue(self.pinned(machine, path), machine.name)
        hash_part = os.path.basename(path)[:32]
        self.assertIn("Sig: two-hosts-1:", self.cache.text(
            ["cat", f"{UPLOADS}/{hash_part}.narinfo"]))
        self.tell("pushed over SSH and by PUT, pinned on both")

        self.lose(path)
        self.client.run(["nix-store", "--realise", path], user="alice")
        self.assertTrue(self.valid(self.client, path))
        line = self.requests(f"GET /{hash_part}.narinfo")[-1]
        self.assertIn("X-Cache-Status=UPLOADED", line)
        self.tell(line)

    def test_a_pushed_path_comes_from_the_other_store(self):
        path = self.built_and_sent("only-pushed-once")
        hash_part = os.path.basename(path)[:32]
        self.cache.run(["test", "!", "-e", f"{UPLOADS}/{hash_part}.narinfo"])
        self.lose(path)
        self.client.run(["nix-store", "--realise", path], user="alice")
        for what in (f"GET /{hash_part}.narinfo",
                     f"GET /nar/{hash_part}.nar"):
            line = self.requests(what)[-1]
            self.assertIn("X-Cache-Status=LOCAL", line)
        self.tell(line)

    def test_the_signature_is_required(self):
        path = self.built_and_sent("only-pushed-and-signed")
        self.lose(path)
        refused = self.client.run(
            ["nix-store", "--realise", path, "--option",
             "trusted-public-keys", self.site.other_public], check=False)
        self.assertNotEqual(0, refused.returncode)
        self.assertIn("not signed by any of the keys", refused.stderr)
        self.assertFalse(self.valid(self.client, path))
        self.client.run(["nix-store", "--realise", path])
        self.assertTrue(self.valid(self.client, path))
        self.tell("another key: "
                  + support.one_line(refused.stderr).strip()[:100])

    def test_both_sides_keep_it_from_the_collector(self):
        path = self.built_and_sent("kept")
        waste = [machine.text(["sh", "-c", "echo $0 > /tmp/w; nix-store --add "
                               "/tmp/w", uuid.uuid4().hex])
                 for machine in (self.client, self.cache)]
        self.collect()
        for machine, other in zip((self.client, self.cache), waste):
            self.assertFalse(self.valid(machine, other), machine.name)
            self.assertTrue(self.valid(machine, path), machine.name)

    def test_held_while_the_other_machine_is_down(self):
        """Nothing is lost by a crash of the daemon, either."""
        self.cache.run(["systemctl", "stop", "ssh", "nginx"])
        self.addCleanup(self.cache.run, ["systemctl", "start", "ssh", "nginx"])
        path = self.build("held")
        self.client.run(["nix-store", "--gc"])
        self.assertTrue(self.valid(self.client, path))
        before = self.client.unit("nix-queued.service", "MainPID")["MainPID"]
        self.client.run(["systemctl", "kill", "--kill-whom=main",
                         "--signal=KILL", "nix-queued.service"])
        another = self.build("built-while-it-was-dead")

        def after():
            unit = self.client.unit("nix-queued.service", "MainPID",
                                    "ActiveState", "NRestarts")
            return (unit["ActiveState"] == "active"
                    and unit["MainPID"] not in ("0", before) and unit)
        unit = children.wait_until(
            after, 60, "systemd to start it again",
            lambda: self.client.journal("nix-queued.service"))
        self.assertGreaterEqual(int(unit["NRestarts"]), 1)
        self.cache.run(["systemctl", "start", "ssh", "nginx"])
        self.wait_until_sent()
        for sent in (path, another):
            self.assertTrue(self.valid(self.cache, sent))
            self.assertTrue(self.pinned(self.cache, sent))
        self.tell("killed, started again, and sent what had waited")

    def test_sent_after_a_crash_of_the_machine(self):
        self.cache.run(["systemctl", "stop", "ssh", "nginx"])
        self.addCleanup(self.cache.run, ["systemctl", "start", "ssh", "nginx"])
        path = self.build("before-the-crash")
        self.site.crash_client()
        self.assertEqual("open", self.state_of(path))
        self.cache.run(["systemctl", "start", "ssh", "nginx"])
        self.wait_until_sent()
        self.assertEqual("done", self.state_of(path))
        for machine in (self.client, self.cache):
            self.assertTrue(self.pinned(machine, path))

    def state_of(self, path):
        """Of its jobs, for all targets together."""
        open_jobs = self.client.text(
            ["sqlite3", "-readonly", "/var/lib/nix-queued/queue.db",
             f"SELECT count(*) FROM queue WHERE path = '{path}'"])
        return "done" if open_jobs == "0" else "open"

    def test_restart_and_reload(self):
        before = self.client.unit("nix-queued.service", "MainPID")["MainPID"]
        self.client.run(["systemctl", "reload", "nix-queued.service"])
        path = self.built_and_sent("after-reload")
        self.assertTrue(self.pinned(self.cache, path))
        self.assertEqual(before, self.client.unit(
            "nix-queued.service", "MainPID")["MainPID"])
        self.client.run(["systemctl", "restart", "nix-queued.service"])
        path = self.built_and_sent("after-restart")
        self.assertTrue(self.pinned(self.cache, path))
        self.assertNotEqual(before, self.client.unit(
            "nix-queued.service", "MainPID")["MainPID"])

    def test_pruned_after_31_days(self):
        old = self.built_and_sent("old")
        young = self.built_and_sent("young")
        for machine in (self.client, self.cache):
            machine.run(["touch", "--no-dereference", "--date=31 days ago",
                         self.root(old)])
        self.client.run(["systemctl", "start", "prune-arm-cache-roots.service"])
        self.assertFalse(self.pinned(self.client, old))
        self.assertTrue(self.pinned(self.client, young))
        self.assertTrue(self.pinned(self.cache, old))
        self.tell(self.client.journal("prune-arm-cache-roots.service"))

        # On the other machine it is done by the daemon, once a day.
        self.configure("clientThatPrunes")
        self.addCleanup(self.configure, "client")
        children.wait_until(
            lambda: not self.pinned(self.cache, old), 60,
            "the root on the other machine to go",
            lambda: self.client.journal("nix-queued.service"))
        self.assertTrue(self.pinned(self.cache, young))
        self.collect()
        for machine in (self.client, self.cache):
            self.assertFalse(self.valid(machine, old), machine.name)
            self.assertTrue(self.valid(machine, young), machine.name)
        self.tell(f"{old} is gone from both stores")

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

    def test_without_a_group_of_readers(self):
        """Then the sandbox is tighter."""
        self.switch_for_this_test("clientAlone")
        self.assertEqual("yes", self.client.unit(
            "nix-queued.service", "PrivateUsers")["PrivateUsers"])
        path = self.built_and_sent("alone")
        self.assertTrue(self.pinned(self.cache, path))
        self.assertNotEqual(0, self.client.run(
            ["queuectl", "status"], user="alice", check=False).returncode)

    def test_without_credentials(self):
        """The daemon's user reads the files itself."""
        secrets = "/var/secrets/signing-key /var/secrets/ssh-key" \
            " /var/secrets/netrc"
        self.addCleanup(self.client.shell, f"chown root {secrets}")
        self.client.shell(f"chown nix-queued {secrets}")
        self.switch_for_this_test("clientWithPlainPaths")
        self.client.run(["test", "!", "-e", CREDENTIALS])
        path = self.built_and_sent("plain")
        self.assertTrue(self.pinned(self.cache, path))

    def test_the_hook_under_its_old_names(self):
        for case, hook in (("clientWithPinScript", "pin-arm-cache.sh"),
                           ("clientWithUploadScript", "upload-to-cache.sh")):
            with self.subTest(hook):
                self.switch_for_this_test(case)
                self.assertIn(f"/etc/nix/{hook}", self.client.text(
                    ["nix", "show-config"]))
                path = self.built_and_sent(hook)
                for machine in (self.client, self.cache):
                    self.assertTrue(self.pinned(machine, path))

    def test_upstream_is_asked_once(self):
        for wanted in ("MISS", "HIT"):
            answer = self.client.text(
                ["curl", "--silent", "--include",
                 "http://nix-cache/foreign.txt"])
            self.assertIn("from far away", answer)
            self.assertIn(f"X-Cache-Status: {wanted}", answer)
            line = self.requests(f"X-Cache-Status={wanted}")[-1]
            self.tell(line)
        # In a directory that only nginx' own sandbox has to be opened for.
        self.assertNotEqual("", self.cache.text(
            ["find", "/ssdpool/local/nix-cache-proxy", "-type", "f"]))

    def test_populated(self):
        system = self.cache.text(["nix-instantiate", "--eval", "--expr",
                                  "builtins.currentSystem"]).strip('"')
        self.cache.write("/srv/flake/flake.nix", FLAKE.format(system=system))
        self.cache.shell("chown flake /srv/flake/flake.nix")
        self.cache.run(["runuser", "-u", "flake", "--", "sh", "-euc", COMMIT])
        started = self.cache.run(["systemctl", "start", "populate-cache"],
                                 check=False)
        self.assertEqual(0, started.returncode,
                         self.cache.journal("populate-cache"))
        path = self.cache.text(["sh", "-c", "readlink -f "
                                "/var/lib/populate-cache/outputs/*/*"])
        self.assertIn("-populated", path)
        self.cache.run(["nix-store", "--gc"])
        self.assertEqual("populated", self.cache.text(["cat", path]))
        self.assertIn("populate-cache.timer", self.cache.text(
            ["systemctl", "list-timers", "--no-legend"]))
        self.tell(f"populated and kept: {path}")

    def test_who_may_upload(self):
        def put(machine, *options):
            return machine.text(
                ["curl", "--silent", "--output", "/dev/null", "--write-out",
                 "%{http_code}", "--upload-file", "/etc/hostname", *options,
                 f"http://nix-cache:8081/{uuid.uuid4().hex}.txt"])
        word = base64.b64encode(f"up:{self.site.password}".encode()).decode()
        right = ("--header", f"Authorization: Basic {word}")
        self.assertEqual("201", put(self.client, *right))
        self.assertEqual("401", put(self.client))
        self.assertEqual("401", put(self.client, "--user", "up:wrong"))
        self.assertIn(self.client.text(
            ["curl", "--silent", "--output", "/dev/null", "--write-out",
             "%{http_code}", "--upload-file", "/etc/hostname",
             "http://nix-cache/x"]), ("403", "405"))


if __name__ == "__main__":
    unittest.main()
