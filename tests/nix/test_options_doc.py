"""The reference of options is what the modules say."""

import difflib
import unittest

import options_doc
import support


class Reference(unittest.TestCase):

    def test_is_up_to_date(self):
        with open(options_doc.FILE, encoding="utf-8") as file:
            committed = file.read()
        made = options_doc.made()
        difference = "\n".join(difflib.unified_diff(
            committed.splitlines(), made.splitlines(), "OPTIONS.md",
            "what the modules say", lineterm="", n=1))
        self.assertEqual("", difference, "run"
                         " `python3 tests/nix/options_doc.py --write`\n"
                         + difference)

    def test_every_module_is_in_it(self):
        options = support.nix_value(f"import {support.HERE}/options.nix")
        found = {options_doc.module_of(option["name"]) for option in options}
        for name in ("nix-queued", "laptop-builder-client", "offload-server"):
            self.assertIn(f"services.{name}", found)
        for name in ("client", "coordinator", "builder", "harmonia", "proxy",
                     "uploadEndpoint", "populate", "binary-cache",
                     "utilities"):
            self.assertIn(f"services.nix-builder.{name}", found)
        for name in ("services.clubcotton.harmonia",
                     "kernelcore.system.binary-cache"):
            self.assertIn(name, found)

    def test_descriptions_are_sentences(self):
        for option in support.nix_value(
                f"import {support.HERE}/options.nix"):
            with self.subTest(option["name"]):
                self.assertRegex(option["description"].strip(),
                                 r"(?s)^[^a-z ].+\.$")


class Text(unittest.TestCase):

    def test_values(self):
        for value, text in (
                ({}, "{ }"), ([], "[ ]"), (None, "null"), (True, "true"),
                ("a\"${b}", '"a\\"\\${b}"'), ({"a": 1}, "{ a = 1; }"),
                ({"a b": [1, "x"]}, '{ "a b" = [ 1 "x" ]; }'),
                ({"a": {"long" * 9: "text" * 9}},
                 "{\n  a = {\n    " + "long" * 9 + ' = "' + "text" * 9
                 + '";\n  };\n}')):
            with self.subTest(text):
                self.assertEqual(text, options_doc.nix(value))

    def test_values_are_what_nix_reads(self):
        for value in ({"a": [1, "x ${y} \n", None, {"b c": True}]},
                      ["text" * 9, {"text": "text" * 20}]):
            with self.subTest(value):
                self.assertEqual(value, support.nix_value(
                    options_doc.nix(value)))

    def test_roles_become_code(self):
        self.assertEqual("See `a.b`, `/etc/x`.", options_doc.wrapped(
            "See {option}`a.b`,\n{file}`/etc/x`.\n"))


if __name__ == "__main__":
    unittest.main()
