"""cache-management, and what it and cache-status ask of the queue."""

import json
import os
import sqlite3
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands
from commands import AWAY, FAILED, PATIENT, USAGE

import cache_server
import nginx
import queued


class Management(commands.CacheTest):

    def test_test(self):
        self.upload(self.build())
        report = self.report("cache-management", "test")
        self.assert_finding(report, "ok", "cache " + self.server.url)
        self.server.stop()
        self.report("cache-management", "test", code=AWAY)

    def run_command(self, name, *arguments, **options):
        # --json comes after the verb.
        if name == "cache-management" and arguments[:1] == ("--json",):
            arguments = (arguments[1], "--json", *arguments[2:])
        return super().run_command(name, *arguments, **options)

    def test_status_is_cache_status(self):
        path = self.upload(self.build())
        report = self.report("cache-management", "status", path)
        self.assertEqual("cache-status", report.document["command"])
        self.assertEqual(path, report.document["paths"][0]["path"])

    def test_info(self):
        path = self.upload(self.build())
        report = self.report("cache-management", "info", path)
        shown = report.document["narinfos"][0]
        self.assertIn(f"StorePath: {path}\n", shown["narinfo"])
        self.assertIn("Sig: test-1:", shown["narinfo"])
        report = self.report("cache-management", "info", self.build("new"))
        self.assert_finding(report, "warning", "path ", "does not have it")

    def test_push_to_a_directory(self):
        path = self.build()
        cache = self.place("pushed")
        report = self.report("cache-management", "push", "--to",
                             f"file://{cache}", "--key-file", self.secret_key,
                             path)
        self.assert_finding(report, "ok", "push ", "has it now")
        self.assertTrue(self.nix.path_info(
            [path], "--store", f"file://{cache}")[0]["signatures"])

    def test_push_over_http_to_a_new_endpoint(self):
        server = self.make_nginx()
        path = self.build()
        self.run_command("cache-management", "push", "--to", server.url, path)
        self.report("cache-management", "info", "--url", server.url, path)

    def test_push_to_what_only_serves(self):
        self.upload(self.build("first"))
        self.server.fault = lambda request: (
            cache_server.Fault("status", 405) if request.method == "PUT"
            else None)
        report = self.report("cache-management", "push", "--to",
                             self.server.url, self.build(), code=FAILED)
        self.assert_finding(report, "failed", "push", "takes no uploads",
                            "Harmonia and nix-serve only serve")

    def test_push_to_nobody(self):
        report = self.report(
            "cache-management", "push", "--to",
            f"http://127.0.0.1:{nginx.free_port()}", self.build(), code=AWAY)
        self.assert_finding(report, "away", "cache", "refuse")

    def test_push_over_ssh(self):
        remote = self.make_ssh_store()
        path = self.build()
        options = {"NIX_SSHOPTS": " ".join(remote.ssh_options())}
        url = f"ssh-ng://{remote.user}@127.0.0.1"
        report = self.report("cache-management", "push", "--to", url, path,
                             code=FAILED, **options)
        self.assert_finding(report, "failed", "push", "cannot verify",
                            "--key-file")
        report = self.report("cache-management", "push", "--to", url,
                             "--key-file", self.secret_key, path, **options)
        self.assertTrue(remote.store.valid(path))
        self.assert_finding(report, "warning", "push", "garbage collector",
                            "pin-remote")

    def test_push_with_a_key_that_others_may_read(self):
        os.chmod(self.secret_key, 0o644)
        report = self.report("cache-management", "push", "--to",
                             "file://" + self.place("x"), "--key-file",
                             self.secret_key, self.build(), code=FAILED)
        self.assert_finding(report, "failed", "signing key", "open to others",
                            "chmod 600")

    def test_push_without_a_place(self):
        result = self.run_command("cache-management", "push", self.build(),
                                  code=USAGE)
        self.assertIn("--to", result.stderr)

    def test_push_what_is_not_here(self):
        gone = os.path.join(self.nix.store_dir, "0" * 32 + "-gone")
        result = self.run_command("cache-management", "push", "--to",
                                  self.server.url, gone, code=FAILED)
        self.assertIn("not in this store", result.stderr)

    def test_clear(self):
        path = self.upload(self.build())
        self.nix.run(["nix", "path-info", "--store", self.server.url, path])
        memory = os.path.join(self.nix.environment["XDG_CACHE_HOME"], "nix")
        names = [name for name in os.listdir(memory)
                 if name.startswith("binary-cache-v")]
        self.assertTrue(names)
        proxy = self.place("proxy")
        cached = os.path.join(proxy, "c", "29", "b7f54b2df7773722d382f4809d65"
                              "029c")
        os.makedirs(os.path.dirname(cached))
        for file in (cached, os.path.join(proxy, "precious")):
            with open(file, "w", encoding="utf-8"):
                pass
        arguments = ("cache-management", "clear", "--proxy-dir", proxy)
        self.run_command(*arguments, "--dry-run")
        self.assertTrue(os.path.exists(cached))
        report = self.report(*arguments)
        self.assertEqual(len(names) + 1, report.document["removed"])
        self.assertEqual(["precious"], [
            name for _, _, files in os.walk(proxy) for name in files])
        self.assertEqual([], [name for name in os.listdir(memory)
                              if name in names])
        self.nix.run(["nix", "path-info", "--store", self.server.url, path])

    def test_stats(self):
        path = self.build()
        os.makedirs(self.nix.roots_dir)
        for name, target in (("a", path), ("b", path + "-gone")):
            os.symlink(target, os.path.join(self.nix.roots_dir, name))
        log = os.path.join(self.base, "access.log")
        with open(log, "w", encoding="utf-8") as file:
            for word in ["LOCAL", "HIT", "HIT", "MISS", "OFFLINE-MISS"]:
                file.write(f'"GET /x" 200 X-Cache-Status={word} rt=0.1\n')
        proxy = self.place("proxy")
        with open(os.path.join(proxy, "x"), "wb") as file:
            file.write(bytes(5000))
        document = self.report("cache-management", "stats", "--log", log,
                               "--proxy-dir", proxy).document
        self.assertEqual({"HIT": 2, "LOCAL": 1, "MISS": 1, "OFFLINE-MISS": 1},
                         document["proxy_answers"])
        self.assertEqual((2, 1, 1), tuple(document[name] for name in (
            "roots", "roots_dangling", "proxy_files")))
        self.assertGreaterEqual(document["proxy_bytes"], 5000)
        self.assertGreaterEqual(document["store_paths"], 1)
        self.assertGreater(document["disk_size_bytes"],
                           document["disk_free_bytes"])
        text = self.run_command("cache-management", "stats", "--log",
                                log).stdout
        self.assertIn("3 of 5", text)


class WithTheQueue(commands.CommandTest):
    """What the agent knows is asked of it."""

    def setUp(self):
        super().setUp()
        self.make_nix(settings=PATIENT)
        self.directory = self.place("c")
        self.queue = self.make_queue([
            {"name": "dir", "url": "file://" + self.directory}])
        self.configure(substituters="file://" + self.directory,
                       trusted_public_keys=self.public_key,
                       post_build_hook=queued.HOOK)
        self.variables = {"NIX_QUEUED_CONFIG": self.queue.config_file,
                          "NIX_QUEUED_STATE_DIR": self.queue.state_dir}

    def test_status(self):
        self.push(self.build())
        report = self.report("cache-status", **self.variables)
        self.assert_finding(report, "ok", "queue")
        self.assertEqual(
            json.loads(self.queue.ctl("check", "--json").stdout),
            report.document["queue"])
        text = self.run_command("cache-status", **self.variables).stdout
        self.assertIn("target dir", text)
        self.queue.stop()
        report = self.report("cache-status", code=FAILED, **self.variables)
        self.assert_finding(report, "failed", "queue", "something wrong")
        self.assertIn("failed", {item["level"] for item
                                 in report.document["queue"]})
        report = self.report("cache-status", "--no-queue", **self.variables)
        self.assertNotIn("queue", report.document)

    def push(self, path, code=0):
        return self.run_command("cache-management", "push", "--wait", "20",
                                path, code=code, **self.variables).stdout

    def test_push(self):
        path = self.build()
        self.assertIn("every target", self.push(path))
        self.assertTrue(os.path.exists(os.path.join(
            self.directory, os.path.basename(path)[:32] + ".narinfo")))
        self.queue.stop()
        self.assertIn("daemon does not run", self.push(self.build("later"),
                                                       code=FAILED))
        with sqlite3.connect(self.queue.state_dir + "/queue.db") as database:
            self.assertEqual(1, database.execute(
                "SELECT count(*) FROM inbox").fetchone()[0])
        database.close()

    def test_stats(self):
        self.push(self.build())
        document = json.loads(self.run_command(
            "cache-management", "stats", "--json", **self.variables).stdout)
        self.assertEqual("dir", document["queue"]["targets"][0]["name"])


if __name__ == "__main__":
    unittest.main()
