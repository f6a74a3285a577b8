"""What tests leave out is found in what ctest writes down."""

import os
import sys
import unittest

import source_tree

sys.path.insert(0, os.path.join(source_tree.ROOT, "tests", "support"))
# pylint: disable=wrong-import-position
import not_run  # noqa: E402

LOG = """Start testing: Nov 25 23:29 UTC
----------------------------------------------------------
1/4 Testing: nix/test_boot
1/4 Test: nix/test_boot
Command: "python3" "test_boot.py" "-v"
Output:
----------------------------------------------------------
setUpModule (__main__) ... skipped "no 'root' here"

----------------------------------------------------------
Ran 0 tests in 0.000s

OK (skipped=1)
<end of output>
2/4 Testing: hook/test_hang
2/4 Test: hook/test_hang
test_freeze (__main__.Frozen.test_freeze) ...
NOTE: frozen file systems are not tested here: no loop device
ok
test_thaw (__main__.Frozen.test_thaw) ...
NOTE: frozen file systems are not tested here: no loop device
ok
test_sub (__main__.Sub.test_sub) ...
  test_sub (__main__.Sub.test_sub) [case] ... skipped 'a part'
test_doc (__main__.Doc.test_doc)
What it shows. ... skipped 'with a docstring'
<end of output>
3/4 Test: storage/queue/Readers.Group
[ RUN      ] Readers.Group
/src/readers_test.cc:104: Skipped
NOT RUN: needs root

[  SKIPPED ] Readers.Group (0 ms)
<end of output>
4/4 Test: storage/queue/Readers.Owner
[       OK ] Readers.Owner (0 ms)
"""


class NotRun(unittest.TestCase):
    def test_everything_left_out_is_found(self):
        self.assertEqual([
            ("nix/test_boot", "no 'root' here"),
            ("hook/test_hang",
             "frozen file systems are not tested here: no loop device"),
            ("hook/test_hang test_sub", "a part"),
            ("hook/test_hang", "with a docstring"),
            ("storage/queue/Readers.Group", "needs root"),
        ], not_run.left_out(LOG.splitlines(keepends=True)))


if __name__ == "__main__":
    unittest.main()
