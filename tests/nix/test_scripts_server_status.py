"""offload-server-status.

The cache server is a stand-in that serves what a builder's store has, as
harmonia and nix-serve do, or misbehaves like them. systemctl, ss, getent and
exportfs are played, since a test may not change this machine's services.
"""

import os
import pwd
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands
from commands import FAILED

import cache_server
import nginx


class Status(commands.ServerTest):

    def test_all_is_well(self):
        report = self.status()
        self.assertNotIn("failed", {item["level"]
                                    for item in report.findings})
        for check, text in (("ssh.service", "runs"), ("nix-serve", "runs"),
                            ("user nobody", "/bin/sh"),
                            ("trusted-users", "nobody"),
                            ("keys of nobody", "1 may"),
                            ("signing key", self.public_key),
                            ("cache", "answers"),
                            ("path ", "signed by test-1"),
                            ("disk", "GiB free")):
            self.assertTrue(any(text in item["text"] for item
                                in report.about(check)), check)
        self.assertEqual([], report.about("nginx.service"))
        self.assertEqual(self.public_key, report.document["public_key"])

    def test_a_service_that_is_down(self):
        self.play(down="nix-serve")
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "nix-serve.service",
                            "does not run", "journalctl -u nix-serve.service")

    def test_a_service_that_nobody_has_installed(self):
        self.fake("systemctl", commands.UNITS.format(down="nothing").replace(
            "*nix-serve*", "*else*"))
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "harmonia.service",
                            "no such service", "nix-serve.service")

    def test_without_systemd(self):
        self.fake("systemctl", "echo 'not booted with systemd' >&2; exit 1")
        report = self.status()
        self.assert_finding(report, "warning", "services", "no systemd")

    def test_a_user_without_a_shell(self):
        self.play(shell="/usr/sbin/nologin")
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "user nobody", "no shell",
                            "forced command")

    def test_a_user_who_does_not_exist(self):
        name = "nixq-nobody-" + self.salt[:8]
        self.assertNotIn(name, [row.pw_name for row in pwd.getpwall()])
        report = self.status("--user", name, code=FAILED)
        self.assert_finding(report, "failed", "user " + name, "no such user",
                            "services.nix-builder.builder")

    def test_a_cache_that_nobody_builds_on(self):
        report = self.status("--no-builder", "--user", "nixq-nobody")
        self.assertEqual([], report.about("user "))

    def test_a_user_who_is_not_trusted(self):
        self.configure(trusted_users="root @wheel")
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "trusted-users",
                            "not privileged to build", "restart")

    def test_a_group_is_trusted(self):
        self.configure(trusted_users="root @nogroup")
        self.assert_finding(self.status(), "ok", "trusted-users")

    def test_nobody_may_log_in(self):
        self.authorize("# ssh-ed25519 AAAA gone")
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "keys of nobody", "none",
                            "authorizedKeys")

    def test_no_signing_key(self):
        os.unlink(self.secret_key)
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "signing key", "not there",
                            "offload-generate-cache-keys")

    def test_a_signing_key_for_everybody(self):
        os.chmod(self.secret_key, 0o644)
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "signing key", "open to others")
        os.chmod(self.secret_key, 0o640)
        self.status()

    def test_a_file_that_is_no_key(self):
        with open(self.secret_key, "w", encoding="ascii") as file:
            file.write("nonsense\n")
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "signing key", "is none")

    def test_the_cache_signs_with_another_key(self):
        other, _ = self.nix.generate_key("other-1")
        report = self.status("--key-file", other, code=FAILED)
        self.assert_finding(report, "failed", "path ",
                            "signed by test-1, which is not trusted")

    def test_the_cache_server_may_not_read_its_key(self):
        self.server.fault = lambda request: (
            cache_server.Fault("status", 500)
            if request.key.endswith(".narinfo") else None)
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "path ", "HTTP 500",
                            "may not read the signing key")

    def test_the_cache_serves_another_store(self):
        os.unlink(self.server.cache.file(
            os.path.basename(self.path)[:32] + ".narinfo"))
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "served", "does not have")

    def test_the_cache_is_down(self):
        report = self.report(
            "offload-server-status", "--port", nginx.free_port(), "--user",
            "nobody", "--key-file", self.secret_key, code=FAILED)
        self.assert_finding(report, "failed", "cache", "refuses")

    def test_only_this_machine_gets_through(self):
        self.play(listening="127.0.0.1:5000")
        self.assert_finding(self.status(), "warning", "listening",
                            "127.0.0.1:5000", "firewall")

    def test_nfs(self):
        report = self.status("--nfs", code=FAILED)
        self.assert_finding(report, "failed", "nfs", "not exported",
                            "enableNFS")
        self.play(exports=self.nix.store_dir + "  10.0.0.0/8(ro)")
        self.assert_finding(self.status("--nfs"), "ok", "nfs", "10.0.0.0/8")

    def test_nginx_does_not_like_its_configuration(self):
        self.fake("nginx", "echo 'unknown directive \"lsten\"' >&2; exit 1")
        report = self.status(code=FAILED)
        self.assert_finding(report, "failed", "nginx", "lsten")


if __name__ == "__main__":
    unittest.main()
