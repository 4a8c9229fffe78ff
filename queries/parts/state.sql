-- The newest rows of each task by then. All tasks have rows within 20 minutes.
SELECT *
FROM (SELECT t.*, s.ts AS seen_at, max(t.ts) OVER (PARTITION BY t.task_id, t.tid) AS newest_ts
      FROM task_states t
      JOIN snapshot s ON t.ts <= s.ts AND t.ts > s.ts - 1200000000000
      WHERE t.ts >= $from - 1200000000000 AND t.ts < $to)
WHERE ts = newest_ts
