-- blocking_pool: use of tokio's pool for blocking work, in total, by thread and by type of work.
--
-- The first row is the pool; then come its threads, the busiest first, then the types of its work. A thread is observed
-- from its first to its last event in the time range and in the second before and after it. It is idle while it sleeps
-- outside a task, and busy for the rest. A piece of work is one poll, so nothing is known of work if polls were not
-- recorded. Work is queued from its spawn to its poll, which is known if its spawn was recorded in the time range or in
-- the second before it. Intervals are clipped to the time range.
--
-- Parameters:
--   $from           epoch_ns  start of the time range
--   $to             epoch_ns  its end, exclusive
--
-- Columns:
--   what            text      'pool', 'thread' or 'work'
--   name            text      name of the thread, or type of work; null for the pool, and if unknown
--   threads         count     number of threads: 1 for a thread; for work, the threads that it ran on
--   observed        ns        observed time of the threads in the range; null for work
--   busy            ns        busy time; for work, the duration of its polls
--   busy_share      share     busy time as a share of `observed`; null for work
--   idle_share      share     idle time as a share of `observed`; null for work
--   works           count     pieces of work that began in the range; null if polls were not recorded
--   longest         ns        the longest of these pieces of work
--   queued          count     pieces of work with a known time in the queue
--   queued_mean     ns        mean time in the queue, rounded down
--   queued_longest  ns        longest time in the queue
--
-- Further columns:
--   idle            ns        time asleep outside a task; null for work
--   tid             id        thread; null for pool and work
WITH
pool AS MATERIALIZED (
    SELECT tid, name
    FROM (
        -- part thread
        -- Each thread with its last known role, as a thread that exits loses it.
        SELECT tid, name, role, worker, runtime_id
        FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
              FROM threads)
        WHERE n = 1
        -- end thread
    )
    WHERE role = 'blocking'
),
-- A worker's own loop is a task of tokio's: inside it alone, the thread is outside a task.
loops AS (
    SELECT DISTINCT o.task_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns) o
    JOIN task_types y ON y.type_id = o.type_id
    WHERE y.kind = 'worker'
),
-- Time asleep, from `ts` to `ready`, clipped to the window; intervals outside it only show that the thread lives.
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
    -- part watched
    -- Whether polls were recorded in the window.
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
    -- end watched
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
