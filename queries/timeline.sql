-- timeline: states of the workers over time, in steps.
--
-- A row is a step of a worker, for every step in which the worker was observed. Its time is in the four states of
-- workers.sql: running, blocked, waiting, idle. Intervals that span several steps are divided among them, those in progress
-- included.
--
-- Parameters:
--   $from         epoch_ns  start of the time range and of the first step
--   $to           epoch_ns  end of the time range, exclusive
--   $step         ns        length of a step (default: a hundredth of the time range)
--   $thread       id        only this thread; null = all
--
-- Columns:
--   ts            epoch_ns  start of the step
--   dur           ns        its length: $step, or the rest of the time range
--   runtime_id    id        runtime of the worker; null if unknown
--   worker        id        number of the worker in that runtime; null if unknown
--   tid           id        thread
--   running       ns        time on a CPU
--   blocked       ns        time asleep inside a task
--   waiting       ns        time runnable without a CPU
--   idle          ns        time asleep outside a task
--   polls         count     polls that began in the step; null if polls were not recorded in the time range
--   longest_poll  ns        full duration of the longest poll that was in progress in the step
--   task_type     text      type of the tasks that used most of the step, by their polls, samples and sleeps
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
type_of AS MATERIALIZED (
    -- part type_of
    -- A task's type is recorded when the task is first seen, and when it is spawned.
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
    -- end type_of
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
-- A worker's own loop is a task of tokio's: inside it alone, the worker is outside a task. So is a worker inside a task of
-- unknown type, which may be a loop.
kind_of AS (
    SELECT o.task_id, y.kind FROM type_of o JOIN task_types y ON y.type_id = o.type_id
),
-- From the first to the last event, as in workers.sql.
seen AS (
    SELECT tid, greatest(min(first_ts), $from) AS from_ts, least(max(last_ts), $to) AS to_ts
    FROM (
        SELECT tid, min(ts) AS first_ts, max(ts + dur) AS last_ts
        FROM off_cpu
        WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000
        GROUP BY tid
        UNION ALL
        SELECT tid, min(ts), max(ts)
        FROM samples
        WHERE ts >= greatest($from, -9000000000000000000) - 1000000000 AND ts < least($to, 9000000000000000000) + 1000000000
        GROUP BY tid
        UNION ALL
        SELECT tid, min(ts), max(ts + dur)
        FROM polls
        WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000
        GROUP BY tid
        UNION ALL
        SELECT tid, ts, ts + dur FROM sleep_in_progress
        UNION ALL
        SELECT tid, ts, end_ts FROM poll_in_progress
    )
    GROUP BY tid
),
steps AS (
    SELECT tid, from_ts, to_ts,
           unnest(generate_series(from_ts - (from_ts - $from) % $step, to_ts - 1, $step)) AS step
    FROM seen
    WHERE tid IN (SELECT tid FROM worker) AND from_ts < to_ts
),
-- Off-CPU time by task and step.
away AS (
    SELECT o.tid, o.step, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false) AS in_place,
           sum(greatest(least(o.ready, o.step + $step, $to) - greatest(o.ts, o.step), 0)) AS asleep,
           sum(greatest(least(o.back, o.step + $step, $to) - greatest(o.ready, o.step), 0)) AS waiting
    FROM (
        SELECT unnest(generate_series(greatest(ts, $from) - (greatest(ts, $from) - $from) % $step,
                                      least(ts + dur, $to) - 1, $step)) AS step,
            -- part off_cpu_state
            -- Blocked from `ts` to `ready`, runnable from `ready` to `back`. `sleeper` and `slept_at` are set for sleeps of 1 ms or more,
            -- the shortest that are examined for `block_in_place`; `moment` is the end, or the last instant of the window.
            tid, task_id, ts, ts + dur AS back, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment,
            CASE WHEN state = 'R' THEN ts ELSE ts + dur - coalesce(run_queue, 0) END AS ready,
            CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN tid END AS sleeper,
            CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN stack_id END AS slept_at
            -- end off_cpu_state
        FROM (
            SELECT tid, task_id, ts, dur, state, stack_id, run_queue
            FROM off_cpu
            WHERE ts < $to AND ts + dur > $from AND tid IN (SELECT tid FROM worker)
            UNION ALL
            SELECT tid, task_id, ts, dur, 'S', stack_id, NULL
            FROM sleep_in_progress
            WHERE tid IN (SELECT tid FROM worker)
        )
    ) o
    -- part off_cpu_in_place
    LEFT JOIN handed h ON h.tid = o.sleeper AND h.from_ts <= o.moment AND o.moment < h.to_ts
          AND h.bucket = o.moment - (o.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    LEFT JOIN stack_fact f ON f.stack_id = o.slept_at
    -- end off_cpu_in_place
    GROUP BY o.tid, o.step, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false)
),
-- Polls, divided among steps; few span several, and only these are unnested.
polled AS (
    SELECT tid, step, type_id, sum(CASE WHEN ts >= step THEN 1 ELSE 0 END) AS polls, max(dur) AS longest,
           sum(least(ts + dur, step + $step) - greatest(ts, step)) AS share
    FROM (
        SELECT tid, ts, dur, type_id, ts - (ts - $from) % $step AS step
        FROM polls
        WHERE ts >= $from AND ts < $to AND (ts - $from) % $step + dur <= $step
        UNION ALL
        SELECT tid, ts, dur, type_id,
               unnest(generate_series(greatest(ts, $from) - (greatest(ts, $from) - $from) % $step,
                                      least(ts + dur, $to) - 1, $step))
        FROM polls
        WHERE ts < $to AND ts + dur > $from AND (ts < $from OR (ts - $from) % $step + dur > $step)
    )
    GROUP BY tid, step, type_id
),
-- All times in a step, by type of task: each table is read once.
facts AS (
    SELECT tid, step, type_id, polls, longest, share, 0 AS blocked, 0 AS idle, 0 AS waiting FROM polled
    UNION ALL
    SELECT s.tid, s.step, o.type_id, 0, NULL, s.weight, 0, 0, 0
    FROM (
        SELECT tid, ts - (ts - $from) % $step AS step, task_id, sum(weight) AS weight
        FROM samples
        WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
        GROUP BY tid, ts - (ts - $from) % $step, task_id
    ) s
    JOIN type_of o ON o.task_id = s.task_id
    UNION ALL
    SELECT a.tid, a.step, o.type_id, 0, NULL, a.asleep,
           CASE WHEN k.kind <> 'worker' AND NOT a.in_place THEN a.asleep ELSE 0 END,
           CASE WHEN k.kind <> 'worker' AND NOT a.in_place THEN 0 ELSE a.asleep END, a.waiting
    FROM away a
    LEFT JOIN type_of o ON o.task_id = a.task_id
    LEFT JOIN kind_of k ON k.task_id = a.task_id
),
typed AS (
    SELECT f.tid, f.step, CASE WHEN y.kind <> 'worker' THEN y.name END AS name,
           sum(CASE WHEN coalesce(y.kind, 'task') <> 'worker' THEN f.polls ELSE 0 END) AS polls,
           max(CASE WHEN coalesce(y.kind, 'task') <> 'worker' THEN f.longest END) AS longest,
           sum(f.share) AS share, sum(f.blocked) AS blocked, sum(f.idle) AS idle, sum(f.waiting) AS waiting
    FROM facts f
    LEFT JOIN task_types y ON y.type_id = f.type_id
    GROUP BY f.tid, f.step, CASE WHEN y.kind <> 'worker' THEN y.name END
),
summed AS (
    SELECT tid, step, sum(polls) AS polls, max(longest) AS longest, sum(blocked) AS blocked, sum(idle) AS idle,
           sum(waiting) AS waiting, max(CASE WHEN n = 1 AND share > 0 THEN name END) AS owner
    FROM (SELECT *, row_number() OVER (PARTITION BY tid, step
                                       ORDER BY (name IS NULL), share DESC, name) AS n FROM typed)
    GROUP BY tid, step
),
watched AS (
    -- part watched
    -- Whether polls were recorded in the window.
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
    -- end watched
),
spent AS (
    SELECT s.step, s.tid, least(s.to_ts, s.step + $step) - greatest(s.from_ts, s.step) AS observed,
           CAST(coalesce(f.blocked, 0) AS BIGINT) AS blocked, CAST(coalesce(f.waiting, 0) AS BIGINT) AS waiting,
           CAST(coalesce(f.idle, 0) AS BIGINT) AS idle, CAST(coalesce(f.polls, 0) AS BIGINT) AS polls,
           f.longest, f.owner
    FROM steps s
    LEFT JOIN summed f ON f.tid = s.tid AND f.step = s.step
)
SELECT s.step AS ts, least($step, $to - s.step) AS dur, w.runtime_id, w.worker, s.tid,
       CAST(s.observed - s.blocked - s.waiting - s.idle AS BIGINT) AS running, s.blocked, s.waiting, s.idle,
       CASE WHEN v.polls THEN s.polls END AS polls, s.longest AS longest_poll, s.owner AS task_type
FROM spent s
JOIN worker w ON w.tid = s.tid
CROSS JOIN watched v
-- Not `s.step` alone: DataFusion 55 infers that it depends on `tid`, by which `seen` is grouped, and drops it.
ORDER BY w.runtime_id NULLS LAST, w.worker NULLS LAST, s.tid, greatest(s.step, $from)
