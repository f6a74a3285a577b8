"""cache-status against caches of every kind."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import commands
from commands import AWAY, FAILED

import cache_server
import nginx


class Status(commands.CacheTest):

    def setUp(self):
        super().setUp()
        self.path = self.upload(self.build())

    def test_a_good_cache(self):
        report = self.report("cache-status", self.path)
        self.assertEqual({"ok"},
                         {item["level"] for item in report.findings})
        self.assert_finding(report, "ok", "cache " + self.server.url,
                            "priority")
        self.assert_finding(report, "ok", "path ", "signed by test-1")
        cache = report.document["caches"][0]
        self.assertEqual((self.server.url, True),
                         (cache["url"], cache["usable"]))
        self.assertGreaterEqual(cache["milliseconds"], 0)
        self.assertEqual([{"path": self.path, "usable": True}],
                         report.document["paths"])

    def test_for_people(self):
        link = os.path.join(self.base, "result")
        os.symlink(self.path, link)
        text = self.run_command("cache-status", link).stdout
        self.assertIn(f"ok       cache {self.server.url}: answers in ", text)
        self.assertIn("signed by test-1", text)

    def test_priority_of_the_url_comes_first(self):
        self.configure(substituters=self.server.url + "?priority=12")
        report = self.report("cache-status")
        self.assertEqual(12, report.document["caches"][0]["priority"])

    def test_nobody_listens(self):
        url = f"http://127.0.0.1:{nginx.free_port()}"
        report = self.report("cache-status", "--url", url, code=AWAY)
        self.assert_finding(report, "away", f"cache {url}", "refuse",
                            "systemctl status nginx harmonia")
        self.assertIs(False, report.document["caches"][0]["usable"])

    def test_a_name_that_nobody_knows(self):
        report = self.report("cache-status", "--url",
                             "http://nix-cache.invalid", code=AWAY)
        self.assert_finding(report, "away", "cache", "not known",
                            "tailscale status")

    def test_one_that_does_not_answer_is_not_waited_for(self):
        self.server.fault = lambda request: cache_server.Fault("hang")
        report = self.report("cache-status", "--limit", "1", code=AWAY)
        self.assert_finding(report, "away", "cache", "did not answer")

    def test_what_is_wrong_weighs_more_than_who_is_away(self):
        self.answer(500)
        self.report("cache-status", "--url", self.server.url, "--url",
                    f"http://127.0.0.1:{nginx.free_port()}", code=FAILED)

    def test_answers_that_are_no_use(self):
        for status, text, hint in (
                (500, "HTTP 500", "signing key"),
                (502, "proxy", "systemctl status harmonia"),
                (503, "proxy", "systemctl status harmonia"),
                (401, "credentials", "netrc-file"),
                (403, "credentials", "netrc-file"),
                (404, "HTTP 404", "no binary cache"),
                (429, "HTTP 429", "http-connections")):
            with self.subTest(status):
                self.answer(status)
                report = self.report("cache-status", code=FAILED)
                self.assert_finding(report, "failed", "cache", text, hint)

    def test_tls_that_is_none(self):
        report = self.report("cache-status", "--url",
                             self.server.url.replace("http", "https"),
                             code=FAILED)
        self.assert_finding(report, "failed", "cache", "TLS", "certbot renew")

    def write_cache_info(self, text):
        with open(self.server.cache.file("nix-cache-info"), "w",
                  encoding="utf-8") as file:
            file.write(text)

    def test_another_store_directory(self):
        self.write_cache_info("StoreDir: /gnu/store\nPriority: 40\n")
        report = self.report("cache-status", code=FAILED)
        self.assert_finding(report, "failed", "cache", "/gnu/store")

    def test_a_page_that_is_no_cache(self):
        self.write_cache_info("<html>Please log in</html>\n")
        report = self.report("cache-status", code=FAILED)
        self.assert_finding(report, "failed", "cache", "StoreDir",
                            "login page")

    def test_a_directory(self):
        directory = self.place("directory")
        url = "file://" + directory
        report = self.report("cache-status", "--url", url, code=FAILED)
        self.assert_finding(report, "failed", "cache", "nix-cache-info",
                            "mounted")
        self.upload(self.path, url=url)
        self.report("cache-status", "--url", url, self.path)


class Paths(commands.CacheTest):
    """Is it there, and would this machine take it?"""

    def test_nobody_has_it(self):
        report = self.report("cache-status", self.build(), code=FAILED)
        self.assert_finding(report, "failed", "path ", "no cache",
                            "cache-management clear")

    def test_not_signed(self):
        path = self.upload(self.build(), key=False)
        report = self.report("cache-status", path, code=FAILED)
        self.assert_finding(report, "failed", "path ", "without any signature",
                            "nix store sign")

    def test_signed_by_somebody_else(self):
        path = self.upload(self.build())
        _, other = self.nix.generate_key("other-1")
        self.configure(trusted_public_keys=other)
        report = self.report("cache-status", path, code=FAILED)
        self.assert_finding(report, "failed", "path ",
                            "signed by test-1, which is not trusted",
                            "trusted-public-keys")

    def test_a_key_of_the_same_name(self):
        path = self.upload(self.build())
        os.unlink(self.secret_key)
        _, other = self.nix.generate_key("test-1")
        self.configure(trusted_public_keys=other)
        report = self.report("cache-status", path, code=FAILED)
        self.assert_finding(report, "failed", "path ", "calls itself test-1",
                            "out of date")

    def test_nix_s_own_memory_is_not_asked(self):
        path = self.build()
        self.report("cache-status", path, code=FAILED)
        self.upload(path)
        self.report("cache-status", path)

    def test_it_is_enough_that_one_cache_has_it(self):
        path = self.upload(self.build())
        empty = self.place("empty")
        self.upload(self.build("other"), url="file://" + empty)
        self.configure(substituters=f"file://{empty} {self.server.url}")
        self.report("cache-status", path)

    def test_no_path_at_all(self):
        report = self.report("cache-status", "/etc/passwd", code=FAILED)
        self.assert_finding(report, "failed", "path ", "no store path")


class Settings(commands.CacheTest):

    def warning(self, check, text, **settings):
        self.configure(**settings)
        report = self.report("cache-status")
        self.assert_finding(report, "warning", check, text)

    def setUp(self):
        super().setUp()
        self.upload(self.build())

    def test_no_cache(self):
        self.configure(substituters="")
        report = self.report("cache-status", code=FAILED)
        self.assert_finding(report, "failed", "substituters", "none",
                            "services.nix-builder.client")

    def test_substitution_is_off(self):
        self.configure(substitute="false")
        report = self.report("cache-status", code=FAILED)
        self.assert_finding(report, "failed", "substituters",
                            "substitute = false")

    def test_no_key(self):
        self.configure(trusted_public_keys="")
        report = self.report("cache-status", code=FAILED)
        self.assert_finding(report, "failed", "signatures", "empty")

    def test_no_key_of_ones_own(self):
        self.warning("signatures", "only cache.nixos.org-1",
                     trusted_public_keys="cache.nixos.org-1:6NCHdD59X431o0gWyp"
                     "bMrAURkbJ16ZPMQFGspcDShjY=")

    def test_signatures_are_not_required(self):
        self.warning("signatures", "require-sigs", require_sigs="false")

    def test_builds_would_wait(self):
        self.warning("patience", "connect-timeout", connect_timeout="0")

    def test_builds_would_fail(self):
        self.warning("patience", "fallback", fallback="false")

    def test_a_misspelt_setting(self):
        self.warning("nix.conf", "substituers", substituers="http://x")

    def test_a_nix_that_renamed_its_commands(self):
        real = "/usr/bin/nix"
        self.fake("nix", f"""
          case "$*" in
            *"config show"*) exec {real} --extra-experimental-features \
              nix-command show-config ;;
            *show-config*) echo "'show-config' is gone" >&2; exit 1 ;;
            *) exec {real} "$@" ;;
          esac""")
        self.report("cache-status")

    def test_nix_conf_that_nix_does_not_read(self):
        with open(os.path.join(self.nix.conf_dir, "nix.conf"), "a",
                  encoding="utf-8") as file:
            file.write("fallback = perhaps\n")
        result = self.run_command("cache-status", code=FAILED)
        self.assertIn("fallback", result.stderr)


if __name__ == "__main__":
    unittest.main()
