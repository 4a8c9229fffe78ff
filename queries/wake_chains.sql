-- wake_chains: wakes by type of the waking and of the woken task, most first.
--
-- A row is a pair of types. A wake is late if a poll of its task in the time range began $late or more after it, as the
-- poll that this wake led to. The causes of a single slow poll are in critical_path.sql.
--
-- Parameters:
--   $from        epoch_ns  start of the time range
--   $to          epoch_ns  its end, exclusive
--   $late        ns        minimum wake-to-poll latency of a late wake (default 1ms)
--
-- Columns:
--   waker        text      type of the task that the waking thread was polling; null outside a task, or if unknown
--   woken        text      type of the woken task; null if unknown
--   wakes        count     number of wakes
--   share        share     these wakes as a share of all wakes
--   self_wakes   count     wakes of a task by itself
--   late         count     number of late wakes
--   late_share   share     late wakes as a share of `wakes`
--   late_total   ns        total latency of the late wakes
--   longest      ns        longest latency of a late wake; null if none is late
--
-- Further columns:
--   in_task      flag      whether the waking thread was polling a task; a worker's own loop is none
WITH
-- A task's type is recorded when the task is first seen, when it is spawned, and with its polls.
type_of AS (
    SELECT task_id, min(type_id) AS type_id
    FROM (
        SELECT task_id, type_id FROM tasks
        UNION ALL
        SELECT task_id, type_id FROM spawns
        UNION ALL
        SELECT task_id, min(type_id) FROM polls WHERE ts >= $from AND ts < $to GROUP BY task_id
    )
    WHERE type_id IS NOT NULL
    GROUP BY task_id
),
late AS (
    SELECT task_id, ts - wake_delay AS wake_ts, max(wake_delay) AS delay
    FROM polls
    WHERE ts >= $from AND ts < $to AND wake_delay >= $late
    GROUP BY task_id, ts - wake_delay
),
counted AS (
    SELECT a.type_id, b.type_id AS waker_type_id, w.waker_task_id IS NOT NULL AS has_waker, count(*) AS n,
           sum(CASE WHEN w.waker_task_id = w.task_id THEN 1 ELSE 0 END) AS self_wakes, count(l.delay) AS late,
           sum(l.delay) AS late_total, max(l.delay) AS longest
    FROM wakes w
    LEFT JOIN type_of a ON a.task_id = w.task_id
    LEFT JOIN type_of b ON b.task_id = w.waker_task_id
    LEFT JOIN late l ON l.task_id = w.task_id AND l.wake_ts = w.ts
    WHERE w.ts >= $from AND w.ts < $to
    GROUP BY a.type_id, b.type_id, w.waker_task_id IS NOT NULL
),
typed AS (
    SELECT CASE WHEN y.kind <> 'worker' THEN y.name END AS waker, z.name AS woken,
           c.has_waker AND coalesce(y.kind, 'task') <> 'worker' AS in_task, c.n, c.self_wakes, c.late, c.late_total,
           c.longest
    FROM counted c
    LEFT JOIN task_types y ON y.type_id = c.waker_type_id
    LEFT JOIN task_types z ON z.type_id = c.type_id
)
SELECT waker, woken, CAST(sum(n) AS BIGINT) AS wakes, CAST(sum(n) AS DOUBLE) / sum(sum(n)) OVER () AS share,
       CAST(sum(self_wakes) AS BIGINT) AS self_wakes, CAST(sum(late) AS BIGINT) AS late,
       CAST(sum(late) AS DOUBLE) / sum(n) AS late_share, CAST(coalesce(sum(late_total), 0) AS BIGINT) AS late_total,
       max(longest) AS longest, in_task
FROM typed
GROUP BY waker, woken, in_task
ORDER BY wakes DESC, waker NULLS LAST, woken NULLS LAST, in_task
