"""A queue with a long past: as many done jobs as one asks for."""

import glob
import os
import re
import sqlite3

SOURCE = os.environ.get("NIXQ_SOURCE", os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))

PATHS = """
WITH RECURSIVE counter (n) AS (
  SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < ?1)
INSERT INTO paths (id, path, name, deriver, queued_unix_ms)
SELECT n, printf('/nix/store/%032d-package-%d', n, n),
       printf('package-%d', n),
       printf('/nix/store/%032d-package-%d.drv', n, n), 1700000000000 + n
FROM counter
"""
JOBS = """
INSERT INTO jobs (path_id, target_id, state, outcome, queued_unix_ms,
                  changed_unix_ms)
SELECT id, 1, 'done', 'sent', queued_unix_ms, queued_unix_ms + 1000
FROM paths
"""


def flush(state_dir):
    """Waits until the queue of `state_dir` is on the disk: else the first
    hook has to, for hundreds of megabytes that are not its own."""
    for ending in ("", "-wal"):
        with open(os.path.join(state_dir, "queue.db" + ending), "rb") as file:
            os.fsync(file.fileno())


def make_history(state_dir, count):
    """Makes the queue of `state_dir`, in WAL mode, with `count` done jobs.

    Returns an open connection; nothing of the WAL has been moved into the
    file, so that it holds everything for as long as the connection is open.
    All of it is on the disk.
    """
    os.makedirs(state_dir, exist_ok=True)
    connection = sqlite3.connect(os.path.join(state_dir, "queue.db"),
                                 isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA synchronous = OFF")
    version = 0
    for name in sorted(glob.glob(os.path.join(SOURCE, "schema",
                                              "[0-9]*.sql"))):
        version = int(re.match(r"\d+", os.path.basename(name))[0])
        with open(name, encoding="utf-8") as file:
            connection.executescript(file.read())
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("INSERT INTO targets (id, name, url) "
                       "VALUES (1, 'cache', 'file:///cache')")
    connection.execute("BEGIN")
    connection.execute(PATHS, (count,))
    connection.execute(JOBS)
    connection.execute("COMMIT")
    flush(state_dir)
    return connection
