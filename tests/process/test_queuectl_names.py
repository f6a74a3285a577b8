"""How people name paths to queuectl."""

import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import children
import ctl_case
import private_nix
import queued


class Naming(ctl_case.CtlCase):
    def shown(self, argument, cwd="/"):
        result = subprocess.run(
            [os.path.join(queued.BIN, "queuectl"), "--config",
             self.queue.config_file, "show", argument, "--json"], cwd=cwd,
            env=self.queue.environment, capture_output=True, text=True,
            timeout=60 * children.SLOWNESS, check=False)
        self.assertEqual(0, result.returncode, result.stderr)
        return json.loads(result.stdout)["path"]

    def test_links(self):
        # An output that is itself a symlink to another output.
        real = private_nix.derivation(
            "real", f"/bin/mkdir -p $out/bin; echo {self.salt} > $out/bin/x")
        link = self.nix.build(
            f"let a = {real}; in " + private_nix.derivation(
                "link", "/bin/ln -s $a $out", a="a"))[0]
        self.queue.wait()
        place = self.place("links/below")
        links = os.path.dirname(place)
        os.symlink(link, links + "/result")
        os.symlink("result", links + "/again")
        os.symlink("../again", place + "/up")
        os.symlink(links, self.base + "/elsewhere")
        for argument, cwd in ((link, "/"), (links + "/result", "/"),
                              ("./result", links), ("again", links),
                              ("up/bin/x", place), ("../result", place),
                              ("./..//again/", place),
                              (links[1:] + "/result", "/"),
                              (self.base + "/elsewhere/below/up", "/")):
            with self.subTest(argument=argument):
                self.assertEqual(link, self.shown(argument, cwd))
        # A link whose path is not there any more still names it.
        os.unlink(os.path.join(self.nix.roots_dir, os.path.basename(link)))
        self.nix.collect_garbage()
        self.assertFalse(os.path.lexists(link))
        self.assertEqual(link, self.shown("./result", links))

    def test_loops(self):
        os.symlink("b", self.base + "/a")
        os.symlink("a", self.base + "/b")
        result = self.queue.ctl("wait", self.base + "/a", code=1)
        self.assertIn("loop", result.stderr)
        os.symlink("/etc", self.base + "/etc")
        result = self.queue.ctl("wait", self.base + "/etc/passwd", code=1)
        self.assertIn("neither a store path nor", result.stderr)


if __name__ == "__main__":
    unittest.main()
