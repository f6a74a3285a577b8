"""offload-setup with a real sshd, offload-mount and -unmount."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands
from commands import AWAY, FAILED

import ssh_server


class Setup(commands.OffloadTest):

    def setUp(self):
        super().setUp()
        self.builder = self.make_builder()
        self.key = os.path.join(self.base, "keys", "builder_key")
        self.machines = os.path.join(self.base, "etc", "machines")
        self.known = os.path.join(self.base, "known", "hosts")
        self.configure(builders="@" + self.machines)

    def setup(self, *arguments, code=0):
        return self.report(
            "offload-setup", "--host", "127.0.0.1", "--user",
            self.builder.user, "--key", self.key, "--machines", self.machines,
            *arguments, code=code,
            NIX_SSHOPTS=self.builder.nix_ssh_options(self.known))

    def authorize(self, public):
        with open(os.path.join(self.builder.base, "authorized_keys"), "a",
                  encoding="ascii") as file:
            file.write(public + "\n")

    def test_from_nothing_to_a_build(self):
        report = self.setup(code=FAILED)
        self.assertEqual(0o600, os.stat(self.key).st_mode & 0o777)
        public = report.document["public_key"]
        self.assertTrue(public.startswith("ssh-ed25519 "))
        fingerprint = report.document["host_key_fingerprint"]
        self.assert_finding(report, "failed", "host key", fingerprint,
                            "--fingerprint " + fingerprint)
        self.assertFalse(os.path.exists(self.known))

        report = self.setup("--fingerprint", fingerprint, code=FAILED)
        self.assert_finding(report, "failed", "builder", "not accepted",
                            "authorized_keys")

        self.authorize(public)
        report = self.setup()
        self.assertEqual(public, report.document["public_key"])
        self.assert_finding(report, "ok", "host key", "is known")
        self.assert_finding(report, "ok", "machines", "Nix knows")
        with open(self.machines, encoding="utf-8") as file:
            self.assertEqual([f"ssh-ng://{self.builder.user}@127.0.0.1 "
                              f"x86_64-linux {self.key} 4 1 -"],
                             file.read().splitlines())
        self.run_command(
            "offload-test-build",
            NIX_SSHOPTS=self.builder.nix_ssh_options(self.known))

    def test_another_fingerprint(self):
        report = self.setup("--fingerprint", "SHA256:x", code=FAILED)
        self.assert_finding(report, "failed", "host key", "not SHA256:x")
        self.assertFalse(os.path.exists(self.known))

    def test_a_host_key_that_has_changed(self):
        other = os.path.join(self.base, "other")
        ssh_server.generate_ssh_key(other)
        os.makedirs(os.path.dirname(self.known))
        with open(other + ".pub", encoding="ascii") as file:
            line = f"[127.0.0.1]:{self.builder.port} {file.read()}"
        with open(self.known, "w", encoding="ascii") as file:
            file.write(line)
        report = self.setup(code=FAILED)
        self.assert_finding(report, "failed", "host key", "not the one",
                            "ssh-keygen -R")
        with open(self.known, encoding="ascii") as file:
            self.assertEqual(line, file.read())

    def test_a_dry_run_changes_nothing(self):
        report = self.setup("--dry-run", "--fingerprint", "SHA256:x",
                            code=FAILED)
        self.assert_finding(report, "ok", "key", "would be made")
        self.assert_finding(report, "ok", "machines", "would go into")
        for file in (self.key, self.machines, self.known):
            self.assertFalse(os.path.exists(file))

    def test_a_machines_file_that_is_made_by_others(self):
        os.makedirs(os.path.dirname(self.machines))
        os.symlink("/nonexistent/static", self.machines)
        report = self.setup(code=FAILED)
        self.assert_finding(report, "warning", "machines", "left alone",
                            "services.laptop-builder-client")

    def test_the_builder_is_off(self):
        self.builder.stop_sshd()
        report = self.setup(code=AWAY)
        self.assert_finding(report, "away", "host key", "shows none")


class Mount(commands.CommandTest):
    """No kernel here mounts NFS: mount, umount and showmount are played by
    scripts that say what the real ones say; the port is a real one."""

    def setUp(self):
        super().setUp()
        self.make_nix(daemon=False)
        self.point = os.path.join(self.base, "remote")
        self.table = os.path.join(self.base, "table")
        self.server = self.make_cache_server()
        self.play()

    def play(self, mount="", umount="", exports="/nix/store 10.0.0.0/8"):
        """What mount and umount say before they fail, if they fail."""
        self.fake("mount.nfs", "exit 1")
        self.fake("showmount", f"echo '{exports}'")
        self.fake("mount", f"""
          if (($# == 0)); then cat {self.table} 2>/dev/null; exit 0; fi
          if [[ -n '{mount}' ]]; then echo '{mount}' >&2; exit 32; fi
          echo "$5 on $6 type nfs ($4)" >>{self.table}""")
        self.fake("umount", f"""
          if [[ -n '{umount}' && $1 != -l ]]; then
            echo '{umount}' >&2; exit 32
          fi
          rm {self.table}""")

    def mount(self, *arguments, code=0):
        return self.report("offload-mount", "--host", "127.0.0.1", "--port",
                           self.server.port, "--mount-point", self.point,
                           *arguments, code=code)

    def test_there_and_back(self):
        self.assert_finding(self.mount("--dry-run"), "ok", "mount", "would be")
        self.assertFalse(os.path.exists(self.table))
        self.mount()
        with open(self.table, encoding="utf-8") as file:
            line = file.read()
        self.assertIn(f"127.0.0.1:/nix/store on {self.point} type nfs (ro,",
                      line)
        self.assertIn("soft,", line)
        self.assert_finding(self.mount(), "ok", "mount", "already")
        for text in ("is unmounted", "nothing is mounted"):
            report = self.report("offload-unmount", "--mount-point",
                                 self.point)
            self.assert_finding(report, "ok", "mount", text)

    def test_no_server(self):
        self.server.stop()
        report = self.mount(code=AWAY)
        self.assert_finding(report, "away", "nfs", "refused", "enableNFS")

    def test_not_exported(self):
        self.play(exports="/srv/films *")
        report = self.mount(code=FAILED)
        self.assert_finding(report, "failed", "nfs", "/srv/films",
                            "exportfs -ra")

    def test_what_mount_says(self):
        for said, level, hint in (
                ("mount.nfs: access denied by server while mounting x",
                 "failed", "nfsAllowed"),
                ("mount.nfs: Connection refused", "away", "2049"),
                ("mount.nfs: mounting x failed, reason given by server: "
                 "No such file or directory", "failed", "showmount"),
                ("mount.nfs: an incorrect mount option", "failed", "dmesg")):
            with self.subTest(said):
                self.play(mount=said)
                report = self.mount(code=AWAY if level == "away" else FAILED)
                self.assert_finding(report, level, "mount", said, hint)

    def test_no_helper(self):
        if any(os.path.exists(place + "/mount.nfs")
               for place in ("/sbin", "/usr/sbin")):
            # Then it is not missing: the next program to fail is mount.
            self.play(mount="no")
            self.mount(code=FAILED)
            return
        os.unlink(os.path.join(self.fakes, "mount.nfs"))
        result = self.run_command("offload-mount", "--host", "127.0.0.1",
                                  "--port", self.server.port, "--mount-point",
                                  self.point, code=commands.MISSING)
        self.assertIn("nfs-common", result.stderr)

    def test_it_is_in_use(self):
        self.play(umount="umount.nfs: x: device is busy")
        self.mount()
        report = self.report("offload-unmount", "--mount-point", self.point,
                             code=FAILED)
        self.assert_finding(report, "failed", "mount", "busy", "--lazy")
        self.report("offload-unmount", "--mount-point", self.point, "--lazy")

    def test_a_server_that_is_gone_is_not_waited_for(self):
        self.mount()
        self.fake("umount", "exec sleep 600")
        arguments = ("offload-unmount", "--mount-point", self.point, "--limit",
                     "1")
        report = self.report(*arguments, code=FAILED)
        self.assert_finding(report, "failed", "mount", "does not answer",
                            "--lazy")
        # macOS has no program `timeout`; perl does what it does.
        tools = self.place("tools")
        for name in os.listdir("/usr/bin"):
            if name not in ("timeout", "mount", "umount"):
                os.symlink(f"/usr/bin/{name}", os.path.join(tools, name))
        report = self.report(*arguments, code=FAILED,
                             path=f"{self.fakes}:{tools}")
        self.assert_finding(report, "failed", "mount", "does not answer")

    def test_nobody_s_store(self):
        self.configure(builders="")
        self.run_command("offload-mount", code=commands.USAGE)

    def test_the_builder_of_nix_conf(self):
        self.configure(builders="ssh-ng://nix@127.0.0.1 - - 1")
        report = self.report("offload-mount", "--port", self.server.port,
                             "--dry-run")
        self.assert_finding(report, "ok", "mount", "127.0.0.1:/nix/store")


if __name__ == "__main__":
    unittest.main()
