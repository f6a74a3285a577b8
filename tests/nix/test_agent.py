"""services.nix-queued: what its configurations come to, and what queued says
to that."""

import os
import plistlib
import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest

import support
import systemd

BIN = os.environ["NIXQ_BIN"]
CONFIG = "nix-queued/queued.toml"
SERVICE = "nix-queued.service"
HOOK = f"/nix/store/{'0' * 32}-nix-queued/bin/queued-hook"


class Right(support.Cases):
    file = "agent"


class Refused(support.Cases):
    file = "agent-refused"


def configured():
    """The cases that write a configuration, whatever module asks for it."""
    for file in support.files():
        for case, about in support.cases(file).items():
            if not about["fails"]:
                made = support.render(file, case)
                if CONFIG in made.etc:
                    yield f"{file}.{case}", about["class"], made


def toml(made):
    return tomllib.loads(made.etc_text(CONFIG))


def service(case):
    return systemd.directives(support.render("agent", case).units[SERVICE])


def credentials(made):
    """{id: path} of the daemon's LoadCredential."""
    lines = systemd.directives(made.units[SERVICE]).get(
        ("Service", "LoadCredential"), [])
    return dict(line.replace("%%", "%").split(":", 1) for line in lines)


class Toml(unittest.TestCase):
    """The renderer writes what a TOML parser reads back."""

    VALUES = (
        r'{ a = "quote \" backslash \\ tab \t newline \n dollar $ ü"; }',
        '{ a = 1; b = -2; c = 1.5; d = true; e = false; }',
        '{ list = [ 1 2 ]; empty = [ ]; words = [ "a" "b,c" ]; }',
        '{ "odd key" = 1; "a.b" = { "c d" = 2; }; }',
        '{ table = { inner = { deep = 1; }; }; none = { }; }',
        '{ target = [ { url = "x"; nested = { a = 1; }; } { url = "y"; } ]; }',
        '{ z = 1; a.b = 2; top = "after tables in the alphabet"; }',
        '{ mixed = [ [ 1 ] [ "a" ] ]; inline = [ [ { a = 1; } ] ]; }',
    )

    def render(self, value):
        return support.nix_value(
            f"import {support.MODULES}/modules/agent/toml.nix"
            f" (import {support.HERE}/pocket) ({value})")

    def test_values(self):
        for value in self.VALUES:
            with self.subTest(value):
                self.assertEqual(support.nix_value(value),
                                 tomllib.loads(self.render(value)))

    def test_null_is_left_out(self):
        self.assertEqual({"b": 1, "c": {}}, tomllib.loads(self.render(
            "{ a = null; b = 1; c = { d = null; }; }")))


class Configuration(unittest.TestCase):

    def test_everything_arrives(self):
        self.assertEqual({
            "state-dir": "/var/lib/nix-queued",
            "log-level": "debug",
            "concurrency": {"uploads": 4},
            "history": {"keep": "7d"},
            "prune": {"enable": True},
            "roots": {
                "enable": True,
                "directory": "/nix/var/nix/gcroots/arm-cache",
                "systems": ["aarch64-linux"],
                "max-age": "14d",
            },
            "signing": {"key-files": [
                "$CREDENTIALS_DIRECTORY/signing-key-0",
                "$CREDENTIALS_DIRECTORY/signing-key-1"]},
            "target": [
                {"name": "disk", "url": "file:///srv/nix-cache"},
                {
                    "name": "nas",
                    "url": "ssh-ng://nix-ssh@nas",
                    "ssh-key-file": "$CREDENTIALS_DIRECTORY/nas.ssh-key-file",
                    "ssh-known-hosts-file": "/etc/nix-queued/known_hosts",
                    "ssh-options": ["Compression=yes"],
                    "pin-remote": True,
                    "batch-size": "1 GiB",
                },
                {"name": "own", "url": "local:http://127.0.0.1:5000"},
                {
                    "name": "web",
                    "url": "https://cache.example.org",
                    "bearer-token-file":
                        "$CREDENTIALS_DIRECTORY/web.bearer-token-file",
                    "netrc-file": "$CREDENTIALS_DIRECTORY/web.netrc-file",
                    "client-certificate-file":
                        "$CREDENTIALS_DIRECTORY/web.client-certificate-file",
                    "client-key-file":
                        "$CREDENTIALS_DIRECTORY/web.client-key-file",
                    "ca-file": "/etc/ssl/our-ca.pem",
                    "compression": "xz",
                    "compression-level": 9,
                    "include": ["linux-*", 'say "hi"'],
                    "max-nar-size": 1000000,
                    "skip-signed-by": ["cache.nixos.org-1"],
                    "want-mass-query": False,
                },
            ],
        }, toml(support.render("agent", "full")))

    def test_settings_win_over_options(self):
        self.assertEqual("90d", toml(support.render(
            "agent", "settingsOnly"))["roots"]["max-age"])

    def test_the_daemon_prunes_only_for_other_machines(self):
        self.assertFalse(toml(support.render(
            "agent", "minimal"))["prune"]["enable"])

    def test_only_roots(self):
        self.assertEqual([], toml(support.render(
            "agent", "onlyRoots"))["target"])

    def test_every_key_of_a_target_is_an_option(self):
        options = support.nix_value(
            f"let lib = import {support.HERE}/pocket; in builtins.attrNames"
            f" (import {support.MODULES}/modules/agent/targets.nix"
            " { inherit lib; name = \"\"; }).options")
        with open(os.path.join(support.ROOT, "queued", "queued.toml.5"),
                  encoding="utf-8") as file:
            manual = file.read()
        section = re.search(r"\.Ss \[\[target\]\]\n(.*?)\n\.Ss ", manual,
                            re.DOTALL).group(1)
        keys = re.findall(r"^\.It Ic ([a-z-]+)", section, re.MULTILINE)
        self.assertGreater(len(keys), 30)
        self.assertEqual(sorted(keys), sorted(
            re.sub("[A-Z]", lambda c: "-" + c.group(0).lower(), option)
            for option in options))


class Secrets(unittest.TestCase):

    def test_credentials_are_those_that_the_file_names(self):
        for case, class_, made in configured():
            if class_ != "nixos":
                continue
            with self.subTest(case):
                named = re.findall(r"\$CREDENTIALS_DIRECTORY/([\w.-]+)",
                                   made.etc_text(CONFIG))
                own = {"mine"} if case == "agent.settingsOnly" else set()
                self.assertEqual(set(named) - own, set(credentials(made)))

    def test_paths(self):
        self.assertEqual({
            "signing-key-0": "/run/keys/first",
            "signing-key-1": "/run/keys/100%",
            "nas.ssh-key-file": "/run/keys/nas",
            "web.bearer-token-file": "/run/keys/token",
            "web.netrc-file": "/run/keys/netrc",
            "web.client-certificate-file": "/run/keys/client.pem",
            "web.client-key-file": "/run/keys/client-key.pem",
        }, credentials(support.render("agent", "full")))

    def test_a_percent_sign_is_no_specifier(self):
        self.assertIn("LoadCredential=signing-key-1:/run/keys/100%%\n",
                      support.render("agent", "full").units[SERVICE])

    def test_plain_paths(self):
        made = support.render("agent", "plainPaths")
        self.assertEqual({}, credentials(made))
        self.assertEqual(["/var/lib/keys/first"],
                         toml(made)["signing"]["key-files"])


class Daemon(unittest.TestCase):
    """What the real queued says to what is rendered."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="nixq-agent-")
        self.addCleanup(shutil.rmtree, self.folder)

    def check(self, command, file):
        """Runs what the build of the file runs."""
        command = support.on_this_machine(command, BIN)
        self.assertIn(BIN, command)
        return subprocess.run(
            ["/bin/sh", "-ec", command], text=True, capture_output=True,
            timeout=60, stdin=subprocess.DEVNULL, check=False,
            env={"PATH": "/usr/bin:/bin", "target": file, "HOME": "/nowhere",
                 "LC_ALL": "C"})

    def test_accepts_every_configuration(self):
        tried = 0
        for case, _, made in configured():
            with self.subTest(case):
                file = support.real_file(made.etc[CONFIG]["source"])
                result = self.check(made.etc[CONFIG]["check"], file)
                # The group is the machine's that it is for, not this one's.
                said = re.sub(r"^\S+: warning: on this machine, reader-group: "
                              r"there is no group \S+\n", "", result.stderr)
                self.assertEqual((0, ""), (result.returncode, said))
                tried += 1
        self.assertGreater(tried, 20)

    def test_refuses_what_only_it_knows_to_be_wrong(self):
        made = support.render("agent", "minimal")
        file = os.path.join(self.folder, "queued.toml")
        with open(file, "w", encoding="utf-8") as out:
            out.write(made.etc_text(CONFIG) + "pin-remote = true\n")
        result = self.check(made.etc[CONFIG]["check"], file)
        self.assertEqual(2, result.returncode)
        self.assertIn("'pin-remote' means nothing for http(s):// targets",
                      result.stderr)


class Hook(unittest.TestCase):

    def hook_of(self, case):
        return support.render("agent", case).nixSettings["post-build-hook"]

    def run_hook(self, script):
        """The environment in which a script runs queued-hook."""
        folder = tempfile.mkdtemp(prefix="nixq-hook-")
        self.addCleanup(shutil.rmtree, folder)
        for name, text in (
                ("queued-hook", "#!/bin/sh\nenv\n"),
                ("script", support.on_this_machine(script, folder))):
            with open(os.path.join(folder, name), "w",
                      encoding="utf-8") as file:
                file.write(text)
            os.chmod(file.name, 0o755)
        result = subprocess.run([os.path.join(folder, "script")], text=True,
                                capture_output=True, timeout=60, check=True,
                                env={"PATH": "/usr/bin:/bin", "OUT_PATHS": "x"})
        return dict(line.split("=", 1) for line in result.stdout.splitlines())

    def test_is_the_program_itself(self):
        self.assertEqual(HOOK, self.hook_of("minimal"))
        self.assertIn(f"post-build-hook = {HOOK}\n",
                      support.render("agent", "minimal").nixConf)

    def test_knows_other_places(self):
        made = support.render("agent", "elsewhere")
        environment = self.run_hook(made.text_of(self.hook_of("elsewhere")))
        self.assertEqual("/srv/queue", environment["NIX_QUEUED_STATE_DIR"])
        self.assertEqual("/nix/var/nix/gcroots/uploads",
                         environment["NIX_QUEUED_ROOTS_DIR"])
        self.assertEqual("1", environment["NIX_QUEUED_STRICT"])
        self.assertEqual("x", environment["OUT_PATHS"])

    def test_leaves_another_alone(self):
        self.assertEqual("/etc/nix/hook", self.hook_of("ownHook"))

    def test_legacy_scripts(self):
        made = support.render("agent", "legacyScripts")
        for name in ("nix/pin-arm-cache.sh", "nix/upload-to-cache.sh"):
            with self.subTest(name):
                self.assertEqual("0755", made.etc[name]["mode"])
                self.assertEqual("x", self.run_hook(
                    made.etc_text(name))["OUT_PATHS"])
        self.assertNotIn("nix/pin-arm-cache.sh",
                         support.render("agent", "minimal").etc)


class Service(unittest.TestCase):

    def test_disabled_is_nothing(self):
        made = support.render("agent", "disabled")
        self.assertEqual({}, made.units)
        self.assertEqual({}, made.etc)
        self.assertEqual([], made.tmpfiles)
        self.assertNotIn("post-build-hook", made.nixSettings)

    def test_finds_nix_and_ssh(self):
        path = [line for line in service("minimal")["Service", "Environment"]
                if line.startswith('"PATH=')][0]
        self.assertRegex(path, "-nix/bin:.*-openssh/bin:")

    def test_starts_again_with_another_configuration(self):
        """The unit does not say what is in the file, its trigger does."""
        triggers = support.nix_value(
            f"(import {support.HERE}/eval.nix {{ module = (import"
            f" {support.cases_file('agent')}).minimal.module; }})"
            ".config.systemd.services.nix-queued.restartTriggers")
        made = support.render("agent", "minimal")
        self.assertEqual([made.etc[CONFIG]["source"]], triggers)

    def test_directories(self):
        self.assertEqual([
            "d /nix/var/nix/gcroots/arm-cache 0755 nix-queued nix-queued -",
            "d /var/lib/nix-queued 0750 nix-queued nix-queued -",
            "d /srv/nix-cache :0755 :nix-queued :nix-queued -",
        ], support.render("agent", "full").tmpfiles)
        self.assertEqual(["-/nix/var/nix/gcroots/arm-cache", "-/srv/nix-cache"],
                         service("full")["Service", "ReadWritePaths"])

    def test_other_places_and_user(self):
        made = support.render("agent", "elsewhere")
        self.assertEqual([
            "d /nix/var/nix/gcroots/uploads 0755 builder builders -",
            "d /srv/queue 0750 builder builders -",
        ], made.tmpfiles)
        found = service("elsewhere")
        self.assertEqual(["builder"], found["Service", "User"])
        self.assertEqual(["/srv/queue", "-/nix/var/nix/gcroots/uploads"],
                         found["Service", "ReadWritePaths"])
        self.assertNotIn(("Service", "StateDirectory"), found)
        self.assertIn("ListenDatagram=/srv/queue/wake.sock\n",
                      made.units["nix-queued.socket"])
        self.assertEqual({}, made.users)

    def test_user(self):
        user = support.render("agent", "minimal").users["nix-queued"]
        self.assertTrue(user["isSystemUser"])
        self.assertEqual("nix-queued", user["group"])
        self.assertEqual([], user["extraGroups"])

    def test_readers(self):
        made = support.render("agent", "adminGroup")
        self.assertEqual("wheel", toml(made)["reader-group"])
        self.assertEqual(["wheel"], made.users["nix-queued"]["extraGroups"])
        found = service("adminGroup")
        self.assertEqual(["false"], found["Service", "PrivateUsers"])
        self.assertEqual("@chown", found["Service", "SystemCallFilter"][-1])

    def test_prune(self):
        timer = systemd.directives(support.render("agent", "full").units[
            "prune-arm-cache-roots.timer"])
        self.assertEqual(["daily"], timer["Timer", "OnCalendar"])
        self.assertEqual(["false"], timer["Timer", "Persistent"])
        self.assertEqual(["5min"], timer["Timer", "RandomizedDelaySec"])
        self.assertEqual([SERVICE, "nix-queued.socket"], sorted(
            support.render("agent", "noPrune").units))

    def test_old_nix_is_warned_about(self):
        warnings = support.render("agent", "oldNix").warnings
        self.assertEqual(1, len(warnings))
        self.assertIn("add `nix-queued` to", warnings[0])
        self.assertEqual([], support.render("agent", "full").warnings)


class Mac(unittest.TestCase):

    def jobs(self, where="pocket"):
        made = support.render("agent", "mac", where)
        return {name: plistlib.loads(text.encode())
                for name, text in made.plists.items()
                if "nix-queued" in name or "arm-cache" in name}

    def test_as_the_installed_job(self):
        with open(os.path.join(support.ROOT, "examples", "launchd",
                               "org.nix-queued.plist"), "rb") as file:
            installed = plistlib.load(file)
        job = self.jobs()["org.nixos.nix-queued.plist"]
        self.assertIn("-nix-queued/bin/queued --config ",
                      job["ProgramArguments"][2])
        for key in set(installed) - {"Label", "ProgramArguments",
                                     "EnvironmentVariables"}:
            with self.subTest(key):
                self.assertEqual(installed[key], job[key])
        self.assertEqual("_nix-queued", job["UserName"])

    def test_real_nix_darwin_writes_the_same(self):
        if "nix-darwin" not in support.surroundings("darwin"):
            self.skipTest(support.what_is_missing())
        self.assertEqual(self.jobs(), self.jobs("nix-darwin"))

    def test_prunes(self):
        job = self.jobs()["org.nixos.prune-arm-cache-roots.plist"]
        self.assertEqual([{"Weekday": 0, "Hour": 4, "Minute": 0}],
                         job["StartCalendarInterval"])
        self.assertFalse(job["RunAtLoad"])
        self.assertEqual(["org.nixos.nix-queued.plist"], list(
            support.render("agent", "macMinimal").plists))

    def test_keys_are_read_where_they_are(self):
        made = support.render("agent", "mac")
        self.assertEqual(["/etc/nix/cache-priv-key.pem"],
                         toml(made)["signing"]["key-files"])
        self.assertEqual("/etc/nix/upload-key",
                         toml(made)["target"][0]["ssh-key-file"])

    def test_directories_are_made_before_daemons_start(self):
        script = support.render("agent", "mac").activation
        for words in ("0750 /var/lib/nix-queued",
                      "0755 /nix/var/nix/gcroots/arm-cache"):
            self.assertIn(f"-o _nix-queued -g _nix-queued -m {words}",
                          re.sub(r"\s+(\\\n)?\s*", " ", script))
        subprocess.run(["bash", "-n"], input=script, text=True, check=True,
                       timeout=60)

    def test_user(self):
        made = support.render("agent", "mac")
        self.assertIn("_nix-queued", made.knownUsers)
        self.assertIn("_nix-queued", made.knownGroups)
        self.assertEqual(made.groups["_nix-queued"]["gid"],
                         made.users["_nix-queued"]["gid"])
        self.assertEqual({}, support.render("agent", "macMinimal").users)


if __name__ == "__main__":
    unittest.main()
