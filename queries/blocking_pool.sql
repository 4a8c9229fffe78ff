-- blocking_pool: what tokio's pool for blocking work did: the whole of it, its threads, its work.
--
-- The first row is the pool, then come its threads, the busiest first, then the types of its work. A thread is observed
-- from its first to its last sign of life, looked for in the window and in the second before and after it, and is idle
-- while it sleeps outside a task: all other time it is at work. Work is told by polls, one each, so nothing is said of
-- it where those were not recorded. Work was queued from its spawn to its poll; that is known where the spawn was
-- recorded, looked for from a second before the window on. Stretches are clipped to the window.
--
-- Parameters:
--   $from           epoch_ns  start of the window
--   $to             epoch_ns  end of the window
--
-- Columns:
--   what            text      'pool', 'thread' or 'work'
--   name            text      the thread's name, or the type of work; null of the pool, and where not known
--   threads         count     threads: 1 of a thread; of work, on how many it ran
--   observed        ns        how long the threads were observed in the window; null of work
--   busy            ns        at work; of work, what it took
--   busy_share      share     part of `observed`; null of work
--   idle_share      share     part of `observed`
--   works           count     pieces of work that began in the window; null where polls were not recorded
--   longest         ns        the longest of them
--   queued          count     of these, those of which it is known how long they were queued
--   queued_mean     ns        how long these were queued, the mean, rounded down
--   queued_longest  ns        the longest that one was queued
--
-- Further columns:
--   idle            ns        asleep outside a task; null of work
--   tid             id        the thread; null of pool and work
WITH
pool AS MATERIALIZED (
    SELECT tid, name
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
    WHERE n = 1 AND role = 'blocking'
),
-- A worker's own loop is a task of tokio's; inside it and nothing else the worker is outside a task.
loops AS (
    SELECT DISTINCT o.task_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns) o
    JOIN task_types y ON y.type_id = o.type_id
    WHERE y.kind = 'worker'
),
-- Asleep outside a task, from `ts` to `ready`. Before and after the window it comes to nothing.
away AS (
    SELECT tid, task_id, min(ts) AS first_ts, max(ts + dur) AS last_ts,
           sum(greatest(least(ready, $to) - greatest(ts, $from), 0)) AS asleep
    FROM (
        SELECT tid, task_id, ts, dur, CASE WHEN state = 'R' THEN ts ELSE ts + dur - coalesce(run_queue, 0) END AS ready
        FROM off_cpu
        WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000 AND tid IN (SELECT tid FROM pool)
    )
    GROUP BY tid, task_id
),
-- Pieces of work, with the spawn of each.
work AS (
    SELECT p.tid, p.name, p.dur, p.ts - s.ts AS queued
    FROM (
        SELECT p.tid, p.task_id, p.ts, p.dur, y.name
        FROM polls p
        JOIN task_types y ON y.type_id = p.type_id
        WHERE p.ts >= $from AND p.ts < $to AND y.kind = 'blocking'
    ) p
    LEFT JOIN (SELECT task_id, min(ts) AS ts FROM spawns WHERE ts >= greatest($from, -9000000000000000000) - 1000000000 AND ts < $to GROUP BY task_id) s
           ON s.task_id = p.task_id AND s.ts <= p.ts
),
signs AS (
    SELECT a.tid, a.first_ts, a.last_ts,
           CASE WHEN a.task_id IS NOT NULL AND l.task_id IS NULL THEN 0 ELSE a.asleep END AS idle
    FROM away a
    LEFT JOIN loops l ON l.task_id = a.task_id
    UNION ALL
    SELECT tid, min(ts), max(ts), 0
    FROM samples
    WHERE ts >= greatest($from, -9000000000000000000) - 1000000000 AND ts < least($to, 9000000000000000000) + 1000000000 AND tid IN (SELECT tid FROM pool)
    GROUP BY tid
    UNION ALL
    SELECT tid, min(ts), max(ts + dur), 0
    FROM polls
    WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000 AND tid IN (SELECT tid FROM pool)
    GROUP BY tid
),
watched AS (
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
),
thread AS (
    SELECT p.tid, p.name, coalesce(s.observed, 0) AS observed, coalesce(s.idle, 0) AS idle
    FROM pool p
    LEFT JOIN (
        SELECT tid, greatest(least(max(last_ts), $to) - greatest(min(first_ts), $from), 0) AS observed,
               sum(idle) AS idle
        FROM signs
        GROUP BY tid
    ) s ON s.tid = p.tid
),
by_thread AS (
    SELECT tid, count(*) AS works, max(dur) AS longest, count(queued) AS queued, sum(queued) AS queued_total,
           max(queued) AS queued_longest
    FROM work
    GROUP BY tid
),
parts AS (
    SELECT 1 AS place, 'thread' AS what, t.tid, t.name, 1 AS threads, t.observed, t.observed - t.idle AS busy, t.idle,
           coalesce(w.works, 0) AS works, w.longest, coalesce(w.queued, 0) AS queued, w.queued_total, w.queued_longest
    FROM thread t
    LEFT JOIN by_thread w ON w.tid = t.tid
    UNION ALL
    SELECT 2, 'work', NULL, name, count(DISTINCT tid), NULL, sum(dur), NULL, count(*), max(dur), count(queued),
           sum(queued), max(queued)
    FROM work
    GROUP BY name
),
-- The pool is the sum of its threads.
all_parts AS (
    SELECT * FROM parts
    UNION ALL
    SELECT 0, 'pool', NULL, NULL, count(*), sum(observed), sum(busy), sum(idle), sum(works), max(longest), sum(queued),
           sum(queued_total), max(queued_longest)
    FROM parts
    WHERE what = 'thread'
    HAVING count(*) > 0
)
SELECT p.what, p.name, CAST(p.threads AS BIGINT) AS threads, CAST(p.observed AS BIGINT) AS observed,
       CAST(p.busy AS BIGINT) AS busy, CAST(p.busy AS DOUBLE) / nullif(p.observed, 0) AS busy_share,
       CAST(p.idle AS DOUBLE) / nullif(p.observed, 0) AS idle_share,
       CASE WHEN v.polls THEN CAST(p.works AS BIGINT) END AS works, p.longest,
       CASE WHEN v.polls THEN CAST(p.queued AS BIGINT) END AS queued,
       CAST((p.queued_total - p.queued_total % nullif(p.queued, 0)) / nullif(p.queued, 0) AS BIGINT) AS queued_mean,
       p.queued_longest, CAST(p.idle AS BIGINT) AS idle, p.tid
FROM all_parts p
CROSS JOIN watched v
ORDER BY p.place, busy DESC, p.tid NULLS LAST, p.name
