#!/usr/bin/env python3
"""How long Nix waits for the hook, beside the cheapest programs there are.

  tests/bench/hook.py [--runs N] [--jobs N] [--directory DIR] [--json] HOOK

Times are from before the program is started to after it has ended. `no-op` is
a static program that does nothing; `append` one that appends 4 KiB to a file
and flushes it (fdatasync), which is the least that keeps anything. Prints a
table; passes or fails nothing.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "hook"))
# pylint: disable=wrong-import-position
import history  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(HERE), "support"))
import private_nix
import queued

UPLOADS = 100
UPLOAD_BYTES = 8_000_000

NIX32 = "0123456789abcdfghijklmnpqrsvwxyz"


def build_programs(directory):
    compiler = os.environ.get("CXX", "c++")
    static = [] if sys.platform == "darwin" else ["-static"]
    for name in ("noop", "append"):
        subprocess.run([compiler, "-O2", *static, "-o",
                        os.path.join(directory, name),
                        os.path.join(HERE, "programs", f"{name}.cc")],
                       check=True)
    subprocess.run([compiler, "-std=c++17", "-O2", "-o",
                    os.path.join(directory, "launch"),
                    os.path.join(HERE, "programs", "launch.cc")], check=True)


def make_builds(store, count):
    """`count` derivations with one output each, that were just built."""
    paths = []
    for number in range(count):
        def name(suffix):
            return os.path.join(store, "".join(
                random.choice(NIX32) for _ in range(32)) + suffix)
        output = name(f"-bench-{number}")
        with open(output, "w", encoding="ascii"):
            pass
        drv = name(f"-bench-{number}.drv")
        with open(drv, "w", encoding="ascii") as file:
            file.write(f'Derive([("out","{output}","","")],[],[],'
                       '"x86_64-linux","/bin/sh",[],[])')
        paths.append(drv)
    return paths


class Bench:

    def __init__(self, base, hook, runs):
        self.base = base
        self.runs = runs
        self.state = os.path.join(base, "state")
        self.store = os.path.join(base, "store")
        os.mkdir(self.store)
        queued.BIN = queued.BIN or os.path.dirname(os.path.abspath(hook))
        build_programs(base)
        # As installed: written in one go, not as a linker leaves it.
        self.hook = shutil.copy(hook, os.path.join(base, "queued-hook"))
        for name in ("noop", "append"):
            shutil.copy(os.path.join(base, name),
                        os.path.join(base, f"{name}-copy"))
        self.programs = [os.path.join(base, "noop-copy"),
                         os.path.join(base, "append-copy"), self.hook]
        self.results = []

    def measure(self, title, at_once=1):
        """300 runs of each program, every hook with a new output."""
        drv_paths = os.path.join(self.base, "drv_paths")
        with open(drv_paths, "w", encoding="ascii") as file:
            file.write("\n".join(make_builds(self.store, self.runs)) + "\n")
        environment = {
            "NIX_STORE_DIR": self.store,
            "NIX_STATE_DIR": os.path.join(self.base, "var"),
            "NIX_QUEUED_STATE_DIR": self.state,
            "NIX_QUEUED_STRICT": "1",
            "NIXQ_BENCH_FILE": os.path.join(self.base, "appended"),
            "OUT_PATHS": "",
        }
        before = self.count()
        printed = subprocess.run(
            [os.path.join(self.base, "launch"), str(self.runs), str(at_once),
             drv_paths, *self.programs],
            env=environment, check=True, capture_output=True, text=True)
        if printed.stderr:
            sys.exit(f"the hook complained: {printed.stderr}")
        series = [sorted(float(word) / 1000 for word in line.split())
                  for line in printed.stdout.splitlines()]
        row = {"case": title, "spooled": before + self.runs - self.count()}
        for name, times in zip(("no-op", "append", "hook"), series):
            row[name] = {"median": statistics.median(times),
                         "p99": times[int(len(times) * 0.99)]}
        row["ratio"] = row["hook"]["median"] / row["append"]["median"]
        self.results.append(row)

    def measure_while_uploading(self):
        """Beside a daemon that has compressing and sending to do all the
        time: xz, since with zstd it would be done too soon."""
        nix = private_nix.PrivateNix(os.path.join(self.base, "nix"))
        nix.start_daemon()
        store, self.store = self.store, nix.store_dir
        queue = queued.Queued(
            os.path.join(self.base, "queued"), nix,
            [{"url": "file://" + os.path.join(self.base, "cache"),
              "compression": "xz", "compression-level": 1}],
            {"": {"state-dir": self.state, "log-level": "warning"}})
        try:
            file = os.path.join(self.base, "random")
            paths = []
            for _ in range(UPLOADS):
                with open(file, "wb") as out:
                    out.write(os.urandom(UPLOAD_BYTES))
                paths += nix.lines(["nix-store", "--add", file])
            os.makedirs(self.state, exist_ok=True)
            queue.start()
            queue.ctl("add", *paths, limit=600)
            self.measure("daemon uploading")
            self.measure("daemon uploading, 16 at a time", 16)
            if not queue.value("SELECT count(*) FROM jobs JOIN paths "
                               "ON paths.id = path_id WHERE name = 'random' "
                               "AND state IN ('queued', 'sending')"):
                sys.exit("the uploads were over before the measurement was")
        finally:
            self.store = store
            queue.end()
            nix.remove()

    def count(self):
        if not os.path.exists(os.path.join(self.state, "queue.db")):
            return 0
        connection = self.open()
        tables = [row[0] for row in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'")]
        count = connection.execute("SELECT count(*) FROM inbox").fetchone()[0]
        if "paths" in tables:  # the daemon has taken these
            count += connection.execute(
                "SELECT count(*) FROM paths WHERE name LIKE 'bench-%'"
            ).fetchone()[0]
        connection.close()
        return count

    def open(self):
        """As the daemon has it open."""
        connection = sqlite3.connect(os.path.join(self.state, "queue.db"),
                                     isolation_level=None, timeout=60)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        return connection

    def run(self, jobs):
        self.measure("no daemon, new queue")
        daemon = self.open()
        self.measure("idle")
        self.measure("16 at a time", 16)
        daemon.close()
        shutil.rmtree(self.state)
        self.measure_while_uploading()
        shutil.rmtree(self.state)
        daemon = history.make_history(self.state, jobs)
        daemon.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        history.flush(self.state)
        self.measure(f"{jobs:,} jobs")
        self.measure(f"{jobs:,} jobs, 16 at a time", 16)
        daemon.close()


def table(results):
    lines = [f"{'milliseconds: median (p99)':<30}{'no-op':>16}{'append':>16}"
             f"{'queued-hook':>16}{'hook/append':>13}"]
    for row in results:
        cells = "".join(
            f"{row[name]['median']:>8.2f} ({row[name]['p99']:.2f})".rjust(16)
            for name in ("no-op", "append", "hook"))
        lines.append(f"{row['case']:<30}{cells}{row['ratio']:>13.2f}")
        if row["spooled"]:
            lines.append(f"  {row['spooled']} of these went to the spool")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("hook", help="the program, e.g. "
                        "build/release/bin/queued-hook")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1000000,
                        help="done jobs in the long history")
    parser.add_argument("--directory", help="where to work; the disk counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nixq-bench-",
                                     dir=arguments.directory) as base:
        bench = Bench(base, arguments.hook, arguments.runs)
        bench.run(arguments.jobs)
    print(json.dumps(bench.results, indent=2) if arguments.json
          else table(bench.results))


if __name__ == "__main__":
    main()
