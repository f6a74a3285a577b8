"""What lib.* returns: word for word, and as its real readers understand it.

The texts in golden/ are what the cases below return; NIXQ_WRITE_GOLDEN=1
writes them anew, for a person to look at.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import unittest

import support

sys.path.insert(0, os.path.join(support.ROOT, "tests", "support"))

import private_nix  # noqa: E402

GOLDEN = os.path.join(support.HERE, "golden")
LIB = f"(import {support.ROOT}/nixos-module/lib)"
HOST_KEY = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9WYCeJ8qXbQyCoHGKzwYPn3gIw"
            "lOV0qWmqnqUoBAAn nix-02")

# Three machines: as little as possible, all there is, and another kind.
FLEET = """[
  { hostname = "nix-01"; }
  {
    hostname = "nix-02";
    sshUser = "build";
    port = 2222;
    protocol = "ssh-ng";
    systems = [ "x86_64-linux" "aarch64-linux" ];
    maxJobs = 8;
    speedFactor = 3;
    supportedFeatures = [ "kvm" ];
    mandatoryFeatures = [ "gpu" ];
    publicHostKey = "%s";
    compression = true;
  }
  {
    hostname = "10.0.0.7";
    systems = [ "aarch64-linux" ];
    supportedFeatures = [ ];
  }
]""" % HOST_KEY

CASES = {
    "nix.conf": "mkNixConf { }",
    "nix-all.conf": """mkNixConf {
      cacheUrl = "http://nix-cache";
      publicKey = "nix-cache:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
      priority = 20;
      extraSubstituters = [
        "https://cache.nixos.org"
        "http://second:5000?trusted=1"
      ];
      extraPublicKeys = [
        "second:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
      ];
      failFast = { connectTimeout = 5; fallback = false; negativeTtl = 0; };
      machinesFile = "/etc/nix/machines";
      settings = {
        max-jobs = "auto";
        cores = 0;
        auto-optimise-store = true;
        experimental-features = [ "nix-command" "flakes" ];
        http-connections = null;
      };
    }""",
    "nix-slow.conf": "mkNixConf { failFast.enable = false; }",
    "machines": "mkMachinesFile { }",
    "machines-all": ("mkMachinesFile { sshKeyPath = \"/root/.ssh/nix-builder\";"
                     f" builders = {FLEET}; }}"),
    "ssh_config": "mkSshConfig { }",
    "ssh_config-all": ("mkSshConfig { sshKeyPath = \"/root/.ssh/nix-builder\";"
                       " knownHostsFile = \"/etc/nix/known_hosts\";"
                       f" builders = {FLEET}; }}"),
    "nginx.conf": "mkNginx { }",
    "nginx-all.conf": """mkNginx {
      proxy = {
        listenAddresses = [ "127.0.0.1" "[::1]" ];
        listenPort = 8080;
        serverNames = [ "cache.lan" ];
        localUrl = "http://[::1]:5001";
        fallthroughOn = [ 404 ];
        upstream = "http://mirror.lan:8000/nix/";
        resolver = [ "192.168.1.1" "fd00::1" "[fd00::2]:5353" ];
        upstreamIpv6 = true;
        offlineMissAs404 = true;
        cacheDir = "/srv/nix-proxy";
        maxSize = "10g";
        validity = "90d";
        accessLog = "file";
        priority = 35;
      };
      uploadEndpoint = {
        directory = "/srv/nix-uploads";
        allowedNetworks = [ "100.64.0.0/10" "fd00::/8" ];
        basicAuthFile = "/etc/nginx/nix-cache.htpasswd";
        allowOverwrite = false;
      };
    }""",
    "nginx-uploads.conf": """mkNginx {
      proxy = null;
      uploadEndpoint = { allowedNetworks = [ ]; basicAuthFile = "/etc/p"; };
    }""",
}

# What must not come to a text, and what the message says.
REFUSED = {
    "mkNixConf { cacheURL = \"http://x\"; }": "cacheURL",
    "mkNixConf { failFast.timeout = 1; }": "timeout",
    "mkNixConf { settings.cores = \"1\\nbuilders = x\"; }":
        "cores has a line break",
    "mkMachinesFile { builders = [ { } ]; }": "hostname",
    "mkMachinesFile { builders = [ { hostName = \"a\"; } ]; }": "host",
    "mkMachinesFile { builders = [ { hostname = \"a b\"; } ]; }":
        "`ssh://nix-builder@a b' has a blank",
    "mkSshConfig { builders = [ { hostname = \"a\"; user = \"b\"; } ]; }":
        "user",
    "mkNginx { proxy.upstream = \"cache.nixos.org\"; }":
        "upstream: `cache.nixos.org' is no URL",
    "mkNginx { proxy.localUrl = \"http://127.0.0.1:5000/cache\"; }":
        "localUrl: `http://127.0.0.1:5000/cache' is not http://HOST[:PORT]",
    "mkNginx { proxy.port = 80; }": "port",
}


def read_golden(name):
    with open(os.path.join(GOLDEN, name), encoding="utf-8") as file:
        return file.read()


class Golden(unittest.TestCase):

    maxDiff = None

    def test_texts(self):
        attributes = "".join(f"{json.dumps(name)} = {text};\n"
                             for name, text in CASES.items())
        made = support.nix_value(f"with {LIB}; {{ {attributes} }}")
        if os.environ.get("NIXQ_WRITE_GOLDEN"):
            for name, text in made.items():
                with open(os.path.join(GOLDEN, name), "w",
                          encoding="utf-8") as file:
                    file.write(text)
        self.assertEqual(set(CASES), set(os.listdir(GOLDEN)))
        for name, text in made.items():
            with self.subTest(name):
                self.assertEqual(read_golden(name), text)

    def test_refused(self):
        for expression, message in REFUSED.items():
            with self.subTest(expression):
                with self.assertRaises(support.EvaluationFailed) as failure:
                    support.nix_value(f"with {LIB}; {expression}")
                self.assertIn(message, support.one_line(
                    str(failure.exception)))

    def test_default_data(self):
        cache, builders = support.nix_value(
            f"with {LIB}; [ cache builders ]")
        self.assertEqual("http://nas-01:80", cache["url"])
        self.assertEqual(
            "nas-01-cache:p+D+bL6JFK+kHmLm6YAZOC0zfVQspOG/R8ZDIkb8Kug=",
            cache["publicKey"])
        self.assertEqual(["nas-01", "nix-01", "nix-02", "nix-03"],
                         [builder["hostname"] for builder in builders])

    def test_base64(self):
        printable = "".join(map(chr, range(32, 127)))
        texts = ["", "a", "ab", "abc", "abcd", printable, HOST_KEY]
        made = support.nix_value(
            f"map (import {support.ROOT}/nixos-module/lib/base64.nix)"
            f" (builtins.fromJSON {json.dumps(json.dumps(texts))})")
        self.assertEqual(
            [base64.b64encode(text.encode()).decode() for text in texts], made)


class Consumers(unittest.TestCase):
    """The golden texts, read by the programs they are for."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="nixq-lib-")
        self.addCleanup(directory.cleanup)
        self.base = directory.name

    def run_ok(self, argv, **environment):
        result = subprocess.run(
            argv, env={"PATH": private_nix.PROGRAM_PATH, "HOME": self.base,
                       **environment},
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=60, check=False)
        self.assertEqual(0, result.returncode, result.stderr)
        return result

    def write(self, name, text):
        file = os.path.join(self.base, name)
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
        return file

    # --- Nix ---------------------------------------------------------------

    def show_config(self, text):
        """What Nix makes of a nix.conf. It warns of what it does not know."""
        # A machines file is read, and has to be there.
        text = text.replace("@/etc/nix/machines", f"@{self.write('m', '')}")
        self.write("nix.conf", text + "build-users-group =\n"
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

    def test_nix_conf(self):
        made = self.show_config(read_golden("nix.conf"))
        self.assertEqual(["http://nas-01:80", "https://cache.nixos.org"],
                         made["substituters"])
        self.assertEqual({"nas-01-cache", "cache.nixos.org-1"},
                         {key.split(":")[0]
                          for key in made["trusted-public-keys"]})
        self.assertEqual((2, 25, True, 3600), (
            made["connect-timeout"], made["http-connections"],
            made["fallback"], made["narinfo-cache-negative-ttl"]))

    def test_nix_conf_with_all(self):
        made = self.show_config(read_golden("nix-all.conf"))
        self.assertEqual(
            ["http://nix-cache?priority=20", "https://cache.nixos.org",
             "http://second:5000?trusted=1"], made["substituters"])
        self.assertEqual(3, len(made["trusted-public-keys"]))
        self.assertEqual((5, False, 0, True), (
            made["connect-timeout"], made["fallback"],
            made["narinfo-cache-negative-ttl"],
            made["builders-use-substitutes"]))
        self.assertEqual(f"@{self.base}/m", made["builders"])

    def test_a_misspelt_setting_is_noticed(self):
        """This file's own check can fail."""
        with self.assertRaises(AssertionError) as failure:
            self.show_config("conect-timeout = 2\n")
        self.assertIn("unknown setting", str(failure.exception))

    def test_machines(self):
        """Nix says which machines it would ask, and finds each wanting."""
        nix = private_nix.PrivateNix(os.path.join(self.base, "n"))
        self.addCleanup(nix.remove)
        file = self.write("machines", read_golden("machines-all"))
        result = nix.build(
            private_nix.derivation("remote", "echo > $out",
                                   requiredSystemFeatures='[ "no-such" ]'),
            "--max-jobs", "0", "--builders", f"@{file}", check=False)
        self.assertNotEqual(0, result.returncode)
        listed = result.stderr.split("mandatoryFeatures)\n")[1]
        # Later versions of Nix put brackets around lists.
        listed = listed.replace("[", "").replace("]", "").splitlines()
        self.assertEqual(
            ["(x86_64-linux, 4, benchmark, big-parallel, kvm, nixos-test, )",
             "(x86_64-linux, aarch64-linux, 8, gpu, kvm, gpu)",
             "(aarch64-linux, 4, , )"], listed[:3])
        key = read_golden("machines-all").splitlines()[1].split()[-1]
        self.assertEqual(HOST_KEY, base64.b64decode(key).decode())

    # --- ssh ---------------------------------------------------------------

    def ssh_sees(self, name, host):
        file = self.write("ssh_config", read_golden(name))
        result = self.run_ok(["ssh", "-G", "-F", file, host])
        found = {}
        for line in result.stdout.splitlines():
            key, _, value = line.partition(" ")
            found.setdefault(key, value)
        return found

    def test_ssh_config(self):
        made = self.ssh_sees("ssh_config-all", "nix-02")
        wanted = {
            "user": "build", "port": "2222", "hostkeyalias": "nix-02",
            "compression": "yes", "identityfile": "/root/.ssh/nix-builder",
            "identitiesonly": "yes", "connecttimeout": "10",
            "serveraliveinterval": "15", "serveralivecountmax": "4",
            "userknownhostsfile": "/etc/nix/known_hosts",
        }
        self.assertEqual(wanted, {key: made.get(key) for key in wanted})

    def test_ssh_config_of_the_next_host(self):
        made = self.ssh_sees("ssh_config-all", "10.0.0.7")
        wanted = {"user": "nix-builder", "port": "22", "compression": "no",
                  "identityfile": "/root/.ssh/nix-builder"}
        self.assertEqual(wanted, {key: made.get(key) for key in wanted})

    def test_ssh_config_touches_nobody_else(self):
        made = self.ssh_sees("ssh_config-all", "elsewhere")
        self.assertNotEqual("nix-builder", made["user"])
        self.assertNotEqual("/root/.ssh/nix-builder", made["identityfile"])

    # --- nginx -------------------------------------------------------------

    def test_nginx(self):
        names = [name for name in CASES if name.startswith("nginx")]
        self.assertEqual(3, len(names))
        for name in names:
            with self.subTest(name):
                self.check_nginx(read_golden(name))

    def check_nginx(self, text):
        # nginx -t makes directories and opens logs: below ours.
        for directory in ("/var/cache/nginx", "/var/log/nginx", "/srv",
                          "/var/lib/nix-cache-upload"):
            os.makedirs(self.base + directory, exist_ok=True)
            text = text.replace(f" {directory}", f" {self.base}{directory}")
        os.makedirs(f"{self.base}/srv/nix-uploads", exist_ok=True)
        file = self.write("nginx.conf", "\n".join([
            f"pid {self.base}/pid;", f"error_log {self.base}/log;",
            "events { }", "http {", f"include {self.write('text', text)};",
            "}", ""]))
        self.run_ok(["nginx", "-t", "-c", file, "-e", f"{self.base}/log"])


if __name__ == "__main__":
    unittest.main()
