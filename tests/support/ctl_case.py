"""A test case for queuectl: a daemon with one directory as its cache."""

import os

import binary_cache
import nginx
import private_nix
import queued
import world


class CtlCase(world.WorldTest):

    def setUp(self):
        super().setUp()
        self.make_nix(hook=queued.HOOK)
        self.cache = binary_cache.BinaryCache(os.path.join(self.base, "c"))
        self.queue = self.make_queue([
            {"name": "dir", "url": "file://" + self.cache.directory}])

    def build(self, name):
        return self.nix.build(private_nix.derivation(
            name, f"echo {name} {self.salt} > $out"))[0]

    def switch_target(self, name, url, **keys):
        """Restarts the daemon with only this target."""
        self.queue.stop()
        self.queue.tables["target"] = [{"name": name, "url": url, **keys}]
        self.queue.write_config()
        self.queue.start()

    def go_away(self):
        """From now on there is only a target that cannot be reached."""
        self.switch_target("away", f"http://127.0.0.1:{nginx.free_port()}")

    def open_path(self):
        """A path with one job that waits for the absent target."""
        self.go_away()
        path = self.build("open")
        self.queue.wait_for_rows(
            "SELECT 1 FROM jobs JOIN targets ON targets.id = target_id "
            "WHERE name = 'away' AND state = 'queued'", "the job")
        return path
