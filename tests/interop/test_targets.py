"""Real builds to every kind of target, read back by Nix itself."""

import json
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import private_nix
import queued
import world


class Targets(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)

    def build_all(self):
        """A chain, a multi-output derivation, a tree; all output paths."""
        tree = ("/bin/mkdir -p $out/bin $out/empty; "
                "echo '#!/bin/sh' > $out/bin/run; "
                "/bin/chmod +x $out/bin/run; : > $out/nothing; "
                "/bin/ln -s bin/run $out/link; "
                f"/bin/ln -s $out $out/self; echo {self.salt} > $out/'a b'; "
                "/usr/bin/head -c 3000000 /dev/urandom > $out/large")
        multi = private_nix.all_outputs(
            private_nix.multi_output("multi", self.salt))
        return self.nix.build(
            f"[ ({private_nix.chain('chain', 4, self.salt)}) "
            f"({private_nix.derivation('tree', tree)}) ] ++ {multi}")

    def assert_good_cache(self, cache, url, paths):
        """Everything that was built is there, and Nix is content with it."""
        self.assert_whole(cache, self.nix.closure(paths))
        self.assert_reads_back(url, paths)
        for info in self.nix.path_info(paths, "--store", url):
            with self.subTest(path=info["path"]):
                self.assertTrue(info.get("valid", True))
                self.assertTrue(any(
                    signature.startswith("test-1:")
                    for signature in info["signatures"]))
        self.nix.run(["nix", "store", "verify", "--store", url, "--recursive",
                      "--option", "trusted-public-keys", self.public_key,
                      *paths])

    def test_directory(self):
        cache = binary_cache.BinaryCache(os.path.join(self.base, "cache"))
        queue = self.make_queue([{"url": "file://" + cache.directory}])
        paths = self.build_all()
        queue.wait()
        self.assert_good_cache(cache, "file://" + cache.directory, paths)
        with open(cache.file("nix-cache-info"), encoding="ascii") as file:
            self.assertIn(f"StoreDir: {self.nix.store_dir}\n", file.read())
        # No .drv, no temporary file, nothing that was not built.
        self.assertEqual(len(self.nix.closure(paths)),
                         len(cache.narinfo_keys()))
        self.assertEqual(len(cache.nars()), len(cache.narinfo_keys()))

    def test_every_compression(self):
        caches = {}
        targets = []
        for compression in ("zstd", "xz", "none"):
            cache = binary_cache.BinaryCache(
                os.path.join(self.base, compression))
            caches[compression] = cache
            targets.append({"url": "file://" + cache.directory,
                            "compression": compression})
        queue = self.make_queue(targets)
        paths = self.build_all()
        queue.wait()
        for compression, cache in caches.items():
            with self.subTest(compression=compression):
                self.assertEqual(
                    {compression}, {cache.narinfo(path)["Compression"]
                                    for path in paths})
                self.assert_good_cache(cache, "file://" + cache.directory,
                                       paths)

    def test_nginx(self):
        server = self.make_nginx()
        queue = self.make_queue([{"url": server.url}])
        paths = self.build_all()
        queue.wait()
        self.assert_good_cache(binary_cache.BinaryCache(server.directory),
                               server.url, paths)

    def test_the_local_store_gets_the_signatures(self):
        cache = os.path.join(self.base, "cache")
        queue = self.make_queue([{"url": "file://" + cache}])
        paths = self.build_all()
        queue.wait()
        for info in self.nix.path_info(paths):
            with self.subTest(path=info["path"]):
                self.assertTrue(any(
                    signature.startswith("test-1:")
                    for signature in info.get("signatures", [])))

    def test_closure_of_what_was_built_before_the_hook(self):
        """References that no hook has seen are sent all the same."""
        before = self.nix.build(private_nix.chain("old", 3, self.salt),
                                "--option", "post-build-hook", "")
        expression = (f"let old = {private_nix.chain('old', 3, self.salt)}; "
                      "in " + private_nix.derivation(
                          "new", "echo $old > $out", old="old"))
        cache = binary_cache.BinaryCache(os.path.join(self.base, "cache"))
        bare = binary_cache.BinaryCache(os.path.join(self.base, "bare"))
        queue = self.make_queue([
            {"url": "file://" + cache.directory},
            {"url": "file://" + bare.directory, "closure": False}])
        paths = self.nix.build(expression)
        queue.wait()
        self.assert_whole(cache, self.nix.closure(paths))
        self.assertTrue(cache.has(before[0]))
        self.assertEqual([binary_cache.narinfo_key(paths[0])],
                         bare.narinfo_keys())

    def test_content_addressed_outputs(self):
        cache = binary_cache.BinaryCache(os.path.join(self.base, "cache"))
        queue = self.make_queue([{"url": "file://" + cache.directory}])
        paths = self.nix.build(private_nix.derivation(
            "floating", f"echo {self.salt} > $out",
            __contentAddressed="true", outputHashMode='"recursive"',
            outputHashAlgo='"sha256"'))
        self.wait_until(lambda: cache.has(paths[0]), "the upload",
                        detail=queue.log_tail)
        queue.wait()
        self.assert_whole(cache, paths)

    def test_only_signing(self):
        """local: sends nothing anywhere; paths are signed, and pinned."""
        queue = self.make_queue([{"url": "local:"}])
        paths = self.nix.build(private_nix.chain("mine", 2, self.salt))
        queue.wait()
        self.assertEqual({("done", "present", "local")},
                         {(job["state"], job["outcome"], job["target"])
                          for job in queue.jobs()})
        for info in self.nix.path_info(paths):
            self.assertEqual(["test-1"], [
                signature.split(":")[0] for signature in info["signatures"]])
        self.assertTrue(os.path.islink(os.path.join(
            self.nix.roots_dir, os.path.basename(paths[0]))))
        self.assertIn("signs what is in the local store",
                      queue.ctl("check", code=None).stdout)

    @unittest.skipIf(private_nix.nix_version() >= (2, 17, 0),
                     "this Nix takes signatures from everybody")
    def test_only_signing_where_nix_does_not_trust_us(self):
        """Then nothing is signed, and nothing may say that it is."""
        self.nix.stop_daemon()
        self.nix.settings["trusted-users"] = "nobody"
        private_nix.write_nix_conf(self.nix.conf_dir, self.nix.settings)
        self.nix.start_daemon()
        queue = self.make_queue([{"url": "local:"}])
        self.nix.build(private_nix.chain("mine", 1, self.salt))
        queue.wait_for_rows("SELECT 1 FROM targets WHERE health = 'refused' "
                            "AND error_text LIKE '%trusted-users%'",
                            "the target to be refused")
        self.assertEqual({"queued"}, {job["state"] for job in queue.jobs()})

    def test_a_server_of_this_very_store(self):
        """local:URL uploads nothing and is done when the server shows it."""
        server = self.make_cache_server()
        with open(server.cache.file("nix-cache-info"), "w",
                  encoding="ascii") as file:
            file.write(f"StoreDir: {self.nix.store_dir}\n")
        queue = self.make_queue([{"name": "own",
                                  "url": "local:" + server.url}])
        paths = self.nix.build(private_nix.chain("own", 2, self.salt))
        self.wait_until(lambda: server.count("GET", ".narinfo", 404)
                        + server.count("HEAD", ".narinfo", 404) >= 2,
                        "the daemon to ask the server",
                        detail=queue.log_tail)
        self.assertEqual([], [job for job in queue.jobs()
                              if job["state"] == "done"])
        self.nix.run(["nix", "copy", "--to", "file://" + server.directory,
                      *paths])
        queue.wait()
        self.assertEqual(0, server.count("PUT"))
        self.assertEqual({"done"}, {job["state"] for job in queue.jobs()})


class Ssh(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.ssh = self.make_ssh_store()

    def target(self, scheme, **keys):
        return {"name": "other", "url": self.ssh.url(scheme),
                "ssh-key-file": self.ssh.key_file,
                "ssh-known-hosts-file": self.ssh.known_hosts, **keys}

    def check(self, scheme):
        queue = self.make_queue([self.target(scheme)])
        paths = self.nix.build(
            f"[ ({private_nix.chain('chain', 4, self.salt)}) ] ++ "
            + private_nix.all_outputs(
                private_nix.multi_output("multi", self.salt)))
        queue.wait()
        other = self.ssh.store
        self.assertEqual([], [path for path in self.nix.closure(paths)
                              if not other.valid(path)])
        other.verify(paths)
        # Without a pin the other machine's collector may take them.
        other.collect_garbage()
        self.assertFalse(other.valid(paths[0]))

    def test_ssh(self):
        self.check("ssh")

    def test_ssh_ng(self):
        self.check("ssh-ng")

    def test_pins_on_the_other_machine(self):
        queue = self.make_queue([self.target(
            "ssh-ng", **{"pin-remote": True,
                         "remote-roots-directory": self.ssh.roots_dir})])
        paths = self.nix.build(private_nix.chain("chain", 3, self.salt))
        queue.wait()
        self.ssh.store.collect_garbage()
        self.assertTrue(self.ssh.store.valid(paths[0]))
        self.ssh.store.verify(paths)
        self.assertTrue(os.path.islink(os.path.join(
            self.ssh.roots_dir, self.sender(queue),
            os.path.basename(paths[0]))))

    @staticmethod
    def sender(queue):
        """What the queue's own directory on the other machine is called."""
        with open(os.path.join(queue.state_dir, "sender-name"),
                  encoding="ascii") as file:
            return file.read().strip()

    def make_old_root(self, directory, name):
        link = os.path.join(directory, name)
        os.symlink(os.path.join(self.nix.store_dir, name), link)
        long_ago = time.time() - 40 * 86400
        os.utime(link, (long_ago, long_ago), follow_symlinks=False)
        return link

    def test_prune_spares_what_others_made(self):
        """Old roots on the other machine: ours go; its own and those of
        another sender stay, whatever our max-age is."""
        queue = self.make_queue([self.target(
            "ssh-ng", **{"pin-remote": True,
                         "remote-roots-directory": self.ssh.roots_dir})],
            tables={"prune": {"interval": "1s"}})
        self.nix.build(private_nix.derivation("x", f"echo {self.salt} > $out"))
        queue.wait()
        queue.stop()
        others = os.path.join(self.ssh.roots_dir, "other-00000000")
        os.mkdir(others)
        name = "0" * 32 + "-hold"
        receivers = self.make_old_root(self.ssh.roots_dir, name)
        anothers = self.make_old_root(others, name)
        own = self.make_old_root(
            os.path.join(self.ssh.roots_dir, self.sender(queue)), name)
        queue.start()
        # Not by the daemon's log: of a connection that was slow to end it says
        # that it failed, whatever was done by then.
        self.wait_until(lambda: not os.path.islink(own),
                        "a prune on the other machine", detail=queue.log_tail)
        self.assertTrue(os.path.islink(receivers))
        self.assertTrue(os.path.islink(anothers))

    def test_without_signature_it_is_not_trusted(self):
        """The receiver refuses that path; the queue says what to do."""
        queue = self.make_queue([self.target("ssh-ng")], key_files=[])
        paths = self.nix.build(private_nix.derivation(
            "unsigned", f"echo {self.salt} > $out"))
        queue.wait(code=1)
        self.assertEqual(
            [(paths[0], "parked", "permission_denied")],
            [(job["path"], job["state"], job["error_code"])
             for job in queue.jobs()])
        self.assertIn("trusted-public-keys",
                      queue.ctl("show", paths[0]).stdout)
        self.assertFalse(self.ssh.store.valid(paths[0]))
        self.nix.run(["nix", "store", "sign", "-k", self.secret_key, *paths])
        queue.ctl("retry", "--parked")
        queue.wait()
        self.assertTrue(self.ssh.store.valid(paths[0]))

    def test_away_and_back(self):
        self.ssh.stop_sshd()
        queue = self.make_queue([self.target("ssh-ng")])
        paths = self.nix.build(private_nix.derivation(
            "patient", f"echo {self.salt} > $out"))
        queue.wait_for_rows("SELECT 1 FROM targets WHERE failures >= 3",
                            "some attempts in vain")
        self.assertEqual(["queued"], [job["state"] for job in queue.jobs()])
        self.assertTrue(self.ssh.start(), self.ssh.log())
        queue.wait()
        self.assertTrue(self.ssh.store.valid(paths[0]))

    def test_the_wrong_host_key(self):
        other_key = os.path.join(self.base, "other_hosts")
        with open(self.ssh.key_file + ".pub", encoding="ascii") as public, \
                open(other_key, "w", encoding="ascii") as known:
            known.write(f"[127.0.0.1]:{self.ssh.port} {public.read()}")
        queue = self.make_queue(
            [{**self.target("ssh-ng"), "ssh-known-hosts-file": other_key}])
        paths = self.nix.build(private_nix.derivation(
            "careful", f"echo {self.salt} > $out"))
        queue.wait_for_rows("SELECT 1 FROM targets WHERE health = 'refused'",
                            "the target to be refused")
        self.assertFalse(self.ssh.store.valid(paths[0]))


class Several(world.WorldTest):
    """One target that fails or is slow does not hold up the others."""

    def test_all_kinds_at_once(self):
        self.make_nix(hook=queued.HOOK)
        ssh = self.make_ssh_store()
        server = self.make_nginx()
        cache = binary_cache.BinaryCache(os.path.join(self.base, "cache"))
        queue = self.make_queue([
            {"name": "nobody", "url": "http://127.0.0.1:1"},
            {"name": "dir", "url": "file://" + cache.directory},
            {"name": "web", "url": server.url},
            {"name": "ssh", "url": ssh.url(),
             "ssh-key-file": ssh.key_file,
             "ssh-known-hosts-file": ssh.known_hosts}])
        paths = self.nix.build(private_nix.chain("chain", 5, self.salt))
        queue.wait_for_rows(
            "SELECT 1 WHERE (SELECT count(*) FROM jobs JOIN targets ON "
            "targets.id = target_id WHERE name != 'nobody' AND "
            "state != 'done') = 0 AND (SELECT count(*) FROM jobs) >= 20",
            "the targets that work to have everything")
        closure = self.nix.closure(paths)
        self.assert_whole(cache, closure)
        self.assert_whole(binary_cache.BinaryCache(server.directory), closure)
        self.assertTrue(ssh.store.valid(paths[0]))
        states = {row["target"]: row["state"] for row in queue.jobs()}
        self.assertEqual("queued", states["nobody"], json.dumps(states))


if __name__ == "__main__":
    unittest.main()
