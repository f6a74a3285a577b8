"""What comes into the queue other than by the inbox, and what leaves roots."""

import os
import sqlite3
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import nginx
import private_nix
import world


class IntakeCase(world.WorldTest):
    """A Nix without hook, and a daemon that is not yet running."""

    def setUp(self):
        super().setUp()
        self.make_nix()  # without hook: tests run it, or do without
        self.cache = binary_cache.BinaryCache(os.path.join(self.base, "c"))
        self.queue = self.make_queue(
            [{"name": "c", "url": "file://" + self.cache.directory}],
            start=False)

    def build(self, name):
        return self.nix.build(private_nix.derivation(
            name, f"echo {name} {self.salt} > $out"))[0]

    def root(self, path, days_old=0):
        os.makedirs(self.nix.roots_dir, exist_ok=True)
        link = os.path.join(self.nix.roots_dir, os.path.basename(path))
        if not os.path.lexists(link):
            os.symlink(path, link)
        subprocess.run(["touch", "-h", "-d", f"{days_old} days ago", link],
                       check=True)
        return link


class Intake(IntakeCase):

    def test_the_spool_is_read_at_start(self):
        first, second = self.build("first"), self.build("second")
        self.assertEqual(0, self.queue.run_hook([first]).returncode)
        file = os.path.join(self.queue.state_dir, "queue.db")
        lock = sqlite3.connect(file, isolation_level=None)
        self.addCleanup(lock.close)
        lock.execute("BEGIN IMMEDIATE")
        self.assertEqual(0, self.queue.run_hook([second]).returncode)
        lock.execute("ROLLBACK")
        spool = os.path.join(self.queue.state_dir, "spool")
        self.assertEqual(1, len(os.listdir(spool)))
        self.queue.start()
        self.queue.wait()
        self.assert_whole(self.cache, [first, second])
        self.assertEqual([], os.listdir(spool))

    def test_a_spool_file_that_was_cut_short_is_kept_and_reported(self):
        path = self.build("whole")
        spool = os.path.join(self.queue.state_dir, "spool")
        os.makedirs(spool)
        with open(os.path.join(spool, "1-1-1.entries"), "w",
                  encoding="ascii") as file:
            file.write("nix-queued spool 1\noutp")
        self.queue.run_hook([path])
        self.queue.start()
        self.queue.wait()
        self.assert_whole(self.cache, [path])
        self.assertEqual(["1-1-1.entries.bad"], os.listdir(spool))
        self.assertIn("1-1-1.entries", self.queue.log())

    def test_unknown_roots_are_adopted(self):
        path = self.build("rooted")
        self.root(path)
        self.queue.start()
        self.queue.wait(path)
        self.assert_whole(self.cache, [path])
        self.assertEqual("root", self.queue.value(
            "SELECT source FROM paths WHERE path = ?", path))

    def test_what_the_hook_said_comes_before_its_root(self):
        path = self.build("built-while-down")
        self.queue.run_hook([path])
        self.queue.start()
        self.assertEqual("hook", self.queue.value(
            "SELECT source FROM paths WHERE path = ?", path))
        self.assertEqual(0, self.queue.value("SELECT count(*) FROM inbox"))

    def test_unknown_roots_are_left_when_told_so(self):
        path = self.build("rooted")
        link = self.root(path)
        self.queue.tables["roots"]["adopt"] = False
        self.queue.write_config()
        self.queue.start()
        self.queue.wait()
        self.assertEqual([], self.cache.narinfo_keys())
        self.assertTrue(os.path.islink(link))

    def test_dangling_roots_are_reported(self):
        gone = os.path.join(self.nix.store_dir,
                            "0123456789abcdfghijklmnpqrsvwxyz-gone")
        self.root(gone)
        self.queue.start()
        self.wait_until(lambda: "0123456789abcdfghijklmnpqrsvwxyz-gone"
                        in self.queue.log(), "the log to name it")
        self.queue.wait()
        self.assertEqual([], self.queue.jobs())

    def test_a_root_that_was_lost_is_made_again(self):
        self.queue.tables["target"] = [
            {"name": "away", "url": f"http://127.0.0.1:{nginx.free_port()}"}]
        self.queue.write_config()
        path = self.build("held")
        self.queue.run_hook([path])
        self.queue.start()
        self.queue.wait_for_rows("SELECT 1 FROM paths WHERE root = 'hold'",
                                 "the hold")
        self.queue.stop()
        link = os.path.join(self.nix.roots_dir, os.path.basename(path))
        os.unlink(link)
        self.queue.start()
        self.wait_until(lambda: os.path.islink(link), "the root")
        self.assertEqual(path, os.readlink(link))

    def test_a_root_that_cannot_be_made_stops_nothing(self):
        self.queue.tables["target"] = [
            {"name": "away", "url": f"http://127.0.0.1:{nginx.free_port()}"}]
        self.queue.write_config()
        first, second = self.build("first"), self.build("second")
        self.queue.run_hook([first, second])
        self.queue.start()
        self.queue.wait_for_rows("SELECT 1 FROM paths WHERE root = 'hold'",
                                 "the holds")
        self.queue.stop()
        links = [os.path.join(self.nix.roots_dir, os.path.basename(path))
                 for path in (first, second)]
        for link in links:
            os.unlink(link)
        with open(links[0], "w", encoding="ascii") as file:
            file.write("mine")
        self.queue.start()
        self.assertIn("no-root", self.queue.log())
        self.assertTrue(os.path.isfile(links[0]))
        self.assertTrue(os.path.islink(links[1]))

    def inbox(self, kind, path, named):
        """An entry as a hook writes it."""
        with sqlite3.connect(os.path.join(self.queue.state_dir,
                                          "queue.db")) as database:
            database.execute(
                "INSERT INTO inbox (kind, path, named, created_unix_ms) "
                "VALUES (?, ?, ?, 1)", (kind, path, named))
        database.close()

    def test_what_nix_did_not_name(self):
        """Its root goes, unless something else needs it."""
        self.queue.tables["target"] = [
            {"name": "away", "url": f"http://127.0.0.1:{nginx.free_port()}"}]
        self.queue.tables[""]["outputs"] = "named"
        self.queue.write_config()
        wanted, unwanted = self.build("wanted"), self.build("unwanted")
        self.queue.run_hook([wanted])
        self.queue.start()
        self.queue.wait_for_rows("SELECT 1 FROM jobs", "the job")
        links = [self.root(path) for path in (wanted, unwanted)]
        for path in (wanted, unwanted):
            self.inbox("output", path, 0)
        self.inbox("derivation", f"{self.nix.store_dir}/"
                   "0123456789abcdfghijklmnpqrsvwxyz-x.drv", 0)
        self.queue.reload()  # looks into the inbox, too
        self.queue.run_hook([])
        self.queue.ctl("retry", wanted)
        self.wait_until(lambda: not os.path.lexists(links[1]),
                        "the root to go", detail=self.queue.log_tail)
        self.assertTrue(os.path.islink(links[0]))
        self.assertEqual(0, self.queue.value(
            "SELECT count(*) FROM derivations"))

    def test_a_derivation_that_is_gone_stays_to_be_seen(self):
        drv = (f"{self.nix.store_dir}/"
               "0123456789abcdfghijklmnpqrsvwxyz-gone.drv")
        self.queue.start()
        self.queue.stop()
        self.inbox("derivation", drv, 1)
        self.queue.start()
        self.queue.wait_for_rows(
            "SELECT 1 FROM queue WHERE state = 'derivation' AND last_error "
            "LIKE '%not in the store%' AND path LIKE '%gone.drv'",
            "the reason in the queue")
        self.assertIn("derivation-gone", self.queue.log())
        self.assertEqual(
            f"would forget {drv} (derivation)\n",
            self.queue.ctl("forget", "--dry-run", drv).stdout)
        self.assertEqual("forgot 1 job\n",
                         self.queue.ctl("forget", drv).stdout)
        self.queue.wait()

    def test_content_addressed_outputs_can_be_collected_afterwards(self):
        expression = private_nix.derivation(
            "ca", f"echo {self.salt} > $out", __contentAddressed="true",
            outputHashMode='"recursive"', outputHashAlgo='"sha256"')
        drv = self.nix.run(["nix-instantiate", "-E",
                            expression]).stdout.strip()
        self.nix.run(["nix-store", "--realise", drv])
        self.queue.start()
        self.queue.stop()
        self.inbox("derivation", drv, 1)
        self.queue.start()
        self.queue.wait_for_rows("SELECT 1 FROM jobs", "the output's job")
        self.queue.wait()
        path = self.queue.value("SELECT path FROM paths")
        self.assert_whole(self.cache, [path])
        os.unlink(os.path.join(self.nix.roots_dir, os.path.basename(path)))

        def collected():
            self.nix.collect_garbage()
            return not self.nix.valid(path)
        self.wait_until(collected, "the daemon to let go of it",
                        detail=self.queue.log_tail)

    def test_many_roots_go_without_waiting_for_the_next_minute(self):
        """They are looked at in pieces, each a small transaction."""
        self.queue.start()
        self.queue.stop()
        file = os.path.join(self.queue.state_dir, "queue.db")
        with sqlite3.connect(file) as database:
            database.executemany(
                "INSERT INTO paths (path, name, root, queued_unix_ms) "
                "VALUES (?, 'gone', 'hold', 1)",
                [(f"{self.nix.store_dir}/{number:032}-gone",)
                 for number in range(5500)])
        database.close()
        self.queue.start()  # makes their roots again
        self.wait_until(lambda: not os.listdir(self.nix.roots_dir),
                        "the roots to go", detail=self.queue.log_tail)
        self.assertEqual(0, self.queue.value(
            "SELECT count(*) FROM paths WHERE root <> 'none'"))
        self.assertLess(os.path.getsize(file + "-wal"), 8 << 20)

    def test_systems_whose_roots_go(self):
        self.queue.tables["roots"]["systems"] = ["no-system"]
        self.queue.write_config()
        result = self.nix.run(["nix-instantiate", "-E", private_nix.derivation(
            "x", f"echo {self.salt} > $out")])
        drv = result.stdout.strip()
        path = self.nix.run(["nix-store", "--realise", drv]).stdout.strip()
        self.queue.run_hook([path], drv)
        self.queue.start()
        self.queue.wait()
        link = os.path.join(self.nix.roots_dir, os.path.basename(path))
        self.wait_until(lambda: not os.path.lexists(link), "the root to go",
                        detail=self.queue.log_tail)
        self.assert_whole(self.cache, [path])


class Pruning(IntakeCase):

    def strangers(self):
        """Things that are none of ours, in the roots directory."""
        directory = self.nix.roots_dir
        os.makedirs(os.path.join(directory, "folder"), exist_ok=True)
        inside = os.path.join(
            directory, "folder", "0123456789abcdfghijklmnpqrsvwxyz-inside")
        os.symlink(os.path.join(self.nix.store_dir,
                                os.path.basename(inside)), inside)
        with open(os.path.join(directory, "note"), "w",
                  encoding="ascii") as file:
            file.write("mine")
        os.symlink("/etc/passwd", os.path.join(directory, "passwd"))
        os.symlink(self.nix.store_dir, os.path.join(directory, "store"))
        os.symlink("../profile", os.path.join(
            directory, "0123456789abcdfghijklmnpqrsvwxyz-relative"))
        for name in os.listdir(directory) + [inside]:
            subprocess.run(["touch", "-h", "-d", "400 days ago",
                            os.path.join(directory, name)], check=True)
        return sorted(os.listdir(directory)), inside

    def test_age_and_open_jobs_decide(self):
        old, young, held = (self.build(name) for name in
                            ("old", "young", "held"))
        self.queue.run_hook([old, young])
        self.queue.start()
        self.queue.wait()
        self.queue.stop()
        self.queue.tables["target"] = [
            {"name": "away", "url": f"http://127.0.0.1:{nginx.free_port()}"}]
        self.queue.write_config()
        self.queue.run_hook([held])
        self.queue.start()
        self.queue.wait_for_rows("SELECT 1 FROM jobs JOIN targets ON "
                                 "targets.id = target_id "
                                 "WHERE name = 'away'", "the open job")
        links = {path: self.root(path, days) for path, days in
                 ((old, 31), (young, 29), (held, 400))}
        dry = self.queue.ctl("prune", "--dry-run").stdout
        self.assertTrue(all(map(os.path.islink, links.values())))
        self.assertIn(os.path.basename(old), dry)
        self.queue.ctl("prune")
        self.assertEqual([False, True, True],
                         [os.path.lexists(link) for link in links.values()])
        self.nix.collect_garbage()
        self.assertEqual([False, True, True],
                         [self.nix.valid(path) for path in links])
        # Age on the command line, and with the daemon down.
        self.queue.stop()
        self.queue.ctl("prune", "--older-than", "28d")
        self.assertEqual([False, False, True],
                         [os.path.lexists(link) for link in links.values()])

    def test_strange_files_are_never_touched(self):
        names, inside = self.strangers()
        path = self.build("old")
        self.queue.run_hook([path])
        self.queue.start()
        self.queue.wait()
        self.root(path, 31)
        self.queue.ctl("prune", "--older-than", "1d")
        self.assertEqual(names, sorted(os.listdir(self.nix.roots_dir)))
        self.assertTrue(os.path.islink(inside))

    def test_a_symlinked_directory_is_not_followed(self):
        path = self.build("old")
        self.root(path, 400)
        elsewhere = os.path.join(self.base, "elsewhere")
        os.rename(self.nix.roots_dir, elsewhere)
        os.symlink(elsewhere, self.nix.roots_dir)
        result = self.queue.ctl("prune", code=None)
        self.assertNotEqual(0, result.returncode)
        self.assertEqual([os.path.basename(path)], os.listdir(elsewhere))

    def test_the_daemon_prunes_by_itself(self):
        self.queue.tables["prune"] = {"interval": "1s"}
        self.queue.write_config()
        path = self.build("old")
        self.queue.run_hook([path])
        self.queue.start()
        self.queue.wait()
        link = self.root(path, 31)
        self.wait_until(lambda: not os.path.lexists(link), "the root to go",
                        detail=self.queue.log_tail)

    def test_a_new_build_renews_the_age(self):
        path = self.build("again")
        self.queue.run_hook([path])
        self.queue.start()
        self.queue.wait()
        link = self.root(path, 400)
        self.queue.run_hook([path])
        self.queue.ctl("prune")
        self.assertTrue(os.path.islink(link))


if __name__ == "__main__":
    unittest.main()
