"""The agent on a booted machine: its sandbox, its secrets, its crashes."""

import unittest

import containers
import two_hosts

import children  # noqa: E402  found by containers

CREDENTIALS = "/run/credentials/nix-queued.service"

setUpModule = containers.require


class Agent(two_hosts.TwoHosts):

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
        self.client.run([*inside, "test", "-w", two_hosts.ROOTS])
        self.tell("nix-queued.service: ready, watched, sealed")

    def test_the_watchdog_is_fed(self):
        drop_in = "/run/systemd/system/nix-queued.service.d/watchdog.conf"
        again = "systemctl daemon-reload; systemctl restart nix-queued.service"
        self.addCleanup(self.client.shell, f"rm {drop_in}; {again}")
        self.client.write(drop_in, "[Service]\nWatchdogSec=1s\n")
        self.client.shell(again)

        def fed():
            return int(self.client.unit(
                "nix-queued.service", "WatchdogTimestampMonotonic")[
                    "WatchdogTimestampMonotonic"])
        first = fed()
        # Three times its limit, which it has to live through.
        children.wait_until(lambda: fed() - first > 3_000_000, 30,
                            "three seconds of signs of life",
                            lambda: self.client.journal("nix-queued.service"))
        self.assertEqual("0", self.client.unit(
            "nix-queued.service", "NRestarts")["NRestarts"])

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


if __name__ == "__main__":
    unittest.main()
