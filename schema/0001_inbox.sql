-- The inbox: what hooks of any version write and the daemon has not yet
-- accepted. Frozen: never altered, never dropped, so that a hook and a daemon
-- of different versions understand each other. A hook that finds no database
-- makes one with exactly this table.
CREATE TABLE IF NOT EXISTS inbox (
  id              INTEGER PRIMARY KEY,
  kind            TEXT    NOT NULL CHECK (kind IN ('output', 'derivation')),
  path            TEXT    NOT NULL,             -- full store path
  deriver         TEXT    NOT NULL DEFAULT '',  -- full path of the .drv, or ''
  named           INTEGER NOT NULL DEFAULT 1,   -- 0: not in OUT_PATHS
  source          TEXT    NOT NULL DEFAULT 'hook',
  created_unix_ms INTEGER NOT NULL
) STRICT;
