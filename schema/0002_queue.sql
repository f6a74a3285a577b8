-- The queue proper: paths, the targets that they go to, and one job for each
-- pair. See README.md in this folder.

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
  id              INTEGER PRIMARY KEY,
  path            TEXT    NOT NULL UNIQUE,      -- full store path
  deriver         TEXT    NOT NULL DEFAULT '',  -- full path of the .drv, or ''
  system          TEXT    NOT NULL DEFAULT '',  -- of the deriver, or ''
  source          TEXT    NOT NULL DEFAULT 'hook',
  nar_size_bytes  INTEGER NOT NULL DEFAULT 0,   -- 0: not yet asked
  root            TEXT    NOT NULL DEFAULT 'none'
                  CHECK (root IN ('none', 'hold', 'pin')),
  queued_unix_ms  INTEGER NOT NULL
) STRICT;
CREATE INDEX paths_held ON paths (id) WHERE root = 'hold';

CREATE TABLE jobs (
  id                   INTEGER PRIMARY KEY,
  path_id              INTEGER NOT NULL REFERENCES paths (id),
  target_id            INTEGER NOT NULL REFERENCES targets (id),
  state                TEXT    NOT NULL DEFAULT 'queued'
                       CHECK (state IN ('queued', 'sending', 'done', 'parked')),
  outcome              TEXT    NOT NULL DEFAULT ''  -- of what is done
                       CHECK (outcome IN ('', 'sent', 'present', 'skipped',
                                          'gone')),
  attempts             INTEGER NOT NULL DEFAULT 0,
  next_attempt_unix_ms INTEGER NOT NULL DEFAULT 0,
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
CREATE INDEX jobs_due ON jobs (target_id, next_attempt_unix_ms, id)
  WHERE state = 'queued';
CREATE INDEX jobs_sending ON jobs (target_id) WHERE state = 'sending';
CREATE INDEX jobs_parked ON jobs (target_id) WHERE state = 'parked';
CREATE INDEX jobs_finished ON jobs (changed_unix_ms) WHERE state = 'done';
CREATE INDEX jobs_blocked ON jobs (blocked_by, target_id)
  WHERE blocked_by IS NOT NULL;

-- Derivations whose outputs the hook could not tell (content-addressed): the
-- daemon asks Nix until it knows.
CREATE TABLE derivations (
  id                   INTEGER PRIMARY KEY,
  path                 TEXT    NOT NULL UNIQUE,
  source               TEXT    NOT NULL DEFAULT 'hook',
  attempts             INTEGER NOT NULL DEFAULT 0,
  next_attempt_unix_ms INTEGER NOT NULL DEFAULT 0,
  error_text           TEXT    NOT NULL DEFAULT '',
  queued_unix_ms       INTEGER NOT NULL
) STRICT;
