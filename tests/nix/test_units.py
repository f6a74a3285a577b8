"""The units of all cases: understood by systemd, and sealed off."""

import os
import unittest

import support
import systemd

# Of the daemon, which speaks to the network, and of the job that prunes.
MOST_EXPOSED = {
    "nix-queued.service": 1.5,
    "prune-arm-cache-roots.service": 1.0,
}

EXAMPLES = os.path.join(support.ROOT, "examples", "systemd")


def all_cases():
    """(file, case) of each that evaluates on NixOS."""
    for file in support.files():
        for case, about in support.cases(file).items():
            if about["class"] == "nixos" and not about["fails"]:
                yield file, case


class Verify(unittest.TestCase):

    def test_systemd_understands_them(self):
        """Each different set of units once: many cases have the same."""
        seen = set()
        for file, case in all_cases():
            units = support.render(file, case).units
            key = tuple(sorted(units.items()))
            if not units or key in seen:
                continue
            seen.add(key)
            with self.subTest(file=file, case=case):
                with systemd.Units(units) as made:
                    self.assertEqual([], made.complaints())
        self.assertTrue(seen)

    def test_a_misspelt_directive_is_found(self):
        units = {"x.service": "[Service]\nExecStart=/x\nProtectHoem=true\n"}
        with systemd.Units(units) as made:
            self.assertTrue(made.complaints())

    def test_a_wrong_time_is_found(self):
        units = dict(support.render("agent", "minimal").units)
        name = "prune-arm-cache-roots.timer"
        units[name] = units[name].replace("weekly", "whenever")
        with systemd.Units(units) as made:
            self.assertTrue(made.complaints())


class Exposure(unittest.TestCase):

    def test_is_low(self):
        # A group of readers needs chgrp, and to be known inside.
        for case in ("minimal", "full", "elsewhere", "adminGroup"):
            with systemd.Units(support.render("agent", case).units) as made:
                for name, limit in MOST_EXPOSED.items():
                    with self.subTest(name, case=case):
                        self.assertLessEqual(made.exposure(name), limit)

    def test_of_an_open_service_is_high(self):
        with systemd.Units({"x.service": "[Service]\nExecStart=/x\n"}) as made:
            self.assertGreater(made.exposure("x.service"), 9)


class Agreement(unittest.TestCase):
    """On NixOS the units are those for other systems, in other words."""

    # Where programs and the configuration are differs.
    MAY_DIFFER = {
        ("Unit", "ConditionPathExists"),
        ("Service", "ExecStart"),
        ("Service", "ExecReload"),
        ("Service", "Environment"),
        ("Unit", "Description"),
    }

    def example(self, name):
        with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
            return systemd.directives(file.read())

    def comparable(self, found):
        return {key: sorted(" ".join(values).split())
                for key, values in found.items() if key not in self.MAY_DIFFER}

    def test_with_the_installed_units(self):
        units = support.render("agent", "minimal").units
        names = [name for name in os.listdir(EXAMPLES)
                 if not name.endswith(".conf")]
        self.assertEqual(sorted(units), sorted(names))
        for name in names:
            with self.subTest(name):
                self.assertEqual(
                    self.comparable(self.example(name)),
                    self.comparable(systemd.directives(units[name])))


if __name__ == "__main__":
    unittest.main()
