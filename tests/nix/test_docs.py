"""What the pages in nixos-module say is so: commands and their options exist,
configurations evaluate, links lead somewhere."""

import glob
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import support

PAGES = sorted(glob.glob(os.path.join(support.MODULES, "docs", "*.md"))
               ) + [os.path.join(support.MODULES, "TROUBLESHOOTING.md"),
                    os.path.join(support.MODULES, "README.md"),
                    os.path.join(os.path.dirname(support.MODULES),
                                 "README.md")]
SCRIPTS = os.path.join(support.MODULES, "scripts")
BIN = os.environ.get("NIXQ_BIN", "")
ROLES = {"cache-host", "client", "builder", "coordinator", "laptop", "mac",
         "ci-image", "linux"}
COMMANDS = [name for name in sorted(os.listdir(SCRIPTS)) if name != "lib"]
OURS = re.compile(r"(?<![\w-])(" + "|".join(COMMANDS) + r"|queuectl)"
                  r"((?: (?!\||#|&|;)[^\s`|&;]+)*)")


def read(page):
    with open(page, encoding="utf-8") as file:
        return file.read()


def blocks(text, language):
    """The fenced blocks of one language ("" for those that name none)."""
    return [block for name, block in re.findall(
        r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if name == language]


def anchors(text):
    """Where links into a page may lead."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.M)}


def help_of(command, *words):
    program = (os.path.join(BIN, command) if command == "queuectl"
               else os.path.join(SCRIPTS, command))
    return subprocess.run([program, *words, "--help"], capture_output=True,
                          text=True, check=True).stdout


class Pages(unittest.TestCase):

    def each(self, language):
        for page in PAGES:
            for number, block in enumerate(blocks(read(page), language)):
                yield f"{os.path.basename(page)} {number}", block

    def test_a_page_for_each_role(self):
        names = {os.path.splitext(os.path.basename(page))[0]
                 for page in PAGES}
        self.assertLessEqual(ROLES, names)
        for role in sorted(ROLES):
            with self.subTest(role):
                text = read(os.path.join(support.MODULES, "docs",
                                         f"{role}.md"))
                self.assertRegex(text, r"(?i)a verified (hit|build)")
                self.assertRegex(text, r"cache-status|nix path-info --store")

    def test_links(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)]+)\)", read(page)):
                if "://" in target:
                    continue
                with self.subTest(os.path.basename(page), target=target):
                    name, _, anchor = target.partition("#")
                    file = os.path.normpath(os.path.join(
                        os.path.dirname(page), name)) if name else page
                    self.assertTrue(os.path.exists(file), file)
                    if anchor:
                        self.assertIn(anchor, anchors(read(file)))

    def test_lines_are_short(self):
        for page in PAGES:
            # What programs print is as long as it is.
            text = re.sub(r"^```\n.*?^```$", "", read(page),
                          flags=re.M | re.S)
            for line in text.splitlines():
                if not line.startswith("|"):
                    self.assertLessEqual(len(line), 110, f"{page}: {line}")

    def test_shell(self):
        found = 0
        for name, block in self.each("sh"):
            found += 1
            with self.subTest(name):
                result = subprocess.run(["bash", "-n"], input=block, text=True,
                                        capture_output=True, check=False)
                self.assertEqual(("", 0), (result.stderr, result.returncode))
        self.assertGreater(found, 30)

    def test_our_commands_take_these_options(self):
        found = set()
        for page in PAGES:
            text = re.sub(r"\\\n\s*|\n\s*(?=--)", " ", read(page))
            for command, words in OURS.findall(text):
                words = words.replace('"', "").split()
                verb = []
                if command in ("queuectl", "cache-management"):
                    verb = [word for word in words[:1]
                            if re.fullmatch(r"[a-z]+", word)]
                known = help_of(command, *(
                    verb if command == "queuectl" else []))
                with self.subTest(page, command=command, words=words):
                    if command == "cache-management" and verb:
                        self.assertRegex(known, rf"(?m)^  {verb[0]}\b")
                    for option in words:
                        if option.startswith("--"):
                            found.add((command, option))
                            self.assertRegex(
                                known, rf"(?m)(?<![\w-]){option}(?![\w-])")
        self.assertGreater(len(found), 20)

    def test_configurations_evaluate(self):
        found = 0
        for name, block in self.each("nix"):
            if not re.search(r"^  (services|users)\.", block, re.M):
                continue
            found += 1
            class_ = ("darwin" if block.startswith("# nix-darwin")
                      else "nixos")
            with self.subTest(name), tempfile.NamedTemporaryFile(
                    "w", suffix=".nix", encoding="utf-8") as file:
                file.write(block)
                file.flush()
                made = support.Rendered(support.nix_value(
                    f"(import {support.HERE}/eval.nix {{"
                    f" module = import {file.name}; class = \"{class_}\"; }}"
                    ").rendered"))
                self.assertEqual([], made.failures)
                self.assertEqual([], made.warnings)
        self.assertGreater(found, 8)

    def test_other_nix_parses(self):
        for name, block in self.each("nix"):
            with self.subTest(name):
                support.run_nix(["nix-instantiate", "--parse", "--expr",
                                 block])

    def test_text_for_images(self):
        text = read(os.path.join(support.MODULES, "docs", "ci-image.md"))
        [block] = blocks(text, "nix")
        made = support.nix_value(
            f"({block}) {{ lib = (import {support.MODULES} {{ }}).lib; }}")
        self.assertEqual({"nixConf", "machines", "sshConfig"}, set(made))
        self.assertIn("builders = @/etc/nix/machines\n", made["nixConf"])

    def test_options_that_are_mentioned_exist(self):
        names = set()
        for page in PAGES:
            names |= set(re.findall(
                r"services\.(?:nix-builder|nix-queued|offload-server"
                r"|laptop-builder-client)(?:\.[A-Za-z][\w-]*)+", read(page)))
        self.assertGreater(len(names), 15)
        paths = [name.split(".") for name in sorted(names)]
        unknown = support.nix_value(
            "let lib = import %s/pocket; made = import %s/eval.nix"
            " { module = { }; }; has = path: builtins.foldl'"
            " (o: n: if o != null && o ? ${n} then o.${n} else null)"
            " made.options path != null; in builtins.filter (p: !has p) %s" % (
                support.HERE, support.HERE, nix_list(paths)))
        # What stands below a target is not in the tree of options.
        self.assertEqual([], [".".join(path) for path in unknown])

    def test_settings_of_nix(self):
        for name, block in self.each(""):
            if "extra-substituters" not in block:
                continue
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                with open(os.path.join(folder, "nix.conf"), "w",
                          encoding="utf-8") as file:
                    file.write("experimental-features = nix-command\n"
                               + block)
                result = subprocess.run(
                    ["nix", "show-config"], capture_output=True, text=True,
                    env={**support.environment(), "NIX_CONF_DIR": folder},
                    check=True)
                self.assertNotIn("unknown setting", result.stderr)


def nix_list(value):
    if isinstance(value, list):
        return "[ " + " ".join(map(nix_list, value)) + " ]"
    return '"' + value + '"'


if __name__ == "__main__":
    unittest.main()
