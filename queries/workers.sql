-- workers: how each worker spent its time.
--
-- A row is a worker thread of a runtime. All its time is in one of four states: running (on a CPU: polling tasks, and the
-- runtime's own work), blocked (asleep inside a poll), waiting (runnable, but no CPU was free), and idle (asleep outside a
-- task; in a task of unknown type, which may be the worker's own loop; or inside `block_in_place`, while another thread
-- does its work). All states come from the scheduler, whether polls were recorded or not. A thread is observed from its
-- first to its last event (off-CPU interval, poll or sample) in the time range and in the second before and after it, so a
-- worker that slept throughout has no time. Intervals are clipped to the time range. Those that began before the recording,
-- or have not ended, are known from `in_progress`, if they are in polls of 100 ms or more.
--
-- Parameters:
--   $from           epoch_ns  start of the time range
--   $to             epoch_ns  its end, exclusive
--   $thread         id        only this thread; null = all
--
-- Columns:
--   runtime_id      id        runtime of the worker; null if unknown
--   worker          id        number of the worker in that runtime; null if unknown
--   tid             id        thread
--   observed        ns        observed time in the range: the sum of the four states
--   running_share   share     running time as a share of `observed`
--   blocked_share   share     blocked time as a share of `observed`
--   waiting_share   share     waiting time as a share of `observed`
--   idle_share      share     idle time as a share of `observed`
--   polls           count     polls that began in the range; null if polls were not recorded
--   longest_poll    ns        the longest of these polls
--   in_progress     ns        time for which a poll on it had lasted by the end of the range and not ended, at least
--
-- Further columns:
--   running         ns        time on a CPU
--   blocked         ns        time asleep inside a task
--   waiting         ns        time runnable without a CPU
--   idle            ns        time asleep outside a task
--   thread          text      name of the thread
WITH
worker AS MATERIALIZED (
    SELECT tid, name, worker, runtime_id
    FROM (
        -- part thread
        -- Each thread with its last known role, as a thread that exits loses it.
        SELECT tid, name, role, worker, runtime_id
        FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
              FROM threads)
        WHERE n = 1
        -- end thread
    )
    WHERE role = 'worker' AND ($thread IS NULL OR tid = $thread)
),
handed AS MATERIALIZED (
    -- part handed
    -- Intervals in which a thread of `worker` was no worker, as `block_in_place` had moved its core to another thread; one row
    -- per bucket of time, so that they are joined by equality. The window has at most 4,097 buckets.
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
    -- end handed
),
stack_fact AS MATERIALIZED (
    -- part stack_fact
    -- Whether the innermost task of a stack has called `block_in_place`.
    SELECT stack_id, coalesce(in_place < coalesce(polled, in_place + 1), false) AS in_place
    FROM (
        SELECT p.stack_id,
               min(CASE WHEN f.function LIKE '%block_in_place%' THEN p.depth END) AS in_place,
               min(CASE WHEN f.function LIKE 'tokio::runtime::task::%poll%'
                        THEN p.depth END) AS polled
        FROM (
            -- part placed
            SELECT stack_id, unnest(frame_ids) AS frame_id,
                   unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
            FROM stacks
            -- end placed
        ) p
        JOIN frames f ON f.frame_id = p.frame_id
        WHERE f.origin = 'tokio'
        GROUP BY p.stack_id
    )
    -- end stack_fact
),
-- part progress
-- Observations of polls in progress, each certainly of one poll. The last that concerns the window comes up to 2 s after it.
progress AS MATERIALIZED (
    SELECT tid, task_id, type_id, ts, ts - lasted AS begin_ts, lasted, state, stack_id
    FROM in_progress
    WHERE NOT ended AND NOT estimated AND ts > $from AND ts < least($to, 9000000000000000000) + 2000000000
      AND ts - lasted < $to
),
-- Sleeps inside polls that `off_cpu` does not have, as they began before the recording or have not ended: from the thread's
-- last event to the last observation of the sleep, clipped to the window. (`coalesce(…, 0)`: never null, as in the tables
-- that it is united with.)
sleep_in_progress AS MATERIALIZED (
    SELECT tid, task_id, max(type_id) AS type_id, max(stack_id) AS stack_id, coalesce(from_ts, 0) AS ts,
           coalesce(least(max(ts), CAST($to AS BIGINT)) - from_ts, 0) AS dur, max(lasted) AS lasted
    FROM (
        SELECT tid, task_id, type_id, stack_id, begin_ts, lasted, ts,
               greatest(begin_ts, coalesce(back, begin_ts), CAST($from AS BIGINT)) AS from_ts
        FROM (
            SELECT *, max(event_end) OVER (PARTITION BY tid ORDER BY ts, place
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS back
            FROM (
                SELECT tid, ts, 0 AS place, ts + dur AS event_end, CAST(NULL AS BIGINT) AS task_id,
                       CAST(NULL AS BIGINT) AS type_id, CAST(NULL AS BIGINT) AS stack_id,
                       CAST(NULL AS BIGINT) AS begin_ts, CAST(NULL AS BIGINT) AS lasted
                FROM off_cpu
                WHERE ts < least($to, 9000000000000000000) + 2000000000 AND ts + dur > $from
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, ts, 0, ts AS event_end, NULL, NULL, NULL, NULL, NULL
                FROM samples
                WHERE ts >= $from AND ts < least($to, 9000000000000000000) + 2000000000
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, ts, 1, NULL, task_id, type_id, stack_id, begin_ts, lasted
                FROM progress
                WHERE state = 'blocked'
            )
        )
        WHERE place = 1 AND coalesce(back < ts, true)
    )
    WHERE from_ts < $to
    GROUP BY tid, task_id, begin_ts, from_ts
),
-- end progress
-- part poll_in_progress
-- Polls that `polls` does not have and that were on their CPU when they were observed, clipped to the window. A recorded poll
-- that was observed has at least the 100 ms after which it is.
poll_in_progress AS MATERIALIZED (
    SELECT p.tid, p.task_id, p.type_id, coalesce(p.ts, 0) AS ts, coalesce(p.end_ts, 0) AS end_ts, p.lasted,
           coalesce(greatest(p.end_ts - p.ts - CAST(coalesce(sum(CASE WHEN o.tid IS NOT NULL
                                                                      THEN least(o.back, p.end_ts) - greatest(o.ts, p.ts) END),
                                                             0) AS BIGINT), 0), 0) AS busy
    FROM (
        SELECT tid, task_id, begin_ts, max(type_id) AS type_id, greatest(begin_ts, CAST($from AS BIGINT)) AS ts,
               least(max(ts), CAST($to AS BIGINT)) AS end_ts, max(lasted) AS lasted
        FROM (
            SELECT *, max(event_end) OVER (PARTITION BY tid, task_id ORDER BY ts, place
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS back
            FROM (
                SELECT tid, task_id, ts, 0 AS place, ts + dur AS event_end, CAST(NULL AS BIGINT) AS type_id,
                       CAST(NULL AS BIGINT) AS begin_ts, CAST(NULL AS BIGINT) AS lasted, CAST(NULL AS VARCHAR) AS state
                FROM polls
                WHERE ts < least($to, 9000000000000000000) + 2000000000 AND ts + dur > $from AND dur >= 100000000
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, task_id, ts, 1, NULL, type_id, begin_ts, lasted, state
                FROM progress
            )
        )
        WHERE place = 1 AND coalesce(back < ts, true)
        GROUP BY tid, task_id, begin_ts
        HAVING max(CASE WHEN state <> 'blocked' THEN 1 ELSE 0 END) = 1
    ) p
    LEFT JOIN (
        SELECT tid, ts, ts + dur AS back
        FROM off_cpu
        WHERE ts < $to AND ts + dur > $from AND tid IN (SELECT tid FROM progress)
        UNION ALL
        SELECT tid, ts, ts + dur FROM sleep_in_progress
    ) o ON o.tid = p.tid AND o.ts < p.end_ts AND o.back > p.ts
    GROUP BY p.tid, p.task_id, p.begin_ts, p.type_id, p.ts, p.end_ts, p.lasted
),
-- end poll_in_progress
stuck AS (
    -- part stuck
    -- What each thread was polling at its last observation in the window, if that was certainly one poll.
    SELECT tid, task_id, lasted
    FROM (SELECT tid, task_id, lasted, ended, estimated, row_number() OVER (PARTITION BY tid ORDER BY ts DESC) AS n
          FROM in_progress
          WHERE ts >= $from AND ts < $to)
    WHERE n = 1 AND NOT ended AND NOT estimated
    -- end stuck
),
-- Off-CPU time by task, clipped to the window; intervals outside it only show that the thread lives.
away AS MATERIALIZED (
    SELECT o.tid, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false) AS in_place, min(o.ts) AS first_ts,
           max(o.back) AS last_ts, sum(greatest(least(o.ready, $to) - greatest(o.ts, $from), 0)) AS asleep,
           sum(greatest(least(o.back, $to) - greatest(o.ready, $from), 0)) AS waiting
    FROM (
        SELECT
            -- part off_cpu_state
            -- Blocked from `ts` to `ready`, runnable from `ready` to `back`. `sleeper` and `slept_at` are set for sleeps of 1 ms or more,
            -- the shortest that are examined for `block_in_place`; `moment` is the end, or the last instant of the window.
            tid, task_id, ts, ts + dur AS back, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment,
            CASE WHEN state = 'R' THEN ts ELSE ts + dur - coalesce(run_queue, 0) END AS ready,
            CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN tid END AS sleeper,
            CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN stack_id END AS slept_at
            -- end off_cpu_state
        FROM off_cpu
        WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000
        UNION ALL
        SELECT tid, task_id, ts, ts + dur AS back, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment, ts + dur AS ready,
               tid AS sleeper, stack_id
        FROM sleep_in_progress
    ) o
    -- part off_cpu_in_place
    LEFT JOIN handed h ON h.tid = o.sleeper AND h.from_ts <= o.moment AND o.moment < h.to_ts
          AND h.bucket = o.moment - (o.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    LEFT JOIN stack_fact f ON f.stack_id = o.slept_at
    -- end off_cpu_in_place
    GROUP BY o.tid, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false)
),
-- A worker's own loop is a task of tokio's: inside it alone, the worker is outside a task. So is a worker inside a task of
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
-- All events of a thread, with the times in them: each table is read once.
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
    UNION ALL
    SELECT tid, ts, end_ts, 0, 0, 0, 0, CAST(NULL AS BIGINT) FROM poll_in_progress
),
watched AS MATERIALIZED (
    -- part watched
    -- Whether polls were recorded in the window.
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
    -- end watched
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
           CASE WHEN v.polls THEN CAST(coalesce(s.polls, 0) AS BIGINT) END AS polls, s.longest AS longest_poll,
           k.lasted AS in_progress
    FROM worker w
    CROSS JOIN watched v
    LEFT JOIN summed s ON s.tid = w.tid
    LEFT JOIN stuck k ON k.tid = w.tid
)
SELECT runtime_id, worker, tid, observed,
       CAST(running AS DOUBLE) / nullif(observed, 0) AS running_share,
       CAST(blocked AS DOUBLE) / nullif(observed, 0) AS blocked_share,
       CAST(waiting AS DOUBLE) / nullif(observed, 0) AS waiting_share,
       CAST(idle AS DOUBLE) / nullif(observed, 0) AS idle_share,
       polls, longest_poll, in_progress, running, blocked, waiting, idle, thread
FROM (SELECT *, observed - blocked - waiting - idle AS running FROM spent)
ORDER BY runtime_id NULLS LAST, worker NULLS LAST, tid
