-- Oldest first, by the number: as text an age of '9d' sorts after '100d', and
-- a path that is built again keeps its id.
DROP VIEW queue;
CREATE VIEW queue AS
SELECT name, target, state, attempts,
       iif(next, datetime(next / 1000, 'unixepoch'), 'at once') AS next_attempt,
       last_error,
       ((strftime('%s', 'now') - since / 1000) / 86400) || 'd ' ||
       time(strftime('%s', 'now') - since / 1000, 'unixepoch') AS age,
       path
FROM (
  SELECT p.name, t.name AS target, state, attempts,
         next_attempt_unix_ms AS next, j.error_text AS last_error,
         j.queued_unix_ms AS since, path
  FROM jobs j JOIN paths p ON p.id = path_id JOIN targets t ON t.id = target_id
  WHERE state IN ('queued', 'sending')
  UNION ALL
  SELECT substr(path, length(rtrim(path, replace(path, '/', ''))) + 34),
         '', 'inbox', 0, 0, '', created_unix_ms, path
  FROM inbox
  UNION ALL
  SELECT substr(path, length(rtrim(path, replace(path, '/', ''))) + 34),
         '', 'derivation', attempts, next_attempt_unix_ms, error_text,
         queued_unix_ms, path
  FROM derivations
)
ORDER BY since;
DROP VIEW roots;
CREATE VIEW roots AS
SELECT name, root, open_count AS open_jobs,
       datetime(queued_unix_ms / 1000, 'unixepoch') AS queued, path
FROM paths
WHERE root <> 'none'
ORDER BY queued_unix_ms, id;
