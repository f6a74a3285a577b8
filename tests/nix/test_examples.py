"""The examples work as they are: each flake is evaluated, each configuration
goes to the program that reads it."""

import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import support
import systemd

try:
    import yaml
except ImportError:
    yaml = None

EXAMPLES = os.path.join(support.ROOT, "examples")
BIN = os.environ.get("NIXQ_BIN", "")
FLAKES = {"nas", "hawk", "server", "laptop", "macbook"}
LIMIT_SECONDS = 60

# A flake's inputs as it would get them, but for what NixOS and nix-darwin make
# of a list of modules: that is what eval.nix does.
EVALUATION = """
let
  evaluate = class: { modules, system }:
    import %(here)s/eval.nix ({
      inherit class system;
      base = [ ];
      module.imports = modules;
    } // { %(arguments)s });
  inputs = {
    self = outputs;
    nixpkgs.lib.nixosSystem = evaluate "nixos";
    nix-darwin.lib.darwinSystem = evaluate "darwin";
    nix-queued = import %(modules)s { };
  };
  flake = import %(examples)s/%(name)s/flake.nix;
  outputs = flake.outputs inputs;
  wanted = builtins.attrNames (builtins.functionArgs flake.outputs);
  missing = builtins.filter (i: i != "self" && !(flake.inputs ? ${i})) wanted;
in
if missing != [ ] then throw "inputs that are not named: ${toString missing}"
else builtins.mapAttrs (_: machine: machine.rendered)
  (outputs.nixosConfigurations or { } // outputs.darwinConfigurations or { })
"""


@functools.lru_cache(maxsize=None)
def machines(name, where="pocket"):
    """{host: what its configuration comes to} of a flake."""
    class_ = "darwin" if name == "macbook" else "nixos"
    arguments = "".join(f"{key} = {value}; " for key, value
                        in support.surroundings(class_)[where].items())
    return {host: support.Rendered(data) for host, data in support.nix_value(
        EVALUATION % {"here": support.HERE, "modules": support.MODULES,
                      "examples": EXAMPLES, "name": name,
                      "arguments": arguments}).items()}


def run(*argv, **options):
    """Returns the exit code and all that was printed."""
    result = subprocess.run(
        list(map(str, argv)), stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        timeout=LIMIT_SECONDS, **options)
    return result.returncode, result.stdout


class Example(unittest.TestCase):

    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="nixq-example-")
        self.addCleanup(shutil.rmtree, self.base)

    def write(self, name, text):
        file = os.path.join(self.base, name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
        return file

    def assert_runs(self, *argv, **options):
        code, said = run(*argv, **options)
        self.assertEqual(0, code, f"{argv}\n{said}")
        return said

    def assert_nix_likes(self, nix_conf):
        """Nix reads the settings and knows them all."""
        self.write("nix/nix.conf", "experimental-features = nix-command\n"
                   + nix_conf)
        said = self.assert_runs(
            "nix", "show-config", env={
                **support.environment(), "NIX_CONF_DIR": self.base + "/nix"})
        self.assertNotIn("unknown setting", said)
        return dict(line.split(" = ", 1) for line in said.splitlines()
                    if " = " in line)

    def assert_nginx_likes(self, http):
        """`http` is what stands at that level."""
        user = "user root;" if os.geteuid() == 0 else ""
        places = "".join(
            f"{name}_temp_path {self.base}/{name};" for name in
            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        for place in re.findall(r"^proxy_cache_path (\S+)", http, re.M):
            http = http.replace(place, self.base + "/cache")
        http = re.sub(r"/var/log/nginx/", self.base + "/", http)
        file = self.write("nginx.conf", f"{user}\npid {self.base}/pid;\n"
                          f"events {{}}\nhttp {{ {places}\n{http}\n}}\n")
        self.assert_runs("nginx", "-t", "-p", self.base, "-e",
                         self.base + "/error.log", "-c", file)


class Flakes(Example):
    """What the five flakes come to."""

    def test_all_are_tried(self):
        self.assertEqual(FLAKES, {
            os.path.basename(os.path.dirname(file)) for file
            in glob.glob(os.path.join(EXAMPLES, "*", "flake.nix"))})

    def each(self):
        return [(name, host, made) for name in sorted(FLAKES)
                for host, made in machines(name).items()]

    def test_nothing_is_wrong_with_any(self):
        for name in sorted(FLAKES):
            class_ = "darwin" if name == "macbook" else "nixos"
            for where in support.surroundings(class_):
                for host, made in machines(name, where).items():
                    with self.subTest(name, host=host, where=where):
                        self.assertEqual([], made.failures)
                        self.assertEqual([], made.warnings)

    def test_queued_accepts_each_configuration(self):
        checked = set()
        for name, host, made in self.each():
            if "nix-queued/queued.toml" not in made.etc:
                continue
            with self.subTest(name, host=host):
                file = self.write("queued.toml", made.etc_text(
                    "nix-queued/queued.toml"))
                self.assert_runs(
                    os.path.join(BIN, "queued"), "--check-config", "--config",
                    file, env={"CREDENTIALS_DIRECTORY": self.base})
                checked.add(host)
        self.assertEqual({"nas-01", "hawk", "laptop-home", "laptop-mobile",
                          "macbook"}, checked)

    def test_nix_accepts_each_configuration(self):
        for name, host, made in self.each():
            with self.subTest(name, host=host):
                self.assert_nix_likes(made.nixConf)

    def test_systemd_accepts_each_unit(self):
        theirs = {"tailscaled.service": "[Service]\nExecStart=/x\n"}
        for name, host, made in self.each():
            if name == "macbook":
                continue
            with self.subTest(name, host=host):
                with systemd.Units({**theirs, **made.units}) as units:
                    self.assertEqual([], units.complaints())

    def test_nginx_accepts_the_proxy(self):
        nginx = machines("nas")["nas-01"].nginx
        self.assertEqual(["nix-cache"], list(nginx["virtualHosts"]))
        host = nginx["virtualHosts"]["nix-cache"]
        self.assert_nginx_likes(
            nginx["commonHttpConfig"] + "server { listen 127.0.0.1:8089;"
            + host["extraConfig"] + "}")

    def test_the_keys_are_nobody_s(self):
        public = {"6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="}
        for file in glob.glob(os.path.join(EXAMPLES, "**"), recursive=True):
            if not os.path.isfile(file):
                continue
            with open(file, encoding="utf-8") as text:
                content = text.read()
            with self.subTest(file):
                for key in re.findall(r"[A-Za-z0-9+/]{42,}={1,2}", content):
                    self.assertTrue("REPLACE" in key or key in public, key)
                for key in re.findall(r"ssh-ed25519 (\S{12,})", content):
                    self.assertTrue(key.startswith("AAAAREPLACE"), key)
                self.assertNotIn("PRIVATE KEY-----", content)


class What(unittest.TestCase):
    """Each flake does what it says."""

    def test_nas(self):
        made = machines("nas")
        nas = made["nas-01"]
        self.assertEqual(["nix-01", "nix-02", "nix-03"],
                         [m["hostName"] for m in nas.buildMachines])
        self.assertEqual([2, 1, 1],
                         [m["speedFactor"] for m in nas.buildMachines])
        self.assertIn("local:http://localhost:5000",
                      nas.etc_text("nix-queued/queued.toml"))
        self.assertIn("/ssdpool/local/nix-cache-proxy",
                      nas.nginx["commonHttpConfig"])
        self.assertIn("nix-cache-tailnet.service", nas.units)
        self.assertIn(80, nas.firewall["allowedTCPPorts"])
        self.assertNotIn(5000, nas.firewall["allowedTCPPorts"])
        for builder in ("nix-01", "nix-02", "nix-03"):
            self.assertIn("nix-builder",
                          made[builder].nixSettings["trusted-users"])
        for client in ("nix-01", "workstation"):
            self.assertRegex(made[client].nixSettings["substituters"][0],
                             r"^http://(nas-01:80|nix-cache)$")

    def test_hawk(self):
        made = machines("hawk")
        hawk = made["hawk"]
        self.assertEqual([["aarch64-linux"]] * 3,
                         [m["systems"] for m in hawk.buildMachines])
        queued = tomllib.loads(hawk.etc_text("nix-queued/queued.toml"))
        self.assertEqual(["aarch64-linux"], queued["roots"]["systems"])
        self.assertEqual("30d", queued["roots"]["max-age"])
        self.assertIn("OnCalendar=weekly",
                      hawk.units["prune-arm-cache-roots.timer"])
        self.assertEqual("--delete-older-than 7d", hawk.gc["options"])
        for board in ("opi01", "opi02", "opi03"):
            self.assertIn("http://hawk.internal:5000",
                          made[board].nixSettings["substituters"])

    def test_server(self):
        made = machines("server")
        server = made["server"]
        self.assertIn("OnCalendar=daily", server.units["populate-cache.timer"])
        self.assertIn("Persistent=true", server.units["populate-cache.timer"])
        self.assertEqual("weekly", server.gc["dates"])
        self.assertNotIn(5000, server.firewall["allowedTCPPorts"])
        self.assertEqual([5000], server.firewall["interfaces"]["tailscale0"]
                         ["allowedTCPPorts"])
        self.assertNotIn("nix-push", server.nixSettings["trusted-users"])
        # Asked after cache.nixos.org.
        self.assertIn("http://server:5000?priority=50",
                      made["desktop"].nixSettings["substituters"])

    def test_laptop(self):
        made = machines("laptop")
        home, mobile = made["laptop-home"], made["laptop-mobile"]
        self.assertEqual(["192.168.15.6"],
                         [m["hostName"] for m in home.buildMachines])
        self.assertEqual(4, home.nixSettings["max-jobs"])
        self.assertEqual([], mobile.buildMachines)
        self.assertNotIn("192.168.15.6", mobile.nixConf)
        for machine in (home, mobile):
            target = tomllib.loads(machine.etc_text(
                "nix-queued/queued.toml"))["target"][0]
            self.assertTrue(target["pin-remote"])
        self.assertIn("offload-status", home.packages)
        self.assertIn("offload-server-status", made["desktop"].packages)

    def test_macbook(self):
        made = machines("macbook")["macbook"]
        target = tomllib.loads(made.etc_text(
            "nix-queued/queued.toml"))["target"][0]
        self.assertEqual("ssh-ng://nix-push@server", target["url"])
        self.assertTrue(target["pin-remote"])
        self.assertIn("post-build-hook", made.nixConf)
        self.assertIn("http://server:5000?priority=50", made.nixConf)


class Docker(Example):

    def setUp(self):
        super().setUp()
        self.assert_runs("bash", os.path.join(EXAMPLES, "docker", "render.sh"),
                         self.base, env=support.environment())

    def read(self, name):
        with open(os.path.join(self.base, name), encoding="utf-8") as file:
            return file.read()

    def test_nix_conf(self):
        settings = self.assert_nix_likes(self.read("nix.conf"))
        self.assertEqual("http://nix-cache https://cache.nixos.org",
                         settings["substituters"])
        self.assertEqual("@/etc/nix/machines", settings["builders"])
        self.assertEqual("2", settings["connect-timeout"])
        self.assertEqual("true", settings["fallback"])

    def test_machines_and_ssh(self):
        self.assertEqual(2, len(self.read("machines").splitlines()))
        for line in self.read("machines").splitlines():
            self.assertRegex(line, r"^ssh://nix-builder@nix-0[12] x86_64-linux"
                             r" /run/secrets/nix-builder \d+ \d+ \S+ \S+ \S+$")
        said = self.assert_runs("ssh", "-G", "-F", self.base + "/ssh_config",
                                "nix-01")
        self.assertIn("identityfile /run/secrets/nix-builder\n", said)
        self.assertIn("user nix-builder\n", said)

    def test_the_dockerfile_copies_what_is_rendered(self):
        with open(os.path.join(EXAMPLES, "docker", "Dockerfile"),
                  encoding="utf-8") as file:
            copied = re.findall(r"etc/(\S+)", "\n".join(
                line for line in file if line.startswith("COPY")))
        self.assertEqual({"nix.conf", "machines", "ssh_config"},
                         {name for name in copied
                          if os.path.exists(os.path.join(self.base, name))})


class Ci(Example):

    def setUp(self):
        super().setUp()
        with open(os.path.join(EXAMPLES, "ci", "build-darwin.yml"),
                  encoding="utf-8") as file:
            self.text = file.read()

    def test_it_is_yaml(self):
        if yaml is None:
            self.skipTest("python3-yaml is not installed")
        workflow = yaml.safe_load(self.text)
        job = workflow["jobs"]["build"]
        self.assertEqual("macos-latest", job["runs-on"])
        self.assertEqual([{"cron": "0 4 * * 0"}],
                         workflow[True]["schedule"])  # "on" is a boolean
        for step in job["steps"]:
            self.assertTrue(("uses" in step) != ("run" in step), step)
        # A secret reaches a script through its environment alone.
        for step in job["steps"]:
            self.assertNotIn("${{", step.get("run", ""))

    def scripts(self):
        """What stands after `run:`."""
        found = re.findall(r"^( +)run: \|\n((?:\1  .*\n|\n)+)", self.text,
                           re.M)
        self.assertEqual(2, len(found))
        return [re.sub(rf"^{indent}  ", "", body, flags=re.M)
                for indent, body in found]

    def test_the_scripts_are_scripts(self):
        for number, script in enumerate(self.scripts()):
            file = self.write(f"{number}.sh", "#!/usr/bin/env bash\n"
                              "set -eo pipefail\n" + script)
            self.assert_runs("bash", "-n", file)
            if shutil.which("shellcheck"):
                self.assert_runs("shellcheck", file)

    def test_push(self):
        """Run with programs that write down what they are asked."""
        fakes = os.path.join(self.base, "fakes")
        for name in ("nix", "ssh"):
            file = self.write(f"fakes/{name}", "#!/bin/bash\n"
                              f'echo "{name} $*" >>{self.base}/log\n'
                              f'cat {self.base}/keys/* >>{self.base}/log\n')
            os.chmod(file, 0o755)
        # Not in /nix/store, which not every machine has.
        path = os.path.realpath(self.write("0" * 32 + "-x", ""))
        os.symlink(path, self.base + "/result")
        self.write("keys/.keep", "")
        script = self.scripts()[0].replace("$(mktemp -d)",
                                           self.base + "/keys")
        self.assert_runs("bash", "-euo", "pipefail", "-c", script,
                         cwd=self.base, env={
                             "PATH": f"{fakes}:/usr/bin:/bin",
                             "CACHE_SSH_KEY": "the ssh key",
                             "CACHE_SIGNING_KEY": "ci-1:secret",
                             "CACHE_HOST_KEY": "server ssh-ed25519 AAAA"})
        with open(self.base + "/log", encoding="utf-8") as file:
            log = file.read()
        order = [log.index(f"nix store sign --recursive --key-file "
                           f"{self.base}/keys/signing {path}"),
                 log.index(f"ln -sfn {path} /nix/var/nix/gcroots/arm-cache/"),
                 log.index("nix copy --to ssh-ng://nix-push@server " + path)]
        self.assertEqual(sorted(order), order)
        self.assertIn("the ssh key", log)
        self.assertFalse(os.path.exists(self.base + "/keys/ssh"))

    def test_tailnet_policy(self):
        with open(os.path.join(EXAMPLES, "ci", "tailnet-policy.json"),
                  encoding="utf-8") as file:
            policy = json.load(file)
        self.assertIn("tag:ci", policy["tagOwners"])


class Linux(Example):

    FOLDER = os.path.join(EXAMPLES, "linux")

    def install(self, *options):
        return self.assert_runs(
            "bash", os.path.join(self.FOLDER, "cache-host.sh"), "--name",
            "cachy.local-1", *options, env=support.environment())

    def read(self, *name):
        with open(os.path.join(self.base, *name), encoding="utf-8") as file:
            return file.read()

    def test_units(self):
        units = {}
        for name in ("harmonia.service", "nix-serve.service"):
            with open(os.path.join(self.FOLDER, name),
                      encoding="utf-8") as file:
                units[name] = file.read()
        with systemd.Units({**units, "nix-daemon.socket":
                            "[Socket]\nListenStream=/run/x\n",
                            "nix-daemon.service":
                            "[Service]\nExecStart=/bin/true\n"}) as made:
            self.assertEqual([], made.complaints())
            for name in units:
                self.assertLess(made.exposure(name), 3)

    def test_a_dry_run_changes_nothing(self):
        said = self.install("--dry-run", "--root", self.base)
        self.assertIn("nginx.nix", said)
        self.assertEqual([], os.listdir(self.base))

    def test_harmonia_behind_the_proxy(self):
        self.install("--root", self.base)
        key = self.read("etc/nix-cache/signing-key")
        self.assertTrue(key.startswith("cachy.local-1:"))
        self.assertEqual(0o600, os.stat(
            self.base + "/etc/nix-cache/signing-key").st_mode & 0o777)
        settings = tomllib.loads(self.read("etc/nix-cache/harmonia.toml"))
        self.assertEqual("127.0.0.1:5000", settings["bind"])
        self.assert_nginx_likes(self.read("etc/nginx/conf.d/nix-cache.conf"))
        self.assertIn("SIGN_KEY_PATHS=%d/signing-key",
                      self.read("etc/systemd/system/harmonia.service"))
        # Again: the key stays.
        self.install("--root", self.base)
        self.assertEqual(key, self.read("etc/nix-cache/signing-key"))

    def test_nix_serve_without_copies(self):
        self.install("--root", self.base, "--server", "nix-serve",
                     "--no-proxy")
        self.assert_nginx_likes(self.read("etc/nginx/conf.d/nix-cache.conf"))
        self.assertIn("--workers 4",
                      self.read("etc/systemd/system/nix-serve.service"))
        self.assertFalse(os.path.exists(
            self.base + "/etc/nix-cache/harmonia.toml"))

    def test_wrong_words(self):
        code, said = run("bash", os.path.join(self.FOLDER, "cache-host.sh"),
                         "--server", "attic")
        self.assertEqual(2, code)
        self.assertIn("harmonia or nix-serve", said)


if __name__ == "__main__":
    unittest.main()
