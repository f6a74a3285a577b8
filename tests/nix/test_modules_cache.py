"""Cache host, scheduled builds, laptops and their desktops: what the options
come to. What the rendered nginx does is in test_nginx.py."""

import os
import platform
import shlex
import subprocess
import sys
import tempfile
import unittest

import cache_host
import support
import systemd

sys.path.insert(0, os.path.join(support.ROOT, "tests", "support"))

import private_nix  # noqa: E402

CUDA = "https://cuda-maintainers.cachix.org"
COMMUNITY = "https://nix-community.cachix.org"
UPSTREAM = "https://cache.nixos.org/"


class CacheHostCases(support.Cases):
    file = "cache-host"


class PopulateCases(support.Cases):
    file = "populate"


class LaptopCases(support.Cases):
    file = "laptop"


def said(made):
    """All warnings, without their line breaks."""
    return support.one_line(" ".join(made.warnings))


def key_names(made):
    return sorted(key.split(":")[0]
                  for key in made.nixSettings["trusted-public-keys"])


class Harmonia(unittest.TestCase):

    def test_the_usual(self):
        made = support.render("cache-host", "harmonia")
        server = made.harmonia["cache"]
        self.assertEqual(
            (True, ["/var/lib/secrets/harmonia.secret"],
             {"bind": "[::]:5000", "workers": 4, "max_connections": 25,
              "priority": 30}),
            (server["enable"], server["signKeyPaths"], server["settings"]))
        self.assertEqual(([], []), (made.warnings,
                                    made.firewall["allowedTCPPorts"]))

    def test_before_the_option_was_split(self):
        flat = support.render("cache-host", "harmoniaFlat").harmonia
        split = support.render("cache-host", "harmonia").harmonia["cache"]
        self.assertEqual(split, flat)

    def test_tuned(self):
        made = support.render("cache-host", "harmoniaTuned")
        server = made.harmonia["cache"]
        self.assertEqual(["/var/lib/old", "/var/lib/new"],
                         server["signKeyPaths"])
        self.assertEqual({"bind": "127.0.0.1:5001", "workers": 8,
                          "max_connections": 100, "priority": 50},
                         server["settings"])
        self.assertEqual([5001], made.firewall["allowedTCPPorts"])

    def test_keys(self):
        made = support.render("cache-host", "agenix")
        self.assertEqual(["/run/agenix/harmonia-signing-key"],
                         made.harmonia["cache"]["signKeyPaths"])
        self.assertIn("has no signing key",
                      said(support.render("cache-host", "unsigned")))
        self.assertEqual([], support.render("cache-host",
                                            "signedByAgent").warnings)

    def test_tailnet(self):
        for case, port in ("tailnet", 8080), ("tailnetWithoutProxy", 5000):
            with self.subTest(case):
                unit = systemd.directives(support.render(
                    "cache-host", case).units["nix-cache-tailnet.service"])
                self.assertIn(" serve --service=svc:nix-cache --http=80 --yes"
                              f" http://127.0.0.1:{port}",
                              unit["Service", "ExecStart"][0])
        for case in "noTailnet", "harmonia":
            self.assertNotIn("nix-cache-tailnet.service",
                             support.render("cache-host", case).units)


class NginxOptions(unittest.TestCase):

    def test_the_text_is_that_of_the_library(self):
        made = support.render("cache-host", "proxyAndUploads").nginx
        text = support.nix_value(
            f"(import {support.ROOT}/nixos-module/lib).mkNginx {{"
            " proxy = { resolver = [ \"192.168.1.1\" ];"
            " serverNames = [ \"nix-cache\" \"host\" ];"
            " cacheDir = \"/ssdpool/local/nix-cache-proxy\"; };"
            " uploadEndpoint.directory = \"/ssdpool/local/nix-cache/upload\";"
            " }")
        for part in (made["commonHttpConfig"],
                     *(host["extraConfig"]
                       for host in made["virtualHosts"].values())):
            self.assertIn(squeezed(part), squeezed(text))

    def test_proxy(self):
        made = support.render("cache-host", "proxy")
        host = made.nginx["virtualHosts"]["nix-cache"]
        # NixOS' own addresses, so that its TLS can be used.
        self.assertEqual(("nix-cache", ["nas-01"], []), (
            host["serverName"], host["serverAliases"], host["listen"]))
        self.assertTrue(made.nginx["enable"])
        self.assertEqual(({}, [], []), (made.units, made.tmpfiles,
                                        made.firewall["allowedTCPPorts"]))

    def test_a_directory_of_its_own(self):
        made = support.render("cache-host", "proxyElsewhere")
        directory = "/ssdpool/local/nix-cache-proxy"
        unit = systemd.directives(made.units["nginx.service"])
        self.assertEqual([directory], unit["Service", "ReadWritePaths"])
        self.assertEqual([directory], unit["Unit", "RequiresMountsFor"])
        self.assertEqual([f"d {directory} 0700 nginx nginx -"], made.tmpfiles)
        self.assertEqual([8080], made.firewall["allowedTCPPorts"])
        self.assertEqual(
            [("0.0.0.0", 8080), ("[::]", 8080)],
            [(one["addr"], one["port"]) for one
             in made.nginx["virtualHosts"]["nix-cache"]["listen"]])

    def test_uploads(self):
        made = support.render("cache-host", "uploads")
        self.assertNotIn("nix-cache", made.nginx["virtualHosts"])
        self.assertEqual(["d /var/lib/nix-cache-upload 0755 nginx nginx -"],
                         made.tmpfiles)
        self.assertEqual([], made.firewall["allowedTCPPorts"])

    def test_the_proxy_serves_what_is_uploaded(self):
        made = support.render("cache-host", "proxyAndUploads")
        self.assertIn("root /ssdpool/local/nix-cache/upload;",
                      made.nginx["virtualHosts"]["nix-cache"]["extraConfig"])
        self.assertEqual([8081], made.firewall["allowedTCPPorts"])
        self.assertEqual(
            {"/ssdpool/local/nix-cache-proxy",
             "/ssdpool/local/nix-cache/upload"},
            set(systemd.directives(made.units["nginx.service"])[
                "Service", "ReadWritePaths"]))


def squeezed(text):
    """Without what indentation makes of it."""
    return " ".join(text.split())


class Populate(unittest.TestCase):

    def test_units(self):
        made = support.render("populate", "usual")
        timer = systemd.directives(made.units["populate-cache.timer"])
        self.assertEqual((["daily"], ["true"], ["timers.target"]), (
            timer["Timer", "OnCalendar"], timer["Timer", "Persistent"],
            timer["Install", "WantedBy"]))
        service = systemd.directives(made.units["populate-cache.service"])
        self.assertEqual((["oneshot"], ["root"]), (
            service["Service", "Type"], service["Service", "User"]))
        path, = (line for line in service["Service", "Environment"]
                 if "PATH=" in line)
        self.assertIn("-nix/bin", path)
        self.assertIn("-git/bin", path)

    def test_other_times_and_users(self):
        made = support.render("populate", "weekly")
        timer = systemd.directives(made.units["populate-cache.timer"])
        self.assertEqual((["weekly"], ["false"]), (
            timer["Timer", "OnCalendar"], timer["Timer", "Persistent"]))
        service = systemd.directives(made.units["populate-cache.service"])
        self.assertEqual((["alice"], ["/etc/nixos"]), (
            service["Service", "User"], service["Service", "ReadWritePaths"]))

    def test_what_is_built(self):
        script = self.script(support.render("populate", "remote"))
        self.assertIn("build hosts.a 'github:example/machines#hosts.a'\n"
                      "build nixpkgs-hello 'nixpkgs#hello'\n", script)
        self.assertNotIn("nix flake update", script)
        self.assertNotIn("\ncd ", script)
        script = self.script(support.render("populate", "weekly"))
        self.assertIn("\ncd /etc/nixos\nnix flake update --commit-lock-file",
                      script)
        self.assertIn("--no-link", script)

    @staticmethod
    def script(made):
        service = systemd.directives(made.units["populate-cache.service"])
        return made.text_of(service["Service", "ExecStart"][0])


class PopulateForReal(unittest.TestCase):
    """The script of the unit, with a flake and a Nix daemon."""

    def setUp(self):
        # Short, since the daemon's socket is below.
        directory = tempfile.TemporaryDirectory(prefix="nixq-", dir="/tmp")
        self.addCleanup(directory.cleanup)
        self.base = directory.name
        self.state = os.path.join(self.base, "state")
        os.makedirs(self.state)
        self.nix = private_nix.PrivateNix(os.path.join(self.base, "n"))
        self.addCleanup(self.nix.remove)
        self.nix.start_daemon()
        self.flake = os.path.join(self.base, "flake")
        os.makedirs(self.flake)
        self.write_flake(good="first", other="other", bad=None)

    def write_flake(self, **outputs):
        """Outputs that say something; those that say None do not build."""
        system = f"{platform.machine()}-linux"
        lines = "".join(
            f'{name} = derivation {{ name = "{name}"; system = "{system}";'
            ' builder = "/bin/sh"; args = [ "-c" "'
            + (f"echo {text} > $out" if text else "exit 1") + '" ]; };\n'
            for name, text in outputs.items())
        with open(f"{self.flake}/flake.nix", "w", encoding="utf-8") as file:
            file.write(f"{{ outputs = _: {{ pkgs = {{ {lines} }}; }}; }}\n")

    def populate(self, *outputs, **options):
        """Runs the unit's script with the unit's environment."""
        made = cache_host.evaluate({"services": {"nix-builder": {"populate": {
            "enable": True, "flake": self.flake,
            "outputs": [f"pkgs.{name}" for name in outputs], **options}}}})
        service = systemd.directives(made.units["populate-cache.service"])
        given = dict(shlex.split(line)[0].split("=", 1)
                     for line in service["Service", "Environment"])
        return subprocess.run(
            ["sh", support.real_file(service["Service", "ExecStart"][0]
                                     .strip())],
            env={**self.nix.environment, "STATE_DIRECTORY": self.state,
                 **{name: given[name] for name in ("NIX_CONFIG",
                                                   "NIX_REMOTE")}},
            capture_output=True, text=True, check=False, timeout=300,
            stdin=subprocess.DEVNULL)

    def link(self, name):
        return f"{self.state}/outputs/pkgs.{name}/result"

    def test_builds_pins_and_lets_go(self):
        result = self.populate("bad", "good", "other")
        self.assertEqual(1, result.returncode, result.stderr)
        self.assertIn(f"not built: {self.flake}#pkgs.bad (see above",
                      result.stderr)
        good, other = (os.readlink(self.link(name))
                       for name in ("good", "other"))
        self.nix.collect_garbage()
        self.assertTrue(self.nix.valid(good) and self.nix.valid(other))

        # What is new takes the place of what was; what fails leaves it.
        self.write_flake(good="second", other=None)
        result = self.populate("good", "other")
        self.assertEqual(1, result.returncode, result.stderr)
        newer = os.readlink(self.link("good"))
        self.assertNotEqual(good, newer)
        self.nix.collect_garbage()
        self.assertEqual([False, True, True], [
            self.nix.valid(path) for path in (good, newer, other)])

        # What is not on the list any more goes.
        result = self.populate("good")
        self.assertEqual((0, True), (result.returncode,
                                     os.path.exists(self.link("good"))))
        self.nix.collect_garbage()
        self.assertEqual([True, False], [
            self.nix.valid(path) for path in (newer, other)])

    def test_without_pins(self):
        result = self.populate("good", pin=False)
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertEqual([], os.listdir(f"{self.state}/outputs"))

    def test_a_lock_file_that_cannot_be_updated(self):
        with open(f"{self.flake}/flake.lock", "w", encoding="ascii") as file:
            file.write("not a lock file")
        result = self.populate("good", updateLock=True)
        self.assertIn("cannot update flake.lock: building with the old one",
                      result.stderr)


class Laptop(unittest.TestCase):

    def test_the_usual(self):
        made = support.render("laptop", "laptop")
        machine, = made.buildMachines
        self.assertEqual(
            ("192.168.15.6", "nix-builder", "/etc/nix/builder_key"),
            (machine["hostName"], machine["sshUser"], machine["sshKey"]))
        self.assertEqual(
            (4, ["http://192.168.15.6:5000", UPSTREAM], 2, 25, True, 3600,
             True),
            tuple(made.nixSettings[name] for name in (
                "max-jobs", "substituters", "connect-timeout",
                "http-connections", "fallback", "narinfo-cache-negative-ttl",
                "builders-use-substitutes")))
        self.assertEqual(["cache.nixos.org-1", "desktop"], key_names(made))
        self.assertIn("Match host 192.168.15.6 user nix-builder\n"
                      "  ConnectTimeout 10\n", made.sshConfig)
        self.assertEqual(({}, []), (made.fileSystems, made.warnings))
        self.assertIn("offload-status", made.packages)

    def test_nothing_happens_unless_enabled(self):
        made = support.render("laptop", "absent")
        self.assertEqual(
            ([], [UPSTREAM], "auto", [], {}, {}, {}),
            (made.buildMachines, made.nixSettings["substituters"],
             made.nixSettings["max-jobs"], made.packages, made.units,
             made.users, made.fileSystems))

    def test_tuned(self):
        made = support.render("laptop", "laptopTuned")
        machine, = made.buildMachines
        self.assertEqual(
            ("desktop.lan", "remote", 16, 3, ["x86_64-linux", "i686-linux"],
             ["kvm"]),
            tuple(machine[key] for key in (
                "hostName", "sshUser", "maxJobs", "speedFactor", "systems",
                "supportedFeatures")))
        self.assertEqual(0, made.nixSettings["max-jobs"])
        self.assertIn("maxJobs is 0: while desktop.lan is off nothing is built",
                      said(made))
        self.assertIn("desktop.lan", made.knownHosts)
        mount = made.fileSystems["/nix/store-remote"]
        self.assertEqual(("desktop.lan:/nix/store", "nfs"),
                         (mount["device"], mount["fsType"]))
        self.assertLessEqual({"ro", "soft", "nofail", "noauto",
                              "x-systemd.automount"}, set(mount["options"]))

    def test_warnings_and_own_settings(self):
        made = support.render("laptop", "laptopOwnJobs")
        self.assertEqual(2, made.nixSettings["max-jobs"])
        self.assertIn("Set cachePublicKey", said(made))


class Server(unittest.TestCase):

    def test_the_usual(self):
        made = support.render("laptop", "server")
        self.assertEqual(
            (True, 5000, "/var/cache-priv-key.pem", "--workers 4"),
            tuple(made.nixServe[key] for key in (
                "enable", "port", "secretKeyFile", "extraParams")))
        self.assertFalse(made.harmonia["cache"]["enable"])
        self.assertFalse(made.nfs["server"]["enable"])
        self.assertIn("nix-builder", made.users)
        self.assertIn("nix-builder", made.nixSettings["trusted-users"])
        self.assertEqual(([], []), (made.firewall["allowedTCPPorts"],
                                    made.firewall["allowedUDPPorts"]))
        self.assertIn("offload-generate-cache-keys", made.packages)

    def test_with_everything(self):
        made = support.render("laptop", "serverTuned")
        self.assertFalse(made.nixServe["enable"])
        server = made.harmonia["cache"]
        self.assertEqual(
            (["/var/lib/key"], "[::]:5001", 8),
            (server["signKeyPaths"], server["settings"]["bind"],
             server["settings"]["workers"]))
        self.assertEqual(
            "/nix/store 10.0.0.0/8(ro,all_squash,no_subtree_check)"
            " fd00::/8(ro,all_squash,no_subtree_check)",
            made.nfs["server"]["exports"].strip())
        self.assertEqual(([111, 2049, 5001], [111, 2049]), (
            sorted(made.firewall["allowedTCPPorts"]),
            sorted(made.firewall["allowedUDPPorts"])))
        self.assertIn("remote", made.users)


class Caches(unittest.TestCase):

    def test_the_usual(self):
        made = support.render("laptop", "caches")
        self.assertEqual(["http://192.168.15.6:5000?priority=40", CUDA,
                          COMMUNITY, UPSTREAM],
                         made.nixSettings["substituters"])
        self.assertEqual(["cache.nixos.org-1", "cuda-maintainers.cachix.org-1",
                          "desktop", "nix-community.cachix.org-1"],
                         key_names(made))
        self.assertEqual((2, 25, True, 3600), tuple(
            made.nixSettings[name] for name in (
                "connect-timeout", "http-connections", "fallback",
                "narinfo-cache-negative-ttl")))
        self.assertEqual([], made.warnings)
        self.assertIn("cache-status", made.packages)

    def test_a_plain_list(self):
        made = support.render("laptop", "cachesPlain")
        self.assertEqual([COMMUNITY, "http://cachy.local", UPSTREAM],
                         made.nixSettings["substituters"])
        self.assertEqual(["cache.nixos.org-1", "cachy.local",
                          "nix-community.cachix.org-1"], key_names(made))
        self.assertEqual([], made.warnings)

    def test_parts(self):
        made = support.render("laptop", "cachesLocalOnly")
        self.assertEqual(["http://192.168.15.6:5000?priority=40", UPSTREAM],
                         made.nixSettings["substituters"])
        made = support.render("laptop", "cachesRequired")
        self.assertFalse(made.nixSettings["fallback"])

    def test_caches_without_a_key(self):
        self.assertIn("there is no key of http://192.168.15.6:5000",
                      said(support.render("laptop", "cachesDefaults")))
        made = support.render("laptop", "cachesWithoutKeys")
        self.assertEqual(1, len(made.warnings))
        self.assertIn(f"there is no key of {CUDA}: Nix would", said(made))


class OtherNames(unittest.TestCase):

    def test_binary_cache(self):
        made = support.render("laptop", "kernelcore")
        self.assertEqual(["http://192.168.15.6:5000?priority=40", COMMUNITY,
                          UPSTREAM], made.nixSettings["substituters"])
        self.assertIn("kernelcore.system.binary-cache.remote.substituers",
                      said(made))

    def test_harmonia(self):
        made = support.render("laptop", "clubcotton")
        server = made.harmonia["cache"]
        self.assertEqual(
            (["/run/agenix/harmonia-signing-key"], 8, 30, "[::]:5001"),
            (server["signKeyPaths"], server["settings"]["workers"],
             server["settings"]["max_connections"],
             server["settings"]["bind"]))
        self.assertEqual([5001], made.firewall["allowedTCPPorts"])


if __name__ == "__main__":
    unittest.main()
