"""From a build to a hit: the way of a path between two booted machines."""

import base64
import os
import unittest
import uuid

import containers
import support
import two_hosts

import children  # noqa: E402  found by containers

UPLOADS = "/ssdpool/local/nix-cache/upload"
FLAKE = """\
{{
  outputs = {{ self }}: {{
    packages.{system}.thing = derivation {{
      name = "populated";
      system = "{system}";
      builder = "/bin/sh";
      args = [ "-c" "echo populated > $out" ];
    }};
  }};
}}
"""
COMMIT = """\
cd /srv/flake
git init --quiet
git config user.email flake@example.org
git config user.name flake
git add flake.nix
git commit --quiet --message first
"""

setUpModule = containers.require


class Ways(two_hosts.TwoHosts):

    def test_nothing_has_failed(self):
        for machine in (self.client, self.cache):
            with self.subTest(machine.name):
                self.assertEqual("running", machine.text(
                    ["systemctl", "is-system-running"]), machine.what_failed())
                self.assertEqual("", machine.text(
                    ["systemctl", "--failed", "--plain", "--no-legend"]))

    def test_from_build_to_hit(self):
        path = self.built_and_sent("whole-way")
        self.tell(f"alice has built {path}")
        for machine in (self.client, self.cache):
            self.assertTrue(self.valid(machine, path))
            self.assertTrue(self.pinned(machine, path), machine.name)
        hash_part = os.path.basename(path)[:32]
        self.assertIn("Sig: two-hosts-1:", self.cache.text(
            ["cat", f"{UPLOADS}/{hash_part}.narinfo"]))
        self.tell("pushed over SSH and by PUT, pinned on both")

        self.lose(path)
        self.client.run(["nix-store", "--realise", path], user="alice")
        self.assertTrue(self.valid(self.client, path))
        line = self.requests(f"GET /{hash_part}.narinfo")[-1]
        self.assertIn("X-Cache-Status=UPLOADED", line)
        self.tell(line)

    def test_a_pushed_path_comes_from_the_other_store(self):
        path = self.built_and_sent("only-pushed-once")
        hash_part = os.path.basename(path)[:32]
        self.cache.run(["test", "!", "-e", f"{UPLOADS}/{hash_part}.narinfo"])
        self.lose(path)
        self.client.run(["nix-store", "--realise", path], user="alice")
        for what in (f"GET /{hash_part}.narinfo",
                     f"GET /nar/{hash_part}.nar"):
            line = self.requests(what)[-1]
            self.assertIn("X-Cache-Status=LOCAL", line)
        self.tell(line)

    def test_the_signature_is_required(self):
        path = self.built_and_sent("only-pushed-and-signed")
        self.lose(path)
        refused = self.client.run(
            ["nix-store", "--realise", path, "--option",
             "trusted-public-keys", self.site.other_public], check=False)
        self.assertNotEqual(0, refused.returncode)
        self.assertIn("not signed by any of the keys", refused.stderr)
        self.assertFalse(self.valid(self.client, path))
        self.client.run(["nix-store", "--realise", path])
        self.assertTrue(self.valid(self.client, path))
        self.tell("another key: "
                  + support.one_line(refused.stderr).strip()[:100])

    def test_both_sides_keep_it_from_the_collector(self):
        path = self.built_and_sent("kept")
        waste = [machine.text(["sh", "-c", "echo $0 > /tmp/w; nix-store --add "
                               "/tmp/w", uuid.uuid4().hex])
                 for machine in (self.client, self.cache)]
        self.collect()
        for machine, other in zip((self.client, self.cache), waste):
            self.assertFalse(self.valid(machine, other), machine.name)
            self.assertTrue(self.valid(machine, path), machine.name)

    def test_pruned_after_31_days(self):
        old = self.built_and_sent("old")
        young = self.built_and_sent("young")
        for machine in (self.client, self.cache):
            machine.run(["touch", "--no-dereference", "--date=31 days ago",
                         self.root(machine, old)])
        self.client.run(["systemctl", "start", "prune-arm-cache-roots.service"])
        self.assertFalse(self.pinned(self.client, old))
        self.assertTrue(self.pinned(self.client, young))
        self.assertTrue(self.pinned(self.cache, old))
        self.tell(self.client.journal("prune-arm-cache-roots.service"))

        # On the other machine it is done by the daemon, once a day.
        self.configure("clientThatPrunes")
        self.addCleanup(self.configure, "client")
        children.wait_until(
            lambda: not self.pinned(self.cache, old), 60,
            "the root on the other machine to go",
            lambda: self.client.journal("nix-queued.service"))
        self.assertTrue(self.pinned(self.cache, young))
        self.collect()
        for machine in (self.client, self.cache):
            self.assertFalse(self.valid(machine, old), machine.name)
            self.assertTrue(self.valid(machine, young), machine.name)
        self.tell(f"{old} is gone from both stores")

    def test_upstream_is_asked_once(self):
        for wanted in ("MISS", "HIT"):
            answer = self.client.text(
                ["curl", "--silent", "--include",
                 "http://nix-cache/foreign.txt"])
            self.assertIn("from far away", answer)
            self.assertIn(f"X-Cache-Status: {wanted}", answer)
            line = self.requests(f"X-Cache-Status={wanted}")[-1]
            self.tell(line)
        # In a directory that only nginx' own sandbox has to be opened for.
        self.assertNotEqual("", self.cache.text(
            ["find", "/ssdpool/local/nix-cache-proxy", "-type", "f"]))

    def test_populated(self):
        system = self.cache.text(["nix-instantiate", "--eval", "--expr",
                                  "builtins.currentSystem"]).strip('"')
        self.cache.write("/srv/flake/flake.nix", FLAKE.format(system=system))
        self.cache.shell("chown flake /srv/flake/flake.nix")
        self.cache.run(["runuser", "-u", "flake", "--", "sh", "-euc", COMMIT])
        started = self.cache.run(["systemctl", "start", "populate-cache"],
                                 check=False)
        self.assertEqual(0, started.returncode,
                         self.cache.journal("populate-cache"))
        path = self.cache.text(["sh", "-c", "readlink -f "
                                "/var/lib/populate-cache/outputs/*/*"])
        self.assertIn("-populated", path)
        self.cache.run(["nix-store", "--gc"])
        self.assertEqual("populated", self.cache.text(["cat", path]))
        self.assertIn("populate-cache.timer", self.cache.text(
            ["systemctl", "list-timers", "--no-legend"]))
        self.tell(f"populated and kept: {path}")

    def test_who_may_upload(self):
        def put(machine, *options):
            return machine.text(
                ["curl", "--silent", "--output", "/dev/null", "--write-out",
                 "%{http_code}", "--upload-file", "/etc/hostname", *options,
                 f"http://nix-cache:8081/{uuid.uuid4().hex}.txt"])
        word = base64.b64encode(f"up:{self.site.password}".encode()).decode()
        right = ("--header", f"Authorization: Basic {word}")
        self.assertEqual("201", put(self.client, *right))
        self.assertEqual("401", put(self.client))
        self.assertEqual("401", put(self.client, "--user", "up:wrong"))
        self.assertIn(self.client.text(
            ["curl", "--silent", "--output", "/dev/null", "--write-out",
             "%{http_code}", "--upload-file", "/etc/hostname",
             "http://nix-cache/x"]), ("403", "405"))


if __name__ == "__main__":
    unittest.main()
