-- wake_chains: who wakes whom, by type of task, the most wakes first.
--
-- A row is the type of the waking task and that of the woken one. A wake is late where a poll of its task, within the
-- window, began $late or more after it and says that this wake led to it. What lies behind a single slow poll is in
-- critical_path.sql.
--
-- Parameters:
--   $from        epoch_ns  wakes from then on
--   $to          epoch_ns  and before
--   $late        ns        a wake-to-poll delay counts from this on (default 1000000)
--
-- Columns:
--   waker        text      type of the task that the waking thread was polling; null outside a task, and where not known
--   woken        text      type of the woken task; null where not known
--   wakes        count     wakes
--   share        share     part of all wakes
--   self_wakes   count     of these, of a task by itself
--   late         count     of these, late ones
--   late_share   share     part of `wakes` that was late
--   late_total   ns        delays of the late ones, together
--   longest      ns        the longest of these delays; null where none is late
--
-- Further columns:
--   in_task      flag      whether the waking thread was polling a task; a worker's own loop is none
WITH
-- A task's type is told when the task is first met, and as it is spawned; its polls tell it too.
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
