"""services.nix-builder.utilities puts the commands on the PATH, and tells them
what the other modules are configured with."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import support

COMMANDS = sorted(
    name for name in os.listdir(os.path.join(support.MODULES, "scripts"))
    if name != "lib")


def packages(case):
    """{name: text} of what the module puts on the PATH."""
    return support.nix_value(
        "let made = import %s/eval.nix (removeAttrs"
        " (import %s).%s [ \"fails\" ]);"
        " in builtins.listToAttrs (map (p: { inherit (p) name; value ="
        " p.text or null; }) made.config.environment.systemPackages)" % (
            support.HERE, support.cases_file("utilities"), case))


class Utilities(support.Cases):
    file = "utilities"

    def test_every_command_is_there(self):
        self.assertEqual(COMMANDS, sorted(packages("alone")))
        self.assertEqual(COMMANDS, sorted(set(packages("mac")) &
                                          set(COMMANDS)))
        self.assertEqual(10, len(COMMANDS))

    def test_each_runs_its_own_script(self):
        for name, text in packages("alone").items():
            with self.subTest(name):
                script = support.STORE_PATH.search(text).group(0)
                result = subprocess.run(
                    ["bash", "-euc", text.replace(
                        script, support.real_file(script)), name, "--help"],
                    capture_output=True, text=True, check=True)
                self.assertIn(f"Usage: {name}", result.stdout)

    def test_defaults(self):
        text = packages("defaults")["offload-server-status"]
        for line in ('OFFLOAD_CACHE_KEY="${OFFLOAD_CACHE_KEY:-/run/keys/cache'
                     '}"', 'OFFLOAD_CACHE_PORT="${OFFLOAD_CACHE_PORT:-5001}"',
                     'OFFLOAD_HOST="${OFFLOAD_HOST:-desktop}"',
                     'OFFLOAD_USER="${OFFLOAD_USER:-builder}"'):
            self.assertIn(f"export {line}\n", text)
        self.assertNotIn("NIX_QUEUED_ROOTS_DIR", text)
        text = packages("harmonia")["offload-server-status"]
        self.assertIn(":-5003}", text)
        self.assertIn(":-/run/keys/harmonia}", text)


if __name__ == "__main__":
    unittest.main()
