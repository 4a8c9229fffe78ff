-- critical_path: causes of the slowest polls, traced back through the wakes that led to them.
--
-- A row is a hop: each of the $polls slowest polls itself (hop 0), then the poll that woke its task, then the poll that
-- woke that one, and so on. A path ends after $hops hops, and where a wake or the waker's poll was not recorded. If the
-- waking thread was polling no task, the last hop is that thread, without a task. Wakes and polls are searched for from a
-- second before the time range. Of several candidates, the one with the least waking task and thread is taken, then the
-- latest poll, then the shortest. Wakes and polls are read once per hop.
--
-- Parameters:
--   $from        epoch_ns  start of the time range in which slow polls begin
--   $to          epoch_ns  its end, exclusive
--   $threshold   ns        minimum duration of a slow poll (default 10ms)
--   $polls       count     maximum number of slow polls (default 10)
--   $hops        count     maximum number of hops back (default 4)
--
-- Columns:
--   slow         count     rank of the slow poll: 1 is the slowest
--   hop          count     0 for the slow poll, then the number of wakes back
--   task_type    text      type of the task; null outside a task, or if unknown
--   task_id      id        task; null outside a task
--   ts           epoch_ns  start of its poll; null if that poll is unknown
--   dur          ns        duration of that poll
--   woke_after   ns        time from the start of the poll to its wake of the task of the hop before; null at hop 0
--   wake_delay   ns        wake-to-poll latency of this poll; null if unknown
--   thread       text      name of the thread; null if unknown
--
-- Further columns:
--   tid          id        thread
--   woke_ts      epoch_ns  when it woke the task of the hop before
WITH RECURSIVE
slowest AS (
    SELECT p.ts, p.dur, p.task_id, p.type_id, p.tid, p.wake_delay,
           row_number() OVER (ORDER BY p.dur DESC, p.ts, p.tid, p.task_id) AS slow
    FROM polls p
    LEFT JOIN task_types y ON y.type_id = p.type_id
    WHERE p.ts >= $from AND p.ts < $to AND p.dur >= $threshold AND coalesce(y.kind, 'task') = 'task'
),
chain AS (
    SELECT slow, CAST(0 AS BIGINT) AS hop, ts, dur, task_id, type_id, tid, wake_delay, CAST(NULL AS BIGINT) AS woke_ts
    FROM slowest
    WHERE slow <= $polls
    UNION ALL
    SELECT slow, hop, ts, dur, task_id, type_id, tid, wake_delay, woke_ts
    FROM (
        SELECT c.slow, c.hop + 1 AS hop, q.ts, q.dur, w.waker_task_id AS task_id, q.type_id, w.waker_tid AS tid,
               q.wake_delay, w.ts AS woke_ts,
               row_number() OVER (PARTITION BY c.slow
                                  ORDER BY w.waker_task_id NULLS LAST, w.waker_tid, q.ts DESC NULLS LAST, q.dur) AS n
        FROM chain c
        JOIN wakes w ON w.task_id = c.task_id AND w.ts = c.ts - c.wake_delay
        LEFT JOIN polls q ON q.task_id = w.waker_task_id AND q.tid = w.waker_tid AND q.ts <= w.ts
                         AND q.ts + q.dur >= w.ts AND q.ts < $to AND q.ts + q.dur > greatest($from, -9000000000000000000) - 1000000000
        WHERE c.hop < $hops AND w.ts >= greatest($from, -9000000000000000000) - 1000000000 AND w.ts < $to
    )
    WHERE n = 1
),
type_of AS (
    -- part type_of
    -- A task's type is recorded when the task is first seen, and when it is spawned.
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
    -- end type_of
),
thread_name AS (
    -- part thread_name
    SELECT tid, name
    FROM (SELECT tid, name, row_number() OVER (PARTITION BY tid ORDER BY ts DESC, name) AS n FROM threads)
    WHERE n = 1
    -- end thread_name
)
SELECT CAST(c.slow AS BIGINT) AS slow, c.hop, CASE WHEN y.kind <> 'worker' THEN y.name END AS task_type,
       CASE WHEN coalesce(y.kind, 'task') <> 'worker' THEN c.task_id END AS task_id, c.ts, c.dur,
       c.woke_ts - c.ts AS woke_after, c.wake_delay, t.name AS thread, c.tid, c.woke_ts
FROM chain c
LEFT JOIN type_of o ON o.task_id = c.task_id
LEFT JOIN task_types y ON y.type_id = coalesce(c.type_id, o.type_id)
LEFT JOIN thread_name t ON t.tid = c.tid
ORDER BY slow, c.hop
