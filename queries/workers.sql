-- workers: where each worker's time went.
--
-- A row is a worker thread of a runtime. Its time is all in one of four states: running (on a CPU: polling tasks, and
-- what the scheduler itself costs), blocked (asleep inside a task's poll), waiting (runnable, but no CPU was free) and
-- idle (asleep outside a task, in a task of unknown type, which may be the worker's own loop, or inside `block_in_place`,
-- when another thread does its work). All come from the scheduler, whether polls were recorded or not. A thread is observed
-- from its first to its last sign of life, looked for in the window and in the second before and after it, so a worker
-- that never left its sleep shows nothing. A sign of life is a stretch off CPU, a poll or a sample. Stretches are
-- clipped to the window.
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
worker AS MATERIALIZED (
    SELECT tid, name, worker, runtime_id
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
    WHERE n = 1 AND role = 'worker' AND ($thread IS NULL OR tid = $thread)
),
-- When a worker was none: `block_in_place` had handed its core to another thread.
handed AS MATERIALIZED (
    SELECT tid, from_ts, to_ts,
           unnest(generate_series(
               from_ts - (from_ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
               to_ts - 1, greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
    FROM (
        SELECT tid, greatest(ts, $from) AS from_ts, least(coalesce(next_ts, $to), $to) AS to_ts
        FROM (
            SELECT tid, ts, role, lead(ts) OVER (PARTITION BY tid ORDER BY ts) AS next_ts
            FROM (
                SELECT tid, ts, min(role) AS role
                FROM threads
                WHERE role <> 'other' AND tid IN (SELECT tid FROM worker)
                GROUP BY tid, ts
            )
        )
        WHERE role = 'blocking'
    )
    WHERE from_ts < to_ts
),
-- Stacks inside `block_in_place`, called by the innermost task.
stack_fact AS MATERIALIZED (
    SELECT stack_id, coalesce(in_place < coalesce(polled, in_place + 1), false) AS in_place
    FROM (
        SELECT p.stack_id,
               min(CASE WHEN f.function LIKE '%block_in_place%' THEN p.depth END) AS in_place,
               min(CASE WHEN f.function LIKE 'tokio::runtime::task::%poll%'
                        THEN p.depth END) AS polled
        FROM (
            SELECT stack_id, unnest(frame_ids) AS frame_id,
                   unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
            FROM stacks
        ) p
        JOIN frames f ON f.frame_id = p.frame_id
        WHERE f.origin = 'tokio'
        GROUP BY p.stack_id
    )
),
-- Off CPU: asleep from `ts` to `ready`, then runnable to `back`. Before and after the window the parts come to nothing.
away AS MATERIALIZED (
    SELECT o.tid, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false) AS in_place, min(o.ts) AS first_ts,
           max(o.back) AS last_ts, sum(greatest(least(o.ready, $to) - greatest(o.ts, $from), 0)) AS asleep,
           sum(greatest(least(o.back, $to) - greatest(o.ready, $from), 0)) AS waiting
    FROM (
        SELECT tid, task_id, ts, ts + dur AS back, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment,
               CASE WHEN state = 'R' THEN ts ELSE ts + dur - coalesce(run_queue, 0) END AS ready,
               CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN tid END AS sleeper,
               CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN stack_id END AS slept_at
        FROM off_cpu
        WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000
    ) o
    LEFT JOIN handed h ON h.tid = o.sleeper AND h.from_ts <= o.moment AND o.moment < h.to_ts
          AND h.bucket = o.moment - (o.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    LEFT JOIN stack_fact f ON f.stack_id = o.slept_at
    GROUP BY o.tid, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false)
),
-- A worker's own loop is a task of tokio's; inside it and nothing else the worker is outside a task. So it is in a task of
-- unknown type, which may be a loop.
kind_of AS MATERIALIZED (
    SELECT o.task_id, y.kind
    FROM (
        SELECT t.task_id, min(t.type_id) AS type_id
        FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns) t
        WHERE t.type_id IS NOT NULL AND t.task_id IN (SELECT task_id FROM away)
        GROUP BY t.task_id
    ) o
    JOIN task_types y ON y.type_id = o.type_id
),
polled AS MATERIALIZED (
    SELECT tid, type_id, min(ts) AS first_ts, max(ts + dur) AS last_ts,
           count(*) FILTER (WHERE ts >= $from AND ts < $to) AS polls,
           max(dur) FILTER (WHERE ts >= $from AND ts < $to) AS longest
    FROM polls
    WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000
    GROUP BY tid, type_id
),
-- All signs of life of a thread, with what they say: each table is read once.
signs AS (
    SELECT a.tid, a.first_ts, a.last_ts, a.waiting,
           CASE WHEN k.kind <> 'worker' AND NOT a.in_place THEN a.asleep ELSE 0 END AS blocked,
           CASE WHEN k.kind <> 'worker' AND NOT a.in_place THEN 0 ELSE a.asleep END AS idle,
           0 AS polls, CAST(NULL AS BIGINT) AS longest
    FROM away a
    LEFT JOIN kind_of k ON k.task_id = a.task_id
    UNION ALL
    SELECT tid, min(ts), max(ts), 0, 0, 0, 0, CAST(NULL AS BIGINT)
    FROM samples
    WHERE ts >= greatest($from, -9000000000000000000) - 1000000000 AND ts < least($to, 9000000000000000000) + 1000000000
    GROUP BY tid
    UNION ALL
    SELECT p.tid, p.first_ts, p.last_ts, 0, 0, 0,
           CASE WHEN coalesce(y.kind, 'task') <> 'worker' THEN p.polls ELSE 0 END,
           CASE WHEN coalesce(y.kind, 'task') <> 'worker' THEN p.longest END
    FROM polled p
    LEFT JOIN task_types y ON y.type_id = p.type_id
),
watched AS MATERIALIZED (
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
),
summed AS (
    SELECT tid, greatest(least(max(last_ts), $to) - greatest(min(first_ts), $from), 0) AS observed,
           sum(waiting) AS waiting, sum(blocked) AS blocked, sum(idle) AS idle, sum(polls) AS polls,
           max(longest) AS longest
    FROM signs
    GROUP BY tid
),
spent AS (
    SELECT w.runtime_id, w.worker, w.tid, w.name AS thread,
           CAST(coalesce(s.observed, 0) AS BIGINT) AS observed, CAST(coalesce(s.blocked, 0) AS BIGINT) AS blocked,
           CAST(coalesce(s.waiting, 0) AS BIGINT) AS waiting, CAST(coalesce(s.idle, 0) AS BIGINT) AS idle,
           CASE WHEN v.polls THEN CAST(coalesce(s.polls, 0) AS BIGINT) END AS polls, s.longest AS longest_poll
    FROM worker w
    CROSS JOIN watched v
    LEFT JOIN summed s ON s.tid = w.tid
)
SELECT runtime_id, worker, tid, observed,
       CAST(running AS DOUBLE) / nullif(observed, 0) AS running_share,
       CAST(blocked AS DOUBLE) / nullif(observed, 0) AS blocked_share,
       CAST(waiting AS DOUBLE) / nullif(observed, 0) AS waiting_share,
       CAST(idle AS DOUBLE) / nullif(observed, 0) AS idle_share,
       polls, longest_poll, running, blocked, waiting, idle, thread
FROM (SELECT *, observed - blocked - waiting - idle AS running FROM spent)
ORDER BY runtime_id NULLS LAST, worker NULLS LAST, tid
