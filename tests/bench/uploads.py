"""Uploading to nginx on loopback, beside `nix copy` of the same paths.

The paths are in the queue, as hooks leave them while the daemon is down; each
figure is the time from the start of the daemon, or of `nix copy`, to the end
of the last upload, with every cache of the client cold: the median of several
runs, taken in turns.
"""

import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))
# pylint: disable=wrong-import-position
import binary_cache
import nginx
import private_nix
import queued

TREES = ("/usr/lib", "/usr/share")
TREES_BYTES = 200_000_000
RUNS = 3

LAYERS = """
let
  mod = a: b: a - b * (a / b);
  one = d: n: below: derivation {
    name = "layer-${toString d}-${toString n}";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    salt = "@salt@";
    below = if below == [ ] then [ ]
      else map (i: builtins.elemAt below (mod (n * 7 + i * 11) 34)) [ 0 1 2 ];
    args = [ "-c" "echo $name $salt $below > $out" ];
  };
  layer = below: d: builtins.genList (n: one d n below) 34;
  top = builtins.foldl' layer [ ] (builtins.genList (d: d) 30);
in derivation {
  name = "top";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  inherit top;
  args = [ "-c" "echo $top > $out" ];
}
"""


def tree_bytes(directory):
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                pass
    return total


def add_trees(nix):
    """200 MB of real files as store paths of 1 to 60 MB each."""
    paths = []
    size = 0
    for tree in TREES:
        for entry in sorted(os.scandir(tree), key=lambda entry: entry.name):
            if size >= TREES_BYTES or not entry.is_dir(follow_symlinks=False):
                continue
            here = tree_bytes(entry.path)
            if not 1_000_000 < here < 60_000_000:
                continue
            result = nix.run(["nix-store", "--add", entry.path], check=False)
            if result.returncode == 0:
                paths.append(result.stdout.strip())
                size += here
    return paths, size


class Uploads:

    def __init__(self, base):
        self.base = base
        self.places = 0
        self.nix = private_nix.PrivateNix(self.place())
        self.nix.start_daemon()
        self.key, _ = self.nix.generate_key("bench-1")

    def place(self):
        self.places += 1
        directory = os.path.join(self.base, str(self.places))
        os.makedirs(directory)
        return directory

    def close(self):
        self.nix.remove()

    def time_queued(self, paths, server):
        """(seconds, peak memory in bytes)"""
        queue = queued.Queued(
            self.place(), self.nix, [{"url": server.url}],
            {"": {"log-level": "warning"}}, key_files=[self.key])
        try:
            queue.ctl("add", "--closure", *paths, limit=600)
            started = time.time()
            queue.start()
            queue.wait(limit=1800)
            # To the last row: for a cache that has everything there is no
            # new narinfo.
            ended = queue.value(
                "SELECT max(changed_unix_ms) FROM jobs") / 1000
            with open(f"/proc/{queue.pid}/status", encoding="ascii") as file:
                peak = [int(line.split()[1]) * 1024 for line in file
                        if line.startswith("VmHWM:")][0]
            self.check(paths, server)
            return ended - started, peak
        finally:
            queue.end()
            # The next daemon must not find them and begin by itself.
            private_nix.remove_tree(self.nix.roots_dir)

    def time_nix_copy(self, paths, server):
        started = time.time()
        self.nix.run(["nix", "copy", "--to", f"{server.url}?compression=zstd"
                      f"&secret-key={self.key}", *paths], limit=1800,
                     XDG_CACHE_HOME=self.place())
        ended = time.time()
        self.check(paths, server)
        return ended - started

    def check(self, paths, server):
        missing = binary_cache.BinaryCache(server.directory).lacks(
            self.nix.closure(paths))
        if missing:
            raise AssertionError(f"not uploaded: {missing[:3]}...")

    def compare(self, what, paths):
        """Two Markdown rows: into an empty cache, and into a full one."""
        times = {name: [] for name in ("queued", "nix", "queued again",
                                       "nix again")}
        peaks = []
        for _ in range(RUNS):
            for name in ("queued", "nix"):
                server = nginx.Nginx(self.place())
                try:
                    for again in ("", " again"):
                        if name == "nix":
                            seconds = self.time_nix_copy(paths, server)
                        else:
                            seconds, peak = self.time_queued(paths, server)
                            peaks.append(peak)
                        times[name + again].append(seconds)
                finally:
                    server.stop()
                    private_nix.remove_tree(server.directory)
        for again, note in (("", ""), (" again", ", all there already")):
            ours = statistics.median(times["queued" + again])
            theirs = statistics.median(times["nix" + again])
            yield (f"| {what}{note} | {ours:.2f} s | {theirs:.2f} s | "
                   f"{theirs / ours:.1f} | {max(peaks) / 1e6:.0f} MB |")


def table(base):
    """The lines of the table, as they come."""
    version = ".".join(map(str, private_nix.nix_version()))
    yield (f"| to nginx on loopback, zstd | queued | nix copy {version} | "
           "times faster | peak memory |")
    yield "|---|---|---|---|---|"
    uploads = Uploads(base)
    try:
        salt = os.urandom(8).hex()
        trees, size = add_trees(uploads.nix)
        yield from uploads.compare(
            f"{size / 1e6:.0f} MB of real trees in {len(trees)} paths", trees)
        yield from uploads.compare(
            "1021 small paths, 30 layers, 3 references each",
            uploads.nix.build(LAYERS.replace("@salt@", salt), limit=1800))
        yield from uploads.compare(
            "1000 small paths, a chain",
            uploads.nix.build(private_nix.chain("chain", 1000, salt),
                              limit=1800))
    finally:
        uploads.close()
