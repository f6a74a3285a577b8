-- Views for people: times are UTC, the full path comes last. Every program
-- but the hook parses them on opening the file, so they are short.

-- What is open, oldest first: jobs that wait or are being sent, and what
-- hooks have left that is not yet a job.
CREATE VIEW queue AS
SELECT name, target, state, attempts,
       iif(next, datetime(next / 1000, 'unixepoch'), 'at once') AS next_attempt,
       last_error,
       (age / 86400) || 'd ' || time(age, 'unixepoch') AS age,
       path
FROM (
  SELECT p.name, t.name AS target, state, attempts,
         next_attempt_unix_ms AS next, j.error_text AS last_error,
         strftime('%s', 'now') - j.queued_unix_ms / 1000 AS age, path
  FROM jobs j JOIN paths p ON p.id = path_id JOIN targets t ON t.id = target_id
  WHERE state IN ('queued', 'sending')
  UNION ALL
  SELECT substr(path, length(rtrim(path, replace(path, '/', ''))) + 34),
         '', 'inbox', 0, 0, '',
         strftime('%s', 'now') - created_unix_ms / 1000, path
  FROM inbox
  UNION ALL
  SELECT substr(path, length(rtrim(path, replace(path, '/', ''))) + 34),
         '', 'derivation', attempts, next_attempt_unix_ms, error_text,
         strftime('%s', 'now') - queued_unix_ms / 1000, path
  FROM derivations
)
ORDER BY age DESC;
CREATE VIEW parked AS
SELECT p.name, t.name AS target, attempts, j.error_code AS error,
       j.error_text AS reason, b.path AS blocked_by,
       datetime(changed_unix_ms / 1000, 'unixepoch') AS parked, p.path
FROM jobs j JOIN paths p ON p.id = path_id JOIN targets t ON t.id = target_id
     LEFT JOIN paths b ON b.id = blocked_by
WHERE state = 'parked'
ORDER BY changed_unix_ms;
CREATE VIEW history AS
SELECT datetime(changed_unix_ms / 1000, 'unixepoch') AS finished, p.name,
       t.name AS target, outcome, attempts, nar_size_bytes, sent_size_bytes,
       duration_ms, path
FROM jobs j INDEXED BY jobs_history CROSS JOIN paths p ON p.id = path_id
     CROSS JOIN targets t ON t.id = target_id
WHERE state = 'done'
ORDER BY changed_unix_ms DESC;
CREATE VIEW summary AS
SELECT name AS target, health, configured, paused,
       (SELECT count(*) FROM jobs
        WHERE target_id = t.id AND state = 'queued') AS queued,
       (SELECT count(*) FROM jobs
        WHERE target_id = t.id AND state = 'sending') AS sending,
       (SELECT count(*) FROM jobs
        WHERE target_id = t.id AND state = 'parked') AS parked,
       (SELECT count(*) FROM jobs
        WHERE target_id = t.id AND state = 'done') AS done,
       datetime(nullif(success_unix_ms, 0) / 1000, 'unixepoch') AS last_success,
       error_text AS last_error, url
FROM targets t
ORDER BY name;
CREATE VIEW roots AS
SELECT name, root, open_count AS open_jobs,
       datetime(queued_unix_ms / 1000, 'unixepoch') AS queued, path
FROM paths
WHERE root <> 'none'
ORDER BY id;
