#!/usr/bin/env python3
"""Runs the benchmarks and prints Markdown tables; see run.sh."""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
# pylint: disable=wrong-import-position
import idle
import uploads

sys.path.insert(0, os.path.join(os.path.dirname(HERE), "support"))
import private_nix
import queued


def hook_table(runs):
    printed = subprocess.run(
        [sys.executable, os.path.join(HERE, "hook.py"), "--json", "--runs",
         str(runs), queued.HOOK], check=True, stdout=subprocess.PIPE).stdout
    yield (f"| the hook: median (p99) of {runs} runs, ms | static no-op | "
           "no-op + 4 KiB append + fdatasync | queued-hook | hook / append |")
    yield "|---|---|---|---|---|"
    for row in json.loads(printed):
        cells = [f"{row[name]['median']:.2f} ({row[name]['p99']:.2f})"
                 for name in ("no-op", "append", "hook")]
        yield (f"| {row['case']} | {' | '.join(cells)} | "
               f"{row['ratio']:.2f} |")


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("hook", "uploads", "idle"))
    parser.add_argument("--hook-runs", type=int, default=300)
    parser.add_argument("--idle-seconds", type=int, default=180)
    arguments = parser.parse_args()
    print(f"{datetime.date.today()}, {os.cpu_count()} x {processor()}, "
          f"{platform.system()} {platform.release()}\n")
    base = tempfile.mkdtemp(prefix="nixq-", dir="/tmp")
    try:
        for name, lines in (
                ("hook", lambda: hook_table(arguments.hook_runs)),
                ("uploads", lambda: uploads.table(os.path.join(base, "u"))),
                ("idle", lambda: idle.table(os.path.join(base, "i"),
                                            arguments.idle_seconds))):
            if arguments.only in (None, name):
                for line in lines():
                    print(line, flush=True)
                print()
    finally:
        private_nix.remove_tree(base)


if __name__ == "__main__":
    main()
