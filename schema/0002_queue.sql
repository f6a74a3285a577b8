-- The queue proper: paths, the targets that they go to, and one job for each
-- pair. README.md in this folder explains every column.

CREATE TABLE targets (
  id              INTEGER PRIMARY KEY,
  name            TEXT    NOT NULL UNIQUE,
  url             TEXT    NOT NULL,
  configured      INTEGER NOT NULL DEFAULT 1,  -- 0: left the configuration
  paused          INTEGER NOT NULL DEFAULT 0,  -- 1: by queuectl pause
  health          TEXT    NOT NULL DEFAULT 'unknown'
                  CHECK (health IN ('unknown', 'ok', 'unreachable', 'refused')),
  failures        INTEGER NOT NULL DEFAULT 0,  -- in a row, of the target itself
  retry_unix_ms   INTEGER NOT NULL DEFAULT 0,  -- the next probe, if not ok
  error_code      TEXT    NOT NULL DEFAULT '',
  error_text      TEXT    NOT NULL DEFAULT '',
  error_unix_ms   INTEGER NOT NULL DEFAULT 0,
  success_unix_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE paths (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  path            TEXT    NOT NULL UNIQUE,      -- full store path
  name            TEXT    NOT NULL,             -- without directory and hash
  deriver         TEXT    NOT NULL DEFAULT '',  -- full path of the .drv, or ''
  system          TEXT    NOT NULL DEFAULT '',  -- of the deriver, or ''
  source          TEXT    NOT NULL DEFAULT 'hook',
  nar_size_bytes  INTEGER NOT NULL DEFAULT 0,   -- 0: not yet asked
  root            TEXT    NOT NULL DEFAULT 'none'
                  CHECK (root IN ('none', 'hold', 'pin')),
  job_count       INTEGER NOT NULL DEFAULT 0,   -- kept by the triggers below
  open_count      INTEGER NOT NULL DEFAULT 0,   -- of these: not done
  queued_unix_ms  INTEGER NOT NULL
) STRICT;
CREATE INDEX paths_rooted ON paths (root, id) WHERE root <> 'none';
CREATE INDEX paths_finished ON paths (id)
  WHERE root = 'hold' AND open_count = 0;
CREATE INDEX paths_unused ON paths (id) WHERE root = 'none' AND job_count = 0;

CREATE TABLE jobs (
  id                   INTEGER PRIMARY KEY AUTOINCREMENT,
  path_id              INTEGER NOT NULL REFERENCES paths (id),
  target_id            INTEGER NOT NULL REFERENCES targets (id),
  state                TEXT    NOT NULL DEFAULT 'queued'
                       CHECK (state IN ('queued', 'sending', 'done', 'parked')),
  outcome              TEXT    NOT NULL DEFAULT ''  -- of what is done
                       CHECK (outcome IN ('', 'sent', 'present', 'skipped',
                                          'gone')),
  attempts             INTEGER NOT NULL DEFAULT 0,
  next_attempt_unix_ms INTEGER NOT NULL DEFAULT 0,  -- queued: 0 is at once
  lease_unix_ms        INTEGER NOT NULL DEFAULT 0,  -- sending: claimed until
  error_code           TEXT    NOT NULL DEFAULT '',
  error_text           TEXT    NOT NULL DEFAULT '',
  blocked_by           INTEGER REFERENCES paths (id),  -- a parked reference
  sent_size_bytes      INTEGER NOT NULL DEFAULT 0,
  duration_ms          INTEGER NOT NULL DEFAULT 0,
  queued_unix_ms       INTEGER NOT NULL,
  changed_unix_ms      INTEGER NOT NULL,
  UNIQUE (path_id, target_id)
) STRICT;
CREATE INDEX jobs_queued
  ON jobs (target_id, next_attempt_unix_ms, id, queued_unix_ms)
  WHERE state = 'queued';
CREATE INDEX jobs_sending ON jobs (target_id, lease_unix_ms)
  WHERE state = 'sending';
CREATE INDEX jobs_parked ON jobs (target_id) WHERE state = 'parked';
CREATE INDEX jobs_done
  ON jobs (target_id, changed_unix_ms, outcome, sent_size_bytes)
  WHERE state = 'done';
CREATE INDEX jobs_history ON jobs (changed_unix_ms) WHERE state = 'done';
CREATE INDEX jobs_blocked ON jobs (blocked_by, target_id)
  WHERE blocked_by IS NOT NULL;

-- What makes "has it an open job?" a look at one row.
CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
  UPDATE paths SET job_count = job_count + 1,
                   open_count = open_count + (NEW.state <> 'done')
  WHERE id = NEW.path_id;
END;
CREATE TRIGGER jobs_changed AFTER UPDATE OF state ON jobs
WHEN (OLD.state = 'done') <> (NEW.state = 'done') BEGIN
  UPDATE paths SET open_count = open_count + (NEW.state <> 'done')
                                           - (OLD.state <> 'done')
  WHERE id = NEW.path_id;
END;
CREATE TRIGGER jobs_removed AFTER DELETE ON jobs BEGIN
  UPDATE paths SET job_count = job_count - 1,
                   open_count = open_count - (OLD.state <> 'done')
  WHERE id = OLD.path_id;
END;

-- Derivations whose outputs the hook could not tell (content-addressed): the
-- daemon asks Nix until it knows.
CREATE TABLE derivations (
  id                   INTEGER PRIMARY KEY AUTOINCREMENT,
  path                 TEXT    NOT NULL UNIQUE,
  source               TEXT    NOT NULL DEFAULT 'hook',
  attempts             INTEGER NOT NULL DEFAULT 0,
  next_attempt_unix_ms INTEGER NOT NULL DEFAULT 0,  -- 0: at once
  error_text           TEXT    NOT NULL DEFAULT '',
  queued_unix_ms       INTEGER NOT NULL
) STRICT;
CREATE INDEX derivations_due ON derivations (next_attempt_unix_ms);
