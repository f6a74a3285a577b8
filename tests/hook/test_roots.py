#!/usr/bin/env python3
"""GC roots: made, renewed, and never at the cost of anything else."""

import os
import time
import unittest

from hook_world import HookTest, PATIENCE


class Roots(HookTest):

    def check_kept_with_warning(self, output, drv, text):
        result = self.run_hook(DRV_PATH=drv)
        self.assertEqual((result.code, result.out, len(result.lines)),
                         (0, "", 1), result)
        self.assertIn(text, result.err)
        self.assertLess(result.seconds, PATIENCE)
        self.assertEqual(self.paths(), [output])

    def test_building_again_renews_the_age(self):
        output, drv = self.add_build()
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        root = self.root(output)
        long_ago = time.time() - 90 * 86400
        os.utime(root, (long_ago, long_ago), follow_symlinks=False)
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assertGreater(os.lstat(root).st_mtime, time.time() - 3600)
        self.assert_held(output)
        # No temporary link stays behind.
        self.assertEqual(os.listdir(self.roots), [os.path.basename(output)])

    def test_root_that_points_elsewhere_is_put_right(self):
        output, drv = self.add_build()
        os.makedirs(self.roots)
        os.symlink("/etc/passwd", self.root(output))
        self.assert_silent(self.run_hook(DRV_PATH=drv))
        self.assert_held(output)

    def test_roots_directory_that_is_a_symlink(self):
        output, drv = self.add_build()
        elsewhere = os.path.join(self.base, "elsewhere")
        os.mkdir(elsewhere)
        os.makedirs(os.path.dirname(self.roots))
        os.symlink(elsewhere, self.roots)
        self.check_kept_with_warning(output, drv, "no GC root was made")
        self.assertEqual(os.listdir(elsewhere), [])
        self.assertEqual(os.readlink(self.roots), elsewhere)

    def test_roots_directory_that_is_a_dangling_symlink(self):
        output, drv = self.add_build()
        os.makedirs(os.path.dirname(self.roots))
        nowhere = os.path.join(self.base, "nowhere")
        os.symlink(nowhere, self.roots)
        self.check_kept_with_warning(output, drv, "no GC root was made")
        self.assertFalse(os.path.exists(nowhere))

    def test_roots_directory_that_is_a_file(self):
        output, drv = self.add_build()
        os.makedirs(os.path.dirname(self.roots))
        with open(self.roots, "w", encoding="ascii") as file:
            file.write("precious")
        self.check_kept_with_warning(output, drv, "no GC root was made")
        with open(self.roots, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_file_where_a_root_should_be(self):
        output, drv = self.add_build()
        os.makedirs(self.roots)
        with open(self.root(output), "w", encoding="ascii") as file:
            file.write("precious")
        self.check_kept_with_warning(output, drv, "no GC root: ")
        with open(self.root(output), encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_directory_where_a_root_should_be(self):
        output, drv = self.add_build()
        os.makedirs(os.path.join(self.root(output), "precious"))
        self.check_kept_with_warning(output, drv, "no GC root: ")
        self.assertEqual(os.listdir(self.root(output)), ["precious"])

    def test_one_bad_root_does_not_keep_others_from_being_made(self):
        paths = sorted(self.add_path(f"p{n}") for n in range(5))
        os.makedirs(self.root(paths[2]))
        result = self.run_hook(OUT_PATHS=" ".join(paths))
        self.assertEqual((result.code, len(result.lines)), (0, 1), result)
        self.assertEqual(self.paths(), paths)
        self.assert_held(*paths[:2], *paths[3:])

    def test_many_bad_roots_are_a_few_lines(self):
        paths = sorted(self.add_path(f"p{n}") for n in range(40))
        for path in paths:
            os.makedirs(self.root(path))
        result = self.run_hook(OUT_PATHS=" ".join(paths))
        self.assertEqual((result.code, len(result.lines)), (0, 11), result)
        self.assertIn("and 30 more", result.lines[-1])
        self.assertEqual(self.paths(), paths)


if __name__ == "__main__":
    unittest.main()
