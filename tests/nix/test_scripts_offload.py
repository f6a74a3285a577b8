"""offload-status and offload-test-build with a real sshd in front of a Nix
that builds, and with all that can be wrong about that."""

import base64
import os
import socket
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands
from commands import AWAY, FAILED

import nginx
import ssh_server


class Status(commands.OffloadTest):

    def test_a_good_builder(self):
        builder = self.make_builder()
        variables = self.use(builder)
        report = self.report("offload-status", **variables)
        self.assert_finding(report, "ok",
                            f"builder {builder.user}@127.0.0.1",
                            "x86_64-linux, i686-linux, 3 at once")
        self.assertEqual({"ok"},
                         {item["level"] for item in report.findings})
        self.assertEqual(
            [{"uri": f"ssh-ng://{builder.user}@127.0.0.1", "usable": True,
              "systems": ["x86_64-linux", "i686-linux"], "features": [],
              "max_jobs": 3, "speed_factor": 2}],
            report.document["builders"])
        text = self.run_command("offload-status", **variables).stdout
        self.assertIn("ok       builder", text)

    def test_a_file_of_machines(self):
        builder = self.make_builder()
        machines = os.path.join(self.base, "machines")
        with open(machines, "w", encoding="utf-8") as file:
            file.write("# fleet\n\n" + self.machine(builder, features="kvm")
                       + " # fast\n")
        self.configure(builders=f"@{machines} ; @/nonexistent/machines")
        report = self.report("offload-status",
                             NIX_SSHOPTS=builder.nix_ssh_options())
        self.assertEqual([["kvm"]], [item["features"] for item
                                     in report.document["builders"]])

    def test_no_builder(self):
        report = self.report("offload-status", code=FAILED)
        self.assert_finding(report, "failed", "builders", "none",
                            "offload-setup")
        self.assertEqual([], report.document["builders"])

    def test_no_builder_and_no_jobs(self):
        self.configure(max_jobs="0")
        report = self.report("offload-status", code=FAILED)
        self.assert_finding(report, "failed", "builders",
                            "nothing can be built", "--option max-jobs auto")

    def test_the_builder_is_off(self):
        builder = self.make_builder()
        variables = self.use(builder)
        builder.stop_sshd()
        report = self.report("offload-status", code=AWAY, **variables)
        self.assert_finding(report, "away", "builder", "no SSH server",
                            "systemctl status sshd")
        self.configure(max_jobs="0")
        report = self.report("offload-status", code=FAILED, **variables)
        self.assert_finding(report, "failed", "max-jobs",
                            "Failed to find a machine for remote build",
                            "--option builders ''")

    def test_a_builder_that_says_nothing_is_not_waited_for(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            report = self.report(
                "offload-status", "--host", "127.0.0.1", "--limit", "1",
                code=AWAY,
                NIX_SSHOPTS=f"-F none -p {silent.getsockname()[1]}")
        self.assert_finding(report, "away", "builder", "timed out")

    def test_no_jobs_here(self):
        variables = self.use(self.make_builder(), max_jobs="0")
        report = self.report("offload-status", **variables)
        self.assert_finding(report, "warning", "max-jobs", "is 0")

    def test_a_name_that_nobody_knows(self):
        report = self.report("offload-status", "--host", "hawk.invalid",
                             code=AWAY)
        self.assert_finding(report, "away", "builder nix-builder@hawk.invalid",
                            "not known here", "tailscale status")

    def test_another_key(self):
        builder = self.make_builder()
        key = os.path.join(self.base, "another")
        ssh_server.generate_ssh_key(key)
        self.configure(builders=self.machine(builder, key))
        report = self.report("offload-status", code=FAILED,
                             NIX_SSHOPTS=builder.nix_ssh_options())
        self.assert_finding(report, "failed", "builder", "key is not accepted",
                            "authorized_keys")

    def test_a_key_that_others_may_read(self):
        builder = self.make_builder()
        os.chmod(builder.key_file, 0o640)
        variables = self.use(builder)
        report = self.report("offload-status", code=FAILED, **variables)
        self.assert_finding(report, "failed", "key ", "open to others",
                            "chmod 600")

    def test_a_key_that_is_not_there(self):
        builder = self.make_builder()
        self.configure(builders=self.machine(builder, "/nonexistent/key"))
        report = self.report("offload-status", code=FAILED,
                             NIX_SSHOPTS=builder.nix_ssh_options())
        self.assert_finding(report, "failed", "key ", "not there",
                            "offload-setup")

    def test_a_host_key_that_nobody_knows(self):
        builder = self.make_builder()
        self.use(builder)
        empty = os.path.join(self.base, "empty")
        report = self.report("offload-status", code=FAILED,
                             NIX_SSHOPTS=builder.nix_ssh_options(empty))
        self.assert_finding(report, "failed", "builder", "host key",
                            "offload-setup")

    def test_a_host_key_that_the_machines_file_has(self):
        builder = self.make_builder()
        with open(builder.base + "/host_key.pub", "rb") as file:
            key = base64.b64encode(file.read()).decode()
        self.configure(builders=self.machine(builder) + " - " + key)
        # Nix knows the host's name, but not its port.
        self.report("offload-status", NIX_SSHOPTS=f"-F none -p {builder.port} "
                    "-oHostKeyAlias=127.0.0.1")

    def test_ssh_gets_in_but_nix_does_not(self):
        builder = self.make_builder()
        variables = self.use(builder)
        os.unlink(builder.socket)
        report = self.report("offload-status", code=FAILED, **variables)
        self.assert_finding(report, "failed", "builder", "ssh gets in",
                            "nix-daemon run there")

    def test_a_builder_for_other_systems(self):
        builder = self.make_builder()
        self.configure(builders=f"ssh-ng://{builder.user}@127.0.0.1 "
                       f"aarch64-linux {builder.key_file}",
                       builders_use_substitutes="false")
        report = self.report("offload-status",
                             NIX_SSHOPTS=builder.nix_ssh_options())
        self.assert_finding(report, "warning", "systems", "x86_64-linux")
        self.assert_finding(report, "warning", "builders-use-substitutes")

    def test_the_builder_s_cache(self):
        variables = self.use(self.make_builder())
        port = nginx.free_port()
        self.configure(
            substituters=f"http://127.0.0.1:{port} http://elsewhere.invalid")
        report = self.report("offload-status", code=AWAY, **variables)
        self.assert_finding(report, "away", f"cache http://127.0.0.1:{port}")
        self.assertEqual([], report.about("cache http://elsewhere"))


class TestBuild(commands.OffloadTest):

    def test_it_is_built_there_and_comes_back(self):
        builder = self.make_builder()
        variables = self.use(builder)
        report = self.report("offload-test-build", **variables)
        path = report.document["path"]
        self.assertEqual(f"ssh-ng://{builder.user}@127.0.0.1",
                         report.document["builder"])
        self.assertTrue(self.nix.valid(path))
        self.assertTrue(builder.store.valid(path))

    def test_a_builder_that_is_named(self):
        builder = self.make_builder()
        self.report("offload-test-build", "--host", "127.0.0.1", "--user",
                    builder.user, "--key", builder.key_file,
                    NIX_SSHOPTS=builder.nix_ssh_options())

    def test_a_builder_that_does_not_trust_us(self):
        variables = self.use(self.make_builder(commands.SuspiciousBuilder))
        report = self.report("offload-test-build", code=FAILED, **variables)
        self.assert_finding(report, "failed", "remote build",
                            "does not trust", "trusted-users")

    def test_a_builder_that_cannot_build_this(self):
        builder = self.make_builder()
        self.configure(builders=f"ssh-ng://{builder.user}@127.0.0.1 "
                       f"aarch64-linux {builder.key_file}")
        report = self.report("offload-test-build", code=FAILED,
                             NIX_SSHOPTS=builder.nix_ssh_options())
        self.assert_finding(report, "failed", "remote build", "no machine",
                            "max-jobs")

    def test_nobody_is_there(self):
        report = self.report("offload-test-build", code=FAILED)
        self.assert_finding(report, "failed", "builders", "none")
        builder = self.make_builder()
        variables = self.use(builder)
        builder.stop_sshd()
        report = self.report("offload-test-build", code=AWAY, **variables)
        self.assert_finding(report, "away", "builder")
        self.assertEqual([], report.about("remote build"))

    def test_this_machine_alone(self):
        report = self.report("offload-test-build", "--local")
        self.assertTrue(self.nix.valid(report.document["path"]))


if __name__ == "__main__":
    unittest.main()
