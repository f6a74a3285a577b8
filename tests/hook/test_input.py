#!/usr/bin/env python3
"""Bad input is refused token by token; the rest goes on."""

import os
import random
import unittest

from hook_world import HookTest, PATIENCE, store_name

# What the kernel passes in one variable: 32 pages, with name and NUL.
MAX_VALUE_BYTES = 128 * 1024 - len("OUT_PATHS=") - 1


class Input(HookTest):

    def check_refused(self, token, **variables):
        """`token` is refused with one line; the good one beside it stays."""
        good = self.add_path("good")
        result = self.run_hook(OUT_PATHS=f"{token} {good}", **variables)
        self.assertEqual((result.code, result.out), (0, ""), token)
        self.assertEqual(len(result.lines), 1, result)
        self.assertTrue(result.lines[0].startswith(
            "queued-hook: refused in OUT_PATHS: "), result)
        self.assertLess(len(result.err), 500, result)
        self.assertTrue(all(" " <= char != "\x7f" for char in result.err[:-1]),
                        result)
        self.assertEqual(self.paths()[-1:], [good])
        self.assert_held(good)
        os.unlink(self.database)
        for ending in ("-wal", "-shm"):
            if os.path.exists(self.database + ending):
                os.unlink(self.database + ending)

    def test_bad_tokens(self):
        digest = "0" * 32
        store = self.store
        for token in (
                "relative", "./relative", "../etc/passwd", "/", "/etc/passwd",
                store, f"{store}/", f"{store}//{digest}-a",
                f"{store}/{digest}-a/", f"{store}/{digest}-a/bin/sh",
                f"{store}/../store/{digest}-a", f"{store}/..", f"{store}/.",
                f"{store}/.links", f"{store}/{digest}", f"{store}/{digest}-",
                f"{store}/{digest}-.", f"{store}/{digest}-..",
                f"{store}/{digest[1:]}-a", f"{store}/{digest[1:]}e-a",
                f"{store}/{digest[1:]}A-a", f"{store}/{digest}_a",
                f"{store}/{digest}-a*b", f"{store}/{digest}-a\nb",
                f"{store}/{digest}-a\tb", f"\n{store}/{digest}-a",
                f"{store}/{digest}-a\n", f"{store}/{digest}-ä",
                f"{store}/{digest}-\x1b[31m", f"{store}x/{digest}-a",
                f"{store}/{digest}-{'x' * 212}", "'" * 5, "$(reboot)",
                f"{store}/{digest}-a;reboot", "x" * 100000):
            with self.subTest(token=token[:80]):
                self.check_refused(token)

    def test_bytes_that_are_no_text(self):
        for byte in (b"\x01", b"\x7f", b"\x80", b"\xff", b"\xc3\x28"):
            token = os.fsdecode(
                os.fsencode(self.store) + b"/" + b"0" * 32 + b"-" + byte)
            with self.subTest(byte=byte):
                self.check_refused(token)

    def test_longest_name(self):
        path = os.path.join(self.store, store_name("x" * 211))
        result = self.run_hook(OUT_PATHS=path)
        self.assert_silent(result)
        self.assertEqual(self.paths(), [path])
        self.assert_held(path)

    def test_bad_drv_path(self):
        output = self.add_path()
        for bad in ("hello.drv", "/etc/passwd", output, "../x.drv",
                    f"{self.store}/{'0' * 32}-a\n.drv", "x" * 100000):
            result = self.run_hook(DRV_PATH=bad, OUT_PATHS=output)
            self.assertEqual((result.code, result.out, len(result.lines)),
                             (0, "", 1), result)
            self.assertIn("refused in DRV_PATH", result.err)
            self.assertLess(len(result.err), 500, result)
        self.assertEqual({row[:3] for row in self.rows()},
                         {("output", output, "")})

    def test_nothing_but_bad_tokens(self):
        result = self.run_hook(OUT_PATHS="a b c")
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertEqual(len(result.lines), 4, result)
        self.assertFalse(os.path.exists(self.state))
        strict = self.run_hook(OUT_PATHS="a b c", NIX_QUEUED_STRICT="1")
        self.assertEqual(strict.code, 1)

    def test_as_many_tokens_as_a_variable_holds(self):
        good = self.add_path("good")
        count = (MAX_VALUE_BYTES - len(good) - 1) // 2
        result = self.run_hook(OUT_PATHS="x " * count + good)
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertEqual(len(result.lines), 11, result)
        self.assertIn(f"and {count - 10} more", result.lines[-1])
        self.assertLess(len(result.err), 5000)
        self.assertLess(result.seconds, PATIENCE)
        self.assertEqual(self.paths(), [good])

    def test_as_many_bytes_as_a_variable_holds(self):
        result = self.run_hook(OUT_PATHS="x" * MAX_VALUE_BYTES,
                               DRV_PATH="y" * 100000)
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertLess(len(result.err), 2000)

    def test_derivation_with_bad_outputs(self):
        """What a .drv says is not trusted either."""
        outside = self.add_derivation("evil", [("out", "/etc/passwd")])
        above = self.add_derivation(
            "evil", [("out", f"{self.store}/../../etc/passwd")])
        for drv in (outside, above):
            self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual({row[0] for row in self.rows()}, {"derivation"})
        self.assertFalse(os.path.isdir(self.roots) and os.listdir(self.roots))

    def test_derivation_of_absurd_size(self):
        output, drv = self.add_build()
        with open(drv, "r+b") as file:
            file.truncate(1 << 40)  # sparse
        self.assert_silent(self.run_hook(DRV_PATH=drv, OUT_PATHS=output))
        self.assertEqual({row[:2] for row in self.rows()},
                         {("output", output), ("derivation", drv)})

    def test_large_derivation(self):
        output = self.add_path()
        drv = self.add_derivation("large", [("out", output)])
        with open(drv, encoding="ascii") as file:
            text = file.read()
        inputs = ",".join(f'"{self.store}/{store_name("in")}"'
                          for _ in range(50000))
        with open(drv, "w", encoding="ascii") as file:
            file.write(text.replace("],[],[],", f"],[],[{inputs}],", 1))
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertEqual(self.rows("kind, path"), [("output", output)])

    def test_random_tokens(self):
        seed = random.randrange(1 << 32)
        print(f"\nseed {seed}")
        dice = random.Random(seed)
        good = self.add_path("good")
        bad = []
        for _ in range(3000):
            token = bytearray(os.fsencode(good))
            for _ in range(dice.randint(1, 4)):
                token[dice.randrange(len(self.store) + 1)] = dice.choice(
                    [byte for byte in range(1, 256) if byte != 0x20])
            # Only what the change really broke counts as bad.
            if bytes(token) != os.fsencode(good):
                bad.append(os.fsdecode(bytes(token)))
        for start in range(0, len(bad), 500):
            tokens = bad[start:start + 500] + [good]
            dice.shuffle(tokens)
            result = self.run_hook(OUT_PATHS=" ".join(tokens))
            self.assertEqual((result.code, len(result.lines)), (0, 11))
        self.assertEqual(set(self.paths()), {good})


if __name__ == "__main__":
    unittest.main()
