"""offload-server-status, -server-test and -generate-cache-keys.

The cache server is `local` here: it serves what a builder's store has, as
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
from commands import FAILED, USAGE

import cache_server
import nginx

UNITS = """
  case "$*" in
    *{down}*) echo LoadState=loaded; echo ActiveState=failed ;;
    *basic.target* | *nix-daemon.socket* | *ssh.service* | *nix-serve*)
      echo LoadState=loaded; echo ActiveState=active ;;
    *) echo LoadState=not-found; echo ActiveState=inactive ;;
  esac"""


class ServerTest(commands.CacheTest):
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


class Status(ServerTest):

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
        self.fake("systemctl", UNITS.format(down="nothing").replace(
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


class TryIt(ServerTest):

    def test_what_is_built_is_served(self):
        # As a cache of this machine's own store does, the server gets what
        # was built, and signs it.
        def publish(request):
            if request.key.endswith(".narinfo") and (
                    not os.path.exists(self.server.cache.file(request.key))):
                self.publish(request.key)
        self.server.fault = publish
        report = self.report("offload-server-test", *self.arguments())
        path = report.document["path"]
        self.assertTrue(self.nix.valid(path))
        self.assert_finding(report, "ok", "build", path)
        self.assert_finding(report, "ok", "path ", "signed by test-1")

    def publish(self, key):
        for path in self.nix.lines(["nix", "path-info", "--all"]):
            if os.path.basename(path).startswith(key[:32]):
                self.upload(path, url="file://" + self.server.directory)

    def test_what_is_built_is_not_served(self):
        report = self.report("offload-server-test", *self.arguments(),
                             code=FAILED)
        self.assert_finding(report, "failed", "served", "just built",
                            "nix path-info --store")

    def test_it_does_not_build(self):
        self.configure(sandbox_paths="/nonexistent", sandbox="true",
                       sandbox_fallback="false")
        report = self.report("offload-server-test", *self.arguments(),
                             code=FAILED)
        self.assert_finding(report, "failed", "build", "", "nix-build -v")


class Keys(commands.CommandTest):

    def setUp(self):
        super().setUp()
        self.make_nix(daemon=False)
        self.secret = os.path.join(self.base, "keys", "cache-priv-key.pem")
        self.public = os.path.join(self.base, "keys", "cache-pub-key.pem")

    def make(self, *arguments, code=0):
        return self.report("offload-generate-cache-keys", "--secret",
                           self.secret, *arguments, code=code)

    def read(self, file):
        with open(file, encoding="ascii") as text:
            return text.read()

    def test_a_new_pair(self):
        report = self.make("--name", "hawk.internal-1")
        self.assertEqual(0o600, os.stat(self.secret).st_mode & 0o777)
        self.assertTrue(self.read(self.secret).startswith("hawk.internal-1:"))
        public = self.read(self.public).strip()
        self.assertTrue(public.startswith("hawk.internal-1:"))
        self.assertEqual(public, report.document["public_key"])
        # It is a pair: what the one signs, the other proves.
        path = self.nix.build('derivation { name = "x"; system = builtins.'
                              'currentSystem; builder = "/bin/sh"; args = '
                              '[ "-c" "echo > $out" ]; }')[0]
        self.nix.run(["nix", "store", "sign", "--key-file", self.secret, path])
        cache = self.place("c")
        self.nix.run(["nix", "copy", "--to", f"file://{cache}", path])
        self.nix.run(["nix", "store", "verify", "--store", f"file://{cache}",
                      "--option", "trusted-public-keys", public, path])

    def test_a_secret_is_neither_shown_nor_an_argument(self):
        self.fake("nix", f"""
          echo "$*" >>{self.base}/arguments
          exec /usr/bin/nix "$@" """)
        result = self.run_command("offload-generate-cache-keys", "--secret",
                                  self.secret)
        secret = self.read(self.secret).split(":")[1].strip()
        self.assertNotIn(secret, result.stdout + result.stderr)
        self.assertIn("convert-secret-to-public",
                      self.read(self.base + "/arguments"))
        self.assertNotIn(secret, self.read(self.base + "/arguments"))

    def test_what_is_there_is_kept(self):
        first = self.make("--name", "a-1").document["public_key"]
        os.unlink(self.public)
        self.assertEqual(first, self.make().document["public_key"])
        self.assertEqual(first + "\n", self.read(self.public))
        report = self.make("--name", "a-2", code=FAILED)
        self.assert_finding(report, "failed", "name", "is a-1, not a-2")
        self.assertTrue(self.read(self.secret).startswith("a-1:"))

    def test_the_public_key_of_another(self):
        self.make("--name", "a-1")
        with open(self.public, "w", encoding="ascii") as file:
            file.write("b-1:AAAA\n")
        report = self.make(code=FAILED)
        self.assert_finding(report, "failed", "public key", "another key")

    def test_an_owner_who_does_not_exist(self):
        report = self.make("--owner", "nixq-" + self.salt[:8], code=FAILED)
        self.assert_finding(report, "failed", "signing key", "invalid user")

    def test_a_place_that_cannot_be_written(self):
        report = self.report("offload-generate-cache-keys", "--secret",
                             "/proc/key", code=FAILED)
        self.assert_finding(report, "failed", "signing key", "cannot write")

    def test_names(self):
        self.run_command("offload-generate-cache-keys", "--name", "a:b",
                         code=USAGE)
        for secret, public in (("x.secret", "x.public"), ("key", "key.pub")):
            self.report("offload-generate-cache-keys", "--secret",
                        os.path.join(self.base, secret))
            self.assertTrue(os.path.exists(os.path.join(self.base, public)))


if __name__ == "__main__":
    unittest.main()
