"""The flakes: what they offer, and that Nix takes them without a network."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import support

FLAKE = os.path.join(support.ROOT, "flake.nix")
SCRIPTS = os.path.join(support.MODULES, "scripts")
NIXOS = ["binary-cache", "builder", "client", "compat", "coordinator",
         "default", "harmonia", "laptop-builder-client", "nix-queued",
         "offload-server", "populate", "proxy", "uploadEndpoint", "utilities"]
DARWIN = ["client", "default", "nix-queued", "utilities"]
SYSTEMS = ["aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"]

NIXPKGS = f"(import {support.HERE}/nixpkgs.nix)"
OUTPUTS = f"(import {FLAKE}).outputs {{ self = {{ }}; nixpkgs = {NIXPKGS}; }}"


def value(expression):
    """Of an expression in which `o` are the outputs of the flake."""
    return support.nix_value(f"let o = {OUTPUTS}; in {expression}")


def commands():
    return sorted(name for name in os.listdir(SCRIPTS)
                  if os.path.isfile(os.path.join(SCRIPTS, name)))


class WithPackages(unittest.TestCase):
    """The flake at the top, with something in place of nixpkgs."""

    def test_outputs(self):
        self.assertEqual(
            ["apps", "checks", "darwinModules", "devShells", "lib",
             "nixosModules", "overlays", "packages"],
            value("builtins.attrNames o"))
        self.assertEqual(NIXOS, value("builtins.attrNames o.nixosModules"))
        self.assertEqual(DARWIN, value("builtins.attrNames o.darwinModules"))
        for output in ("apps", "checks", "devShells", "packages"):
            with self.subTest(output):
                self.assertEqual(SYSTEMS,
                                 value(f"builtins.attrNames o.{output}"))

    def test_every_program_can_be_run(self):
        for system in SYSTEMS:
            with self.subTest(system):
                apps = value(f"builtins.mapAttrs (_: a: a.program)"
                             f" o.apps.{system}")
                self.assertEqual({"app"}, set(value(
                    f"map (a: a.type) (builtins.attrValues o.apps.{system})")))
                self.assertEqual(
                    sorted(["default", "queued", "queuectl", "queued-hook"]
                           + commands()), sorted(apps))
                self.assertRegex(apps["default"],
                                 "-nix-queued/bin/queuectl$")
                self.assertRegex(apps["cache-status"],
                                 "-nix-queued-commands/bin/cache-status$")

    def test_the_overlay_has_what_the_modules_take(self):
        self.assertEqual(
            ["nix-queued", "nix-queued-commands"],
            value("builtins.attrNames (o.overlays.default"
                  " { callPackage = f: _: f; } { })"))

    def test_inputs(self):
        inputs = support.nix_value(f"(import {FLAKE}).inputs")
        self.assertEqual(["nixpkgs"], list(inputs))


    def test_modules_need_no_overlay(self):
        """Where pkgs has no nix-queued, they build it from this tree."""
        self.assertEqual("0.1.0", support.nix_value(
            f"let n = {NIXPKGS}; in (n.lib.evalModules {{ modules ="
            f" [ {support.MODULES}/modules/agent/options.nix ];"
            ' specialArgs.pkgs = removeAttrs n.legacyPackages.x86_64-linux'
            ' [ "nix-queued" ]; }'
            ').config.services.nix-queued.package.arguments.version'))


class Package(unittest.TestCase):

    def package(self, system, what):
        return value(f"let p = o.packages.{system}.nix-queued; in {what}")

    def test_version(self):
        with open(os.path.join(support.ROOT, "CMakeLists.txt"),
                  encoding="utf-8") as file:
            version = re.search(r"project\(nix-queued VERSION ([\d.]+)",
                                file.read()).group(1)
        self.assertEqual(version, self.package("x86_64-linux", "p.version"))

    def test_hook_is_static_on_linux_only(self):
        linux = self.package("x86_64-linux", "p.arguments.postInstall")
        self.assertRegex(linux, "install .*-queued-hook/bin/queued-hook ")
        self.assertEqual("", self.package("aarch64-darwin",
                                          "p.arguments.postInstall"))
        flags = self.package("aarch64-linux", "p.passthru.hook.cmakeFlags")
        self.assertIn("-DNIXQ_STATIC_HOOK=ON", flags)

    def test_options_of_cmake_exist(self):
        with open(os.path.join(support.ROOT, "CMakeLists.txt"),
                  encoding="utf-8") as file:
            options = re.findall(r"^(?:option|set)\((NIXQ_\w+)", file.read(),
                                 re.MULTILINE)
        flags = self.package(
            "x86_64-linux",
            "p.arguments.cmakeFlags ++ p.passthru.hook.cmakeFlags")
        for flag in flags:
            with self.subTest(flag):
                self.assertIn(re.match(r"-D(\w+)=O(N|FF)$", flag).group(1),
                              options)

    def test_source_is_what_is_built(self):
        source = self.package("x86_64-linux", '"${p.arguments.src}"')
        found = set(os.listdir(support.real_file(source)))
        self.assertLessEqual(
            {"CMakeLists.txt", "hook", "queued", "storage", "schema", "tests",
             "examples"}, found)
        self.assertFalse({"build", ".git", "nixos-module"} & found)

    def test_tests_that_run_are_there(self):
        """The names that are left out are those of test suites."""
        check = self.package("x86_64-linux", "p.arguments.checkPhase")
        suites = re.search(r"/\(([\w|]+)\)", check).group(1).split("|")
        folders = re.search(r"\^\(([\w|/]+)\)/", check).group(1).split("|")
        for folder in folders:
            self.assertTrue(os.path.isdir(
                os.path.join(support.ROOT, "tests", folder)), folder)
        text = ""
        for folder in folders:
            for name in os.listdir(os.path.join(support.ROOT, "tests",
                                                folder)):
                if name.endswith("_test.cc"):
                    with open(os.path.join(support.ROOT, "tests", folder,
                                           name), encoding="utf-8") as file:
                        text += file.read()
        for suite in suites:
            with self.subTest(suite):
                self.assertRegex(text, rf"TEST(_F)?\({suite},")


class Commands(unittest.TestCase):
    """The package of the commands, built as its builder would do it."""

    def test_every_command_runs(self):
        script = value("o.packages.x86_64-linux.commands.text")
        folder = tempfile.mkdtemp(prefix="nixq-commands-")
        self.addCleanup(shutil.rmtree, folder)
        source = support.STORE_PATH.search(script).group(0)
        script = script.replace(source, support.real_file(source))
        subprocess.run(
            ["bash", "-euc", "patchShebangs() { :; }\n" + script], check=True,
            env={**os.environ, "out": folder}, timeout=60)
        self.assertEqual(commands(),
                         sorted(os.listdir(os.path.join(folder, "bin"))))
        for command in commands():
            with self.subTest(command):
                result = subprocess.run(
                    [os.path.join(folder, "bin", command), "--help"],
                    capture_output=True, text=True, timeout=60, check=False,
                    stdin=subprocess.DEVNULL)
                self.assertEqual(0, result.returncode, result.stderr)
                self.assertIn(f"Usage: {command}", result.stdout)


class Repository(unittest.TestCase):
    """The flakes, from a repository as users have it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="nixq-flake-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        tree = os.path.join(cls.folder, "tree")
        shutil.copytree(support.MODULES, os.path.join(tree, "nixos-module"))
        shutil.copy(FLAKE, tree)
        for argv in (["init", "--quiet"], ["add", "."]):
            subprocess.run(["git", *argv], cwd=tree, check=True,
                           timeout=60, stdout=subprocess.DEVNULL)
        cls.top = f"git+file://{tree}"
        cls.url = f"{cls.top}?dir=nixos-module"
        cls.nixpkgs = os.path.join(cls.folder, "nixpkgs")
        shutil.copytree(support.HERE, cls.nixpkgs,
                        ignore=lambda folder, names: {
                            name for name in names
                            if not name.endswith(".nix") and name != "pocket"})
        cls.write("nixpkgs", "{ outputs = _: import ./nixpkgs.nix; }")

    @classmethod
    def write(cls, name, text):
        """A flake of this name."""
        folder = os.path.join(cls.folder, name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "flake.nix"), "w",
                  encoding="utf-8") as file:
            file.write(text + "\n")
        return f"path:{folder}"

    def nix(self, *arguments):
        return support.run_nix(
            ["nix", "--offline", *arguments], check=False)

    def test_check(self):
        result = self.nix("flake", "check", self.url)
        self.assertEqual(0, result.returncode, result.stderr)

    def test_check_with_packages(self):
        """Nothing is built; Nix looks at what every output is."""
        result = self.check_with(f"path:{self.nixpkgs}")
        self.assertEqual(0, result.returncode, result.stderr)

    def check_with(self, nixpkgs):
        return self.nix("flake", "check", "--no-build", self.top,
                        "--no-write-lock-file", "--override-input",
                        "nixpkgs", nixpkgs)

    def test_check_finds_a_wrong_package(self):
        url = self.write("others", """{
          inputs.real.url = "path:%s";
          outputs = { real, ... }: {
            inherit (real) lib;
            legacyPackages = builtins.mapAttrs
              (_: pkgs: pkgs // { callPackage = _: _: { }; })
              real.legacyPackages;
          };
        }""" % self.nixpkgs)
        result = self.check_with(url)
        self.assertNotEqual(0, result.returncode)
        self.assertIn("is not a derivation", result.stderr)

    def test_check_finds_a_wrong_module(self):
        url = self.write("wrong", "{ outputs = _: { nixosModules.x = 5; }; }")
        self.assertNotEqual(0, self.nix("flake", "check", url).returncode)

    def test_outputs(self):
        result = self.nix("eval", "--json", f"{self.url}#nixosModules",
                          "--apply", "builtins.attrNames")
        self.assertEqual(NIXOS, json.loads(result.stdout), result.stderr)

    def test_lib(self):
        result = self.nix("eval", "--json", f"{self.url}#lib", "--apply",
                          "builtins.attrNames")
        self.assertEqual(
            ["builders", "cache", "mkMachinesFile", "mkNginx", "mkNixConf",
             "mkSshConfig"], json.loads(result.stdout), result.stderr)

    def test_each_module_stands_alone(self):
        """Imported by itself, into a system that has no other of ours."""
        for class_, names in (("nixos", NIXOS), ("darwin", DARWIN)):
            for name in names:
                with self.subTest(name, class_=class_):
                    self.assertEqual([], support.nix_value(
                        f"(import {support.HERE}/eval.nix {{"
                        f' class = "{class_}"; module = {{ }};'
                        f" base = [ (import {support.MODULES} {{ }})"
                        f".{class_}Modules.{name} ]; }}).rendered.failures"))


if __name__ == "__main__":
    unittest.main()
