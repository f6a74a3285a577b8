"""The folders are the architecture: who may include what.

The table under "## Places" in ARCHITECTURE.md is the law; this reads it. Its
third column lists, separated by commas:
  nothing, Abseil             no folder of ours
  everything                  for tests/, whose includes are free
  storage/base, queued        a folder (base, nix, queue and cache are those of
                              storage; storage means all four)
  storage/queue/{inbox,spool}.h       single headers
  the names in nix            the headers of storage/nix that the sentence
                              '"The names in nix" are ...' lists
"""

import os
import re
import unittest

import source_tree

# Each C library has one owner. Tests of an owner may look at it too.
OWNERS = {
    r"sqlite3(ext)?\.h": r"storage/queue/",
    r"curl/.*": r"storage/cache/",
    r"(zstd|zstd_errors|lzma)\.h": r"storage/cache/",
    r"sodium(/.*)?(\.h)?": r"storage/nix/",
    r"openssl/.*": r"storage/nix/",
    r"toml\+\+/.*": r"queued/config\w*\.cc$",
    r"CLI/.*": r"queued/main\.cc$|queued/queuectl/",
}
STORAGE = ("base", "cache", "nix", "queue")


def split_outside_brackets(text):
    items = []
    depth = 0
    item = ""
    for character in text:
        depth += (character in "({") - (character in ")}")
        if character == "," and depth == 0:
            items.append(item.strip())
            item = ""
        else:
            item += character
    return items + [item.strip()]


def expand_braces(text):
    match = re.fullmatch(r"(.*)\{([^}]*)\}(.*)", text)
    if not match:
        return [text]
    return [match[1] + middle.strip() + match[3]
            for middle in match[2].split(",")]


class Places:
    """The table: for each folder, which folders and headers it may use."""

    def __init__(self, document):
        rows = self.read_rows(document)
        sentence = re.search(r'"The names in nix" are ((?:.|\n)*?)(?:: |\.\s)',
                             document)
        self.names_in_nix = ["storage/nix/" + name for name in re.findall(
            r"\w+\.h", sentence[1])] if sentence else []
        self.allowed = {}
        for cells in rows:
            folder = self.folder(cells[0])
            uses = []
            for item in split_outside_brackets(cells[2]):
                uses += self.understand(item)
            self.allowed[folder] = uses

    @staticmethod
    def read_rows(document):
        section = re.search(r"^## Places[^\n]*\n(.*?)(?=^## |\Z)", document,
                            re.MULTILINE | re.DOTALL)
        if not section:
            raise ValueError("no section '## Places'")
        rows = []
        for line in section[1].splitlines():
            if line.startswith("|"):
                cells = [cell.strip().replace("`", "")
                         for cell in line.strip().strip("|").split("|")]
                if len(cells) == 3:
                    rows.append(cells)
            elif rows:
                break  # the first table only
        rows = [row for row in rows[1:] if not set(row[0]) <= set("-: ")]
        if not rows:
            raise ValueError("no table with three columns under '## Places'")
        return rows

    @staticmethod
    def folder(cell):
        return cell.strip().rstrip("/")

    def understand(self, item):
        """One item of the third column as folders and headers."""
        item = re.sub(r"^the\s+", "", item.strip())
        if item.lower() in ("", "nothing", "abseil", "everything"):
            return []
        if item == "names in nix":
            if not self.names_in_nix:
                raise ValueError("no sentence says what the names in nix are")
            return self.names_in_nix
        if item.rstrip("/") == "storage":
            return [f"storage/{name}/" for name in STORAGE]
        if item.rstrip("/") in STORAGE:
            return [f"storage/{item.rstrip('/')}/"]
        if re.fullmatch(r"[a-z/_]+\{[a-z_, ]+\}\.h|[a-z/_]+\.h", item):
            return expand_braces(item)
        if re.fullmatch(r"[a-z/_-]+", item):
            return [item.rstrip("/") + "/"]
        raise ValueError(f"'## Places': what is {item!r}?")

    def place_of(self, name):
        """The longest row that `name` lies under, or None."""
        rows = [row for row in self.allowed if name.startswith(row + "/")]
        return max(rows, key=len, default=None)

    def complaints(self, name, text):
        """What is wrong with the #includes of the file `name`."""
        if name.startswith("tests/"):
            found = []
        else:
            found = self.upward_includes(name, text)
        owned_as = name[len("tests/"):] if name.startswith("tests/") else name
        for _, included in source_tree.includes(text):
            for library, owner in OWNERS.items():
                if re.fullmatch(library, included) and not re.match(
                        owner, owned_as):
                    found.append(f"{name}: {included} belongs to {owner}")
        return found

    def upward_includes(self, name, text):
        place = self.place_of(name)
        if place is None:
            return [f"{name}: lies in no folder of '## Places'"]
        found = []
        for is_system, included in source_tree.includes(text):
            if is_system:
                if included.split("/")[0] in ("hook", "queued", "schema",
                                              "storage", "tests"):
                    found.append(f"{name}: <{included}> needs quotes")
                continue
            if included.startswith("absl/"):
                continue
            if "/" not in included or included.startswith("."):
                found.append(f'{name}: "{included}" is not rooted')
                continue
            inside = self.place_of(included)
            allowed = self.allowed[place]
            if inside != place and not any(
                    included == use or (use.endswith("/")
                                        and included.startswith(use)
                                        and inside == self.place_of(use + "x"))
                    for use in allowed):
                found.append(f"{name}: {place} may not use {included}")
        return found


SAMPLE = """
# Architecture
## Places
Text.

| folder | is | may use |
|---|---|---|
| `schema/` | tables | nothing |
| `storage/base/` | helpers | Abseil |
| `storage/nix/` | the store | base |
| `storage/queue/` | the queue | base, schema, the names in nix |
| `storage/cache/` | caches | base, nix |
| `queued/` | the daemon | storage |
| `queued/queuectl/` | the CLI | queued, storage |
| `hook/` | it | storage/base, storage/queue/{inbox,spool}.h, the names in nix |

"The names in nix" are `store_path.h` and
`a.h`: they are small.

## Other
| a | b | c |
"""


class LintOfTheLint(unittest.TestCase):
    """The lint fails where it should: each snippet but the good ones."""

    GOOD = [
        ("storage/nix/nar.cc", '#include "storage/base/io.h"'),
        ("storage/nix/nar.cc", '#include "storage/nix/nar.h"'),
        ("storage/nix/hash.cc", "#include <sodium.h>"),
        ("storage/queue/queue.cc", '#include "storage/nix/a.h"'),
        ("storage/queue/queue.cc", '#include "schema/migrations.h"'),
        ("storage/queue/sqlite.cc", "#include <sqlite3.h>"),
        ("hook/main.cc", '#include "storage/queue/spool.h"'),
        ("hook/main.cc", '#include "storage/nix/store_path.h"'),
        ("queued/daemon.cc", '#include "storage/cache/publish.h"'),
        ("queued/queuectl/main.cc", '#include "queued/config.h"'),
        ("queued/queuectl/main.cc", "#include <CLI/CLI.hpp>"),
        ("queued/config.cc", "#include <toml++/toml.h>"),
        ("storage/base/io.cc", "// #include <sqlite3.h>"),
        ("storage/base/io.cc", '#include "absl/time/time.h"'),
        ("tests/storage/queue/x_test.cc", "#include <sqlite3.h>"),
        ("tests/queued/x_test.cc", '#include "storage/queue/queue.h"'),
    ]
    BAD = [
        ("storage/base/io.cc", '#include "storage/nix/nar.h"'),
        ("storage/base/io.cc", '#include "schema/migrations.h"'),
        ("storage/nix/nar.cc", '#include "storage/cache/publish.h"'),
        ("storage/nix/nar.cc", '#include "queued/config.h"'),
        ("storage/queue/queue.cc", '#include "storage/nix/nar.h"'),
        ("storage/cache/publish.cc", '#include "storage/queue/queue.h"'),
        ("hook/main.cc", '#include "storage/queue/queue.h"'),
        ("hook/main.cc", '#include "storage/nix/nar.h"'),
        ("hook/main.cc", '#include "queued/config.h"'),
        ("queued/daemon.cc", '#include "queued/queuectl/commands.h"'),
        ("queued/daemon.cc", '#include "hook/outputs.h"'),
        ("queued/daemon.cc", '#include "config.h"'),
        ("queued/daemon.cc", "#include <storage/base/io.h>"),
        ("queued/daemon.cc", '#include "tests/support/fake.h"'),
        ("queued/daemon.cc", "#include <sqlite3.h>"),
        ("queued/daemon.cc", "#  include <curl/curl.h>"),
        ("storage/nix/nar.cc", "#include <zstd.h>"),
        ("storage/cache/http.cc", "#include <openssl/evp.h>"),
        ("queued/daemon.cc", "#include <toml++/toml.h>"),
        ("queued/daemon.cc", "#include <CLI/CLI.hpp>"),
        ("tests/queued/x_test.cc", "#include <sqlite3.h>"),
        ("elsewhere/x.cc", ""),
    ]

    def test_good(self):
        places = Places(SAMPLE)
        for name, text in self.GOOD:
            with self.subTest(name=name, text=text):
                self.assertEqual([], places.complaints(name, text))

    def test_bad(self):
        places = Places(SAMPLE)
        for name, text in self.BAD:
            with self.subTest(name=name, text=text):
                self.assertEqual(1, len(places.complaints(name, text)))

    def test_a_table_that_it_cannot_read(self):
        for text in ("", "## Places\nno table\n",
                     SAMPLE.replace("| base |", "| whatever it likes! |"),
                     SAMPLE.replace('" are', '" were')):
            with self.subTest(text=text[:20]):
                with self.assertRaises(ValueError):
                    Places(text)


class Tree(unittest.TestCase):
    """The sources themselves."""

    def test_includes(self):
        places = Places(source_tree.read("ARCHITECTURE.md"))
        names = source_tree.files((".h", ".cc", ".in"),
                                  source_tree.CODE_FOLDERS)
        self.assertGreater(len(names), 30)
        complaints = []
        for name in names:
            complaints += places.complaints(name, source_tree.read(name))
        self.assertEqual([], complaints, "\n" + "\n".join(complaints))

    def test_every_folder_of_sources_is_a_place(self):
        places = Places(source_tree.read("ARCHITECTURE.md"))
        for row in places.allowed:
            with self.subTest(row=row):
                self.assertTrue(os.path.isdir(
                    os.path.join(source_tree.ROOT, row)))


if __name__ == "__main__":
    unittest.main()
