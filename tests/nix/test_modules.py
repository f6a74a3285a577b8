"""Client, coordinator and builder: what their options come to, as nix.conf,
ssh and sshd understand it."""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
import unittest

import support
import systemd

sys.path.insert(0, os.path.join(support.ROOT, "tests", "support"))

import private_nix  # noqa: E402
import ssh_server  # noqa: E402

BIN = os.environ["NIXQ_BIN"]
UPSTREAM_KEY = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
OUR_KEY = "nas-01-cache:p+D+bL6JFK+kHmLm6YAZOC0zfVQspOG/R8ZDIkb8Kug="
FEATURES = ["nixos-test", "benchmark", "big-parallel", "kvm"]

# Options as people have them in their configurations: what they are, if they
# are not set. None of these may ever change its name or its default.
DEFAULTS = {
    "services.nix-builder.client": {
        "enable": False,
        "cacheUrl": "http://nas-01:80",
        "publicKey": OUR_KEY,
        "priority": 30,
    },
    "services.nix-builder.coordinator": {
        "enable": False,
        "signingKeyPath": None,
        "enableLocalBuilds": True,
        "localCache": "http://localhost:5000",
        "builders": [],
    },
    "services.clubcotton.harmonia": {
        "enable": False,
        "port": 5000,
        "signKeyPath": None,
        "workers": 4,
        "maxConnections": 25,
        "tailnetHostname": "nix-cache",
    },
    "kernelcore.system.binary-cache": {
        "local.enable": True,
        "local.url": "http://192.168.15.6:5000",
        "local.priority": 40,
        "local.requireConnectivity": False,
        "remote.enable": True,
        "remote.substituters": ["https://cuda-maintainers.cachix.org",
                                "https://nix-community.cachix.org"],
    },
    "services.laptop-builder-client": {
        "enable": False,
        "desktopIP": "192.168.15.6",
        "builderKeyPath": "/etc/nix/builder_key",
        "maxJobs": 4,
    },
    "services.offload-server": {
        "enable": False,
        "cachePort": 5000,
        "builderUser": "nix-builder",
        "cacheKeyPath": "/var/cache-priv-key.pem",
        "enableNFS": False,
    },
}


class ClientCases(support.Cases):
    file = "client"


class CoordinatorCases(support.Cases):
    file = "coordinator"


class BuilderCases(support.Cases):
    file = "builder"


def said(made):
    """All warnings, without their line breaks."""
    return support.one_line(" ".join(made.warnings))


class Options(unittest.TestCase):

    def test_defaults(self):
        config = (f"(import {support.HERE}/eval.nix {{ module = {{ }}; }})"
                  ".config")
        wanted = {f"{prefix}.{name}": value
                  for prefix, options in DEFAULTS.items()
                  for name, value in options.items()}
        found = support.nix_value(f"let c = {config}; in {{" + "".join(
            f"{json.dumps(name)} = c.{name};" for name in wanted) + "}")
        self.assertEqual(wanted, found)

    def test_defaults_of_a_builder(self):
        machine, = support.render("coordinator", "fleet").buildMachines[1:2]
        self.assertEqual(
            {"hostName": "nix-01", "sshUser": "nix-builder", "protocol": "ssh",
             "sshKey": "/run/agenix/nix-builder-ssh-key",
             "systems": ["x86_64-linux"], "maxJobs": 4, "speedFactor": 1,
             "supportedFeatures": FEATURES, "mandatoryFeatures": []},
            {key: value for key, value in machine.items()
             if key not in ("publicHostKey", "system")})

    def test_nothing_happens_unless_enabled(self):
        for file in "client", "coordinator", "builder":
            made = support.render(file, "absent")
            self.assertEqual(
                (["https://cache.nixos.org/"], ["root"], [], {}, "", {}, []),
                (made.nixSettings["substituters"],
                 made.nixSettings["trusted-users"], made.buildMachines,
                 made.units, made.sshConfig, made.users, made.warnings))
            self.assertNotIn("post-build-hook", made.nixSettings)


class WithDirectory(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="nixq-modules-")
        self.addCleanup(directory.cleanup)
        self.base = directory.name

    def write(self, name, text):
        file = os.path.join(self.base, name)
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
        return file

    def run_ok(self, argv, **environment):
        result = subprocess.run(
            argv, env={"PATH": private_nix.PROGRAM_PATH, "HOME": self.base,
                       **environment},
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=60, check=False)
        self.assertEqual(0, result.returncode, result.stderr)
        return result

    def nix_sees(self, made):
        """What Nix makes of the rendered nix.conf, without a complaint."""
        self.write("nix.conf", support.on_this_machine(made.nixConf, BIN)
                   + "build-users-group =\n"
                   "extra-experimental-features = nix-command\n")
        command = (["config", "show"] if private_nix.nix_version() >= (2, 20)
                   else ["show-config"])
        result = self.run_ok(
            ["nix", *command, "--json"], NIX_CONF_DIR=self.base,
            NIX_USER_CONF_FILES="/dev/null",
            NIX_REMOTE=f"local?root={self.base}/store")
        self.assertEqual("", result.stderr)
        return {name: one["value"]
                for name, one in json.loads(result.stdout).items()}


class Client(WithDirectory):

    def test_defaults(self):
        for case in "defaults", "defaultsOnMac":
            with self.subTest(case):
                found = self.nix_sees(support.render("client", case))
                self.assertEqual(
                    ["http://nas-01:80", "https://cache.nixos.org/"],
                    found["substituters"])
                self.assertEqual({OUR_KEY, UPSTREAM_KEY},
                                 set(found["trusted-public-keys"]))
                self.assertEqual((2, 25, True, 3600), (
                    found["connect-timeout"], found["http-connections"],
                    found["fallback"], found["narinfo-cache-negative-ttl"]))

    def test_another_priority_is_in_the_url(self):
        found = self.nix_sees(support.render("client", "otherPriority"))
        self.assertEqual("http://nix-cache?priority=20",
                         found["substituters"][0])

    def test_more_caches(self):
        found = self.nix_sees(support.render("client", "more"))
        # cache.nixos.org once, though NixOS has it as well.
        self.assertEqual(["http://nas-01:80", "http://second:5000",
                          "https://cache.nixos.org/"], found["substituters"])
        self.assertEqual(3, len(found["trusted-public-keys"]))
        self.assertEqual((5, 50, False, 0), (
            found["connect-timeout"], found["http-connections"],
            found["fallback"], found["narinfo-cache-negative-ttl"]))

    def test_without_our_limits(self):
        made = support.render("client", "slow")
        self.assertNotIn("connect-timeout", made.nixSettings)
        self.assertNotIn("fallback", made.nixSettings)

    def test_own_settings_come_first(self):
        made = support.render("client", "ownTimeout")
        self.assertEqual(30, made.nixSettings["connect-timeout"])

    def test_a_mac_whose_nix_somebody_else_configures(self):
        failures = support.render("client", "nixOffOnMac").failures
        self.assertIn("put what lib.mkNixConf returns",
                      support.one_line(failures[0]))


class Coordinator(WithDirectory):

    def queue(self, case):
        """The agent's configuration, which has to please queued."""
        made = support.render("coordinator", case)
        entry = made.etc["nix-queued/queued.toml"]
        self.run_ok(["/bin/sh", "-ec",
                     support.on_this_machine(entry["check"], BIN)],
                    target=support.real_file(entry["source"]))
        return tomllib.loads(made.etc_text("nix-queued/queued.toml"))

    def test_builds_elsewhere_and_here(self):
        made = support.render("coordinator", "usual")
        found = self.nix_sees(made)
        self.assertTrue(found["builders-use-substitutes"])
        self.assertNotEqual(0, found["max-jobs"])
        self.assertEqual(["nix-01"], [machine["hostName"]
                                      for machine in made.buildMachines])
        self.assertEqual([], made.warnings)

    def test_boards(self):
        machines = support.render("coordinator", "boards").buildMachines
        self.assertEqual(
            [(f"opi0{n}.internal", ["aarch64-linux"], 6, 2, ["big-parallel"])
             for n in (1, 2, 3)],
            [(machine["hostName"], machine["systems"], machine["maxJobs"],
              machine["speedFactor"], machine["supportedFeatures"])
             for machine in machines])

    def test_only_elsewhere(self):
        made = support.render("coordinator", "noLocalBuilds")
        self.assertEqual(0, self.nix_sees(made)["max-jobs"])
        self.assertIn("--option max-jobs auto --option builders \"\"",
                      said(made))

    def test_signs_pins_and_looks_at_its_own_cache(self):
        made = support.render("coordinator", "usual")
        queue = self.queue("usual")
        self.assertEqual([{"name": "local-cache",
                           "url": "local:http://localhost:5000"}],
                         queue["target"])
        self.assertTrue(queue["roots"]["enable"])
        unit = systemd.directives(made.units["nix-queued.service"])
        self.assertEqual(
            ["signing-key-0:/run/agenix/harmonia-signing-key"],
            unit["Service", "LoadCredential"])
        self.assertEqual(["$CREDENTIALS_DIRECTORY/signing-key-0"],
                         queue["signing"]["key-files"])
        self.assertIn("queued-hook", made.nixSettings["post-build-hook"])
        self.assertNotIn("secret-key-files", made.nixSettings)

    def test_pins_without_signing(self):
        queue = self.queue("boards")
        self.assertEqual({}, queue.get("signing", {}))
        self.assertEqual(["local:http://127.0.0.1:5000"],
                         [target["url"] for target in queue["target"]])

    def test_neither_key_nor_cache(self):
        made = support.render("coordinator", "noCache")
        self.assertNotIn("nix-queued.service", made.units)
        self.assertNotIn("post-build-hook", made.nixSettings)
        self.assertNotIn("secret-key-files", made.nixSettings)

    def test_a_key_without_a_cache(self):
        # The agent signs what comes back from builders, too; Nix' own
        # secret-key-files would not.
        for case in "noCacheButKey", "onlySigning":
            with self.subTest(case):
                made = support.render("coordinator", case)
                self.assertEqual([{"name": "local-store", "url": "local:"}],
                                 self.queue(case)["target"])
                self.assertIn("nix-queued.service", made.units)
                self.assertNotIn("secret-key-files", made.nixSettings)
                self.assertEqual([], made.warnings)

    def test_a_cache_that_takes_uploads(self):
        self.assertEqual([{"name": "local-cache",
                           "url": "http://127.0.0.1:8081"}],
                         self.queue("upload")["target"])

    def test_ssh(self):
        made = support.render("coordinator", "everything")
        # Somebody else's settings come after ours.
        file = self.write("ssh_config", made.sshConfig + "LogLevel DEBUG2\n")

        def sees(who):
            text = self.run_ok(["ssh", "-G", "-F", file, who]).stdout
            return dict(line.split(" ", 1) for line in text.splitlines())
        nix = sees("build@far.example.org")
        wanted = {"port": "2222", "compression": "yes", "connecttimeout": "10",
                  "hostkeyalias": "far.example.org"}
        self.assertEqual(wanted, {key: nix.get(key) for key in wanted})
        # Somebody who goes there by hand notices nothing.
        for who in "alice@far.example.org", "build@elsewhere":
            other = sees(who)
            self.assertEqual(("22", "no", None, "DEBUG2"), (
                other["port"], other["compression"],
                other.get("hostkeyalias"), other["loglevel"]))
        self.assertEqual(
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9WYCeJ8qXb far",
             ["far.example.org"]),
            (made.knownHosts["far.example.org"]["publicKey"],
             made.knownHosts["far.example.org"]["hostNames"]))


class Builder(WithDirectory):

    def test_the_user(self):
        made = support.render("builder", "usual")
        user = made.users["nix-builder"]
        self.assertEqual(
            (True, False, "nix-builder", "/var/lib/nix-builder", True, True),
            (user["isSystemUser"], user["isNormalUser"], user["group"],
             user["home"], user["createHome"], user["useDefaultShell"]))
        self.assertEqual(
            ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9WYCeJ8qXb nas-01"],
            user["openssh"]["authorizedKeys"]["keys"])
        self.assertIn("nix-builder", made.groups)
        self.assertEqual([], user["extraGroups"])
        self.assertIn("nix-builder", self.nix_sees(made)["trusted-users"])
        self.assertTrue(made.openssh["enable"])

    def test_no_keys(self):
        self.assertIn("no coordinator can log in",
                      said(support.render("builder", "noKeys")))
        self.assertEqual([], support.render("builder",
                                            "restrictedKey").warnings)

    def test_tuning(self):
        made = support.render("builder", "tuned")
        self.assertEqual(
            ("auto", 0, ["aarch64-linux"]),
            (made.nixSettings["max-jobs"], made.nixSettings["cores"],
             made.emulatedSystems))
        self.assertNotIn("ForceCommand", made.openssh["extraConfig"])

    def sshd_allows(self, made, user):
        """What sshd lets a user do, as it says itself."""
        key = os.path.join(self.base, "host_key")
        if not os.path.exists(key):
            ssh_server.generate_ssh_key(key)
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        # What others have configured, before and after.
        file = self.write("sshd_config", "\n".join([
            f"HostKey {key}", "X11Forwarding yes",
            made.openssh["extraConfig"], "MaxAuthTries 3"]))
        text = self.run_ok(["/usr/sbin/sshd", "-T", "-f", file, "-C",
                            f"user={user},host=x,addr=10.0.0.1"]).stdout
        return dict(line.split(" ", 1) for line in text.splitlines())

    def test_the_login_is_for_builds_only(self):
        made = support.render("builder", "usual")
        found = self.sshd_allows(made, "nix-builder")
        self.assertEqual("publickey", found["authenticationmethods"])
        for key in ("allowtcpforwarding", "allowstreamlocalforwarding",
                    "allowagentforwarding", "permittunnel", "permittty",
                    "x11forwarding"):
            self.assertEqual("no", found[key], key)
        self.assertIn("nix-builder-login", found["forcecommand"])
        other = self.sshd_allows(made, "alice")
        self.assertEqual(("none", "yes", "yes", "3"), (
            other["forcecommand"], other["permittty"],
            other["x11forwarding"], other["maxauthtries"]))

    def test_what_the_login_runs(self):
        made = support.render("builder", "usual")
        command = self.sshd_allows(made, "nix-builder")["forcecommand"]
        # Programs that say how they are called, in the place of Nix.
        for name in "nix-store", "nix-daemon":
            os.chmod(self.write(name, "#!/bin/sh\necho ran ${0##*/} \"$@\"\n"),
                     0o755)
        script = self.write("login", made.text_of(command).replace(
            f"/nix/store/{'0' * 32}-nix/bin", self.base))
        for request, answer in {
                "nix-store --serve --write": "ran nix-store --serve --write",
                "nix-store --serve": "ran nix-store --serve --write",
                "nix-daemon --stdio": "ran nix-daemon --stdio",
                "nix-store --version": "ran nix-store --version",
                "echo OK": "OK",
                "echo $(touch " + self.base + "/evil)": "OK",
        }.items():
            with self.subTest(request):
                result = self.run_ok(["sh", script],
                                     SSH_ORIGINAL_COMMAND=request)
                self.assertEqual(answer, result.stdout.strip())
        for request in ("", "sh", "nix-store --delete /nix/store/x",
                        "nix-store --serve --write; sh",
                        "nix-daemon --stdio --option x y", "touch evil"):
            with self.subTest(request):
                result = subprocess.run(
                    ["sh", script], env={"SSH_ORIGINAL_COMMAND": request},
                    capture_output=True, text=True, check=False,
                    stdin=subprocess.DEVNULL, timeout=60)
                self.assertEqual((1, ""), (result.returncode, result.stdout))
                self.assertIn("forceCommand = false", result.stderr)
        self.assertFalse(os.path.exists(f"{self.base}/evil"))


if __name__ == "__main__":
    unittest.main()
