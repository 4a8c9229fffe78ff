-- workers: where each worker's time went.
--
-- A row is a worker thread of a runtime. Its time is all in one of four states: running (on a CPU: polling tasks, and
-- what the scheduler itself costs), blocked (asleep inside a task's poll), waiting (runnable, but no CPU was free) and
-- idle (asleep outside a task). All come from the scheduler, whether polls were recorded or not. A thread is observed
-- from its first to its last sign of life in the session, so a worker that never left its sleep shows nothing.
-- Stretches are clipped to the window.
--
-- Parameters:
--   $from           epoch_ns  start of the window
--   $to             epoch_ns  end of the window
--   $thread         id        only this thread; null = all
--
-- Columns:
--   runtime_id      id        runtime that it works for; null where not known
--   worker          id        its number in that runtime; null where not known
--   tid             id        thread
--   observed        ns        how long it was observed in the window: the sum of the four states
--   running_share   share     part of it on a CPU
--   blocked_share   share     part of it asleep inside a task
--   waiting_share   share     part of it runnable without a CPU
--   idle_share      share     part of it asleep outside a task
--   polls           count     polls that began in the window; null where none were recorded
--   longest_poll    ns        the longest of them
--
-- Further columns:
--   running         ns        on a CPU
--   blocked         ns        asleep inside a task
--   waiting         ns        runnable without a CPU
--   idle            ns        asleep outside a task
--   thread          text      the thread's name
WITH
worker AS (
    SELECT tid, name, worker, runtime_id
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
    WHERE n = 1 AND role = 'worker' AND ($thread IS NULL OR tid = $thread)
),
-- A worker's own loop is a task of tokio's; inside it and nothing else the worker is outside a task.
loops AS (
    SELECT DISTINCT o.task_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM polls) o
    JOIN task_types y ON y.type_id = o.type_id
    WHERE y.kind = 'worker'
),
seen AS (
    SELECT tid, greatest(min(first_ts), $from) AS from_ts, least(max(last_ts), $to) AS to_ts
    FROM (
        SELECT tid, min(ts) AS first_ts, max(ts + dur) AS last_ts FROM off_cpu GROUP BY tid
        UNION ALL SELECT tid, min(ts), max(ts) FROM samples GROUP BY tid
        UNION ALL SELECT tid, min(ts), max(ts + dur) FROM polls GROUP BY tid
    )
    GROUP BY tid
),
-- Off CPU: asleep from `ts` to `ready`, then runnable to `back`.
away AS (
    SELECT o.tid, o.ts, o.ts + o.dur AS back,
           CASE WHEN o.state = 'R' THEN o.ts ELSE o.ts + o.dur - coalesce(o.run_queue, 0) END AS ready,
           o.task_id IS NOT NULL AND l.task_id IS NULL AS in_task, o.task_id
    FROM off_cpu o
    LEFT JOIN loops l ON l.task_id = o.task_id
    WHERE o.ts < $to AND o.ts + o.dur > $from AND o.tid IN (SELECT tid FROM worker)
),
off AS (
    SELECT tid, sum(CASE WHEN in_task THEN asleep ELSE 0 END) AS blocked,
           sum(CASE WHEN in_task THEN 0 ELSE asleep END) AS idle, sum(waiting) AS waiting
    FROM (
        SELECT tid, in_task, greatest(least(ready, $to) - greatest(ts, $from), 0) AS asleep,
               greatest(least(back, $to) - greatest(ready, $from), 0) AS waiting
        FROM away
    )
    GROUP BY tid
),
polled AS (
    SELECT p.tid, count(*) AS polls, max(p.dur) AS longest
    FROM polls p
    LEFT JOIN task_types y ON y.type_id = p.type_id
    WHERE p.ts >= $from AND p.ts < $to AND coalesce(y.kind, 'task') <> 'worker'
    GROUP BY p.tid
),
watched AS (
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
),
spent AS (
    SELECT w.runtime_id, w.worker, w.tid, w.name AS thread,
           CAST(greatest(coalesce(s.to_ts - s.from_ts, 0), 0) AS BIGINT) AS observed,
           CAST(coalesce(o.blocked, 0) AS BIGINT) AS blocked,
           CAST(coalesce(o.waiting, 0) AS BIGINT) AS waiting,
           CAST(coalesce(o.idle, 0) AS BIGINT) AS idle,
           CASE WHEN v.polls THEN coalesce(p.polls, 0) END AS polls, p.longest AS longest_poll
    FROM worker w
    CROSS JOIN watched v
    LEFT JOIN seen s ON s.tid = w.tid
    LEFT JOIN off o ON o.tid = w.tid
    LEFT JOIN polled p ON p.tid = w.tid
)
SELECT runtime_id, worker, tid, observed,
       CAST(running AS DOUBLE) / nullif(observed, 0) AS running_share,
       CAST(blocked AS DOUBLE) / nullif(observed, 0) AS blocked_share,
       CAST(waiting AS DOUBLE) / nullif(observed, 0) AS waiting_share,
       CAST(idle AS DOUBLE) / nullif(observed, 0) AS idle_share,
       polls, longest_poll, running, blocked, waiting, idle, thread
FROM (SELECT *, observed - blocked - waiting - idle AS running FROM spent)
ORDER BY runtime_id NULLS LAST, worker NULLS LAST, tid
