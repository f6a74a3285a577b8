"""What all commands have in common: options, exit codes, who runs them."""

import os
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands
from commands import MISSING, USAGE


class AsAnybody(commands.CacheTest):
    """By somebody who is not root and whom the daemon does not trust."""

    def setUp(self):
        super().setUp()
        self.assertEqual(0, os.geteuid(), "run this as root")
        # nobody has to get to the programs, and to some files of his own.
        os.chmod(self.base, 0o755)
        self.scripts = os.path.join(self.base, "scripts")
        shutil.copytree(commands.SCRIPTS, self.scripts)
        self.fake("queuectl", "exit 0")
        self.home = self.place("home")
        os.chown(self.home, 65534, 65534)
        self.variables = {"HOME": self.home, "TMPDIR": self.home,
                          "XDG_CACHE_HOME": self.home}

    def run_command(self, name, *arguments, **options):
        options.update(self.variables)
        return super().run_command(name, *arguments, user=65534, **options)

    def test_a_cache_of_one_s_own(self):
        with open(os.path.join(self.home, "nix.conf"), "w",
                  encoding="utf-8") as file:
            file.write(f"extra-substituters = {self.server.url}/mine\n")
        self.variables["NIX_USER_CONF_FILES"] = self.home + "/nix.conf"
        self.upload(self.build())
        self.upload(self.build(), url=f"file://{self.server.directory}/mine")
        report = self.report("cache-status")
        self.assert_finding(report, "warning", "substituters",
                            "the daemon will ignore it", "trusted-users")
        self.configure(trusted_substituters=self.server.url + "/mine")
        report = self.report("cache-status")
        self.assert_finding(report, "ok", "substituters")
        self.assertEqual(1, len(report.about("substituters")))

    def test_root_s_queue_is_left_alone(self):
        self.upload(self.build())
        self.variables["NIX_QUEUED_CONFIG"] = "/etc/passwd"
        report = self.report("cache-status")
        self.assert_finding(report, "warning", "queue", "root's",
                            "sudo cache-status")

    def test_clear_is_half_of_it(self):
        result = self.run_command("cache-management", "clear")
        self.assertIn("with sudo too", result.stdout)


class CommandLine(commands.CacheTest):

    def test_help(self):
        for name in sorted(os.listdir(commands.SCRIPTS)):
            if os.path.isdir(os.path.join(commands.SCRIPTS, name)):
                continue
            with self.subTest(name):
                for option in ("--help", "-h"):
                    text = self.run_command(name, option).stdout
                    self.assertIn(f"Usage: {name}", text)
                    self.assertIn("Exit status:", text)
                    self.assertEqual([], [line for line in text.splitlines()
                                          if len(line) > 80])

    def test_wrong_words(self):
        for words in (("cache-status", "--nonsense"),
                      ("cache-status", "--limit", "soon"),
                      ("cache-status", "--url"),
                      ("cache-management",),
                      ("cache-management", "fly"),
                      ("cache-management", "push"),
                      ("offload-status", "surplus"),
                      ("offload-setup",),
                      ("offload-mount", "--port", "x"),
                      ("offload-generate-cache-keys", "--name", "a b")):
            with self.subTest(words):
                result = self.run_command(*words, code=USAGE)
                self.assertIn("--help", result.stderr)
                self.assertEqual("", result.stdout)

    def test_programs_that_are_missing(self):
        tools = self.place("tools")
        for tool in ("bash", "dirname", "readlink", "mktemp", "rm", "uname"):
            os.symlink(f"/usr/bin/{tool}", os.path.join(tools, tool))
        result = self.run_command("cache-status", code=MISSING, path=tools)
        self.assertIn("nix is not on the PATH", result.stderr)

    def test_from_anywhere_through_a_link(self):
        link = os.path.join(self.base, "linked")
        os.symlink(os.path.join(commands.SCRIPTS, "cache-status"), link)
        self.run_command(link, "--help")


if __name__ == "__main__":
    unittest.main()
