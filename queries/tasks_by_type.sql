-- tasks_by_type: cost of each type of task, the busiest first.
--
-- A row is a type of task with any event in the time range: a poll, a sample, a sleep inside a poll, an end, or the record
-- of a task's type. Work of the blocking pool is included, workers' own loops are not. Percentiles are by nearest rank
-- over buckets a 64th of an octave wide, reported as the middle of the bucket and never above the longest: the error is at
-- most 0.8 %. `busy` and `blocked` include the part in the time range of polls in progress (100 ms or more), which are in no
-- other table.
--
-- Parameters:
--   $from         epoch_ns  start of the time range
--   $to           epoch_ns  its end, exclusive
--
-- Columns:
--   task_type     text      type; null for tasks of unknown type
--   tasks         count     number of tasks of the type with an event
--   polls         count     polls that began in the range; null if polls were not recorded
--   median        ns        median duration of a poll
--   p99           ns        99th percentile of the durations
--   longest_poll  ns        longest poll
--   in_progress   ns        longest time for which a poll had lasted by the end of the range and not ended, at least
--   busy          ns        busy time of these polls: neither asleep nor waiting for a CPU
--   blocked       ns        time asleep inside polls, from the scheduler
--   cpu           ns        CPU time by samples: an estimate, known without polls too
--   file          text      source file of the future
--   line          id        line in it
--
-- Further columns:
--   kind          text      'task' or 'blocking' (work of the blocking pool); null if unknown
--   samples       count     number of CPU samples in it
WITH
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
-- Many polls, few buckets: counted before anything is looked up. `low` is the least duration of a bucket.
counted AS (
    SELECT type_id, (dur >> shift) << shift AS low, count(*) AS n, sum(busy) AS busy, max(dur) AS longest
    FROM (
        SELECT type_id, greatest(dur, 0) AS dur, dur - blocked - run_queue AS busy,
               CAST(floor(log2(CAST(greatest(dur, 64) AS DOUBLE))) AS BIGINT) - 6 AS shift
        FROM polls
        WHERE ts >= $from AND ts < $to
    )
    GROUP BY type_id, (dur >> shift) << shift
),
ranked AS (
    SELECT name, kind, file, line, n, busy, longest,
           low + (((CAST(1 AS BIGINT) << (CAST(floor(log2(CAST(greatest(low, 64) AS DOUBLE))) AS BIGINT) - 6)) - 1) >> 1)
               AS middle,
           sum(n) OVER (PARTITION BY name, kind, file, line ORDER BY low
                        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS upto,
           sum(n) OVER (PARTITION BY name, kind, file, line) AS count
    FROM (
        SELECT y.name, y.kind, y.file, y.line, c.low, sum(c.n) AS n, sum(c.busy) AS busy, max(c.longest) AS longest
        FROM counted c
        LEFT JOIN task_types y ON y.type_id = c.type_id
        GROUP BY y.name, y.kind, y.file, y.line, c.low
    )
),
polled AS (
    SELECT name, kind, file, line, sum(n) AS polls, sum(busy) AS busy, max(longest) AS longest_poll,
           least(min(CASE WHEN upto * 1000 >= count * 500 THEN middle END), max(longest)) AS median,
           least(min(CASE WHEN upto * 1000 >= count * 990 THEN middle END), max(longest)) AS p99
    FROM ranked
    GROUP BY name, kind, file, line
),
facts AS (
    SELECT task_id, min(type_id) AS type_id, 0 AS blocked, 0 AS busy, 0 AS samples, 0 AS cpu, 1 AS signs,
           CAST(NULL AS BIGINT) AS lasted
    FROM polls
    WHERE ts >= $from AND ts < $to
    GROUP BY task_id
    UNION ALL
    SELECT task_id, NULL, sum(CASE WHEN state = 'R' THEN 0 ELSE dur - coalesce(run_queue, 0) END), 0, 0, 0, 1, NULL
    FROM off_cpu
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    GROUP BY task_id
    UNION ALL
    SELECT task_id, NULL, 0, 0, count(*), sum(weight), 1, NULL
    FROM samples
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    GROUP BY task_id
    UNION ALL
    SELECT task_id, type_id, dur, 0, 0, 0, 1, NULL FROM sleep_in_progress
    UNION ALL
    SELECT task_id, type_id, 0, busy, 0, 0, 1, NULL FROM poll_in_progress
    UNION ALL
    SELECT task_id, NULL, 0, 0, 0, 0, 0, lasted FROM stuck
    UNION ALL
    SELECT task_id, NULL, 0, 0, 0, 0, 1, NULL
    FROM ends
    WHERE ts >= $from AND ts < $to
    GROUP BY task_id
    UNION ALL
    -- A task has one type, whenever it was recorded; but only a record in the time range is an event there.
    SELECT task_id, min(type_id), 0, 0, 0, 0, max(CASE WHEN ts >= $from AND ts < $to THEN 1 ELSE 0 END), NULL
    FROM (SELECT task_id, ts, type_id FROM tasks UNION ALL SELECT task_id, ts, type_id FROM spawns)
    GROUP BY task_id
),
seen AS (
    SELECT y.name, y.kind, y.file, y.line, count(*) AS tasks, sum(f.blocked) AS blocked, sum(f.busy) AS busy,
           sum(f.samples) AS samples, sum(f.cpu) AS cpu, max(f.lasted) AS lasted
    FROM (
        SELECT task_id, min(type_id) AS type_id, sum(blocked) AS blocked, sum(busy) AS busy, sum(samples) AS samples,
               sum(cpu) AS cpu, max(lasted) AS lasted
        FROM facts
        GROUP BY task_id
        HAVING max(signs) > 0
    ) f
    LEFT JOIN task_types y ON y.type_id = f.type_id
    GROUP BY y.name, y.kind, y.file, y.line
),
watched AS (
    -- part watched
    -- Whether polls were recorded in the window.
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
    -- end watched
),
-- One row per type: figures of its polls beside those of all other events.
merged AS (
    SELECT name, kind, file, line, max(tasks) AS tasks, max(polls) AS polls, sum(busy) AS busy, max(median) AS median,
           max(p99) AS p99, max(longest_poll) AS longest_poll, max(blocked) AS blocked, max(samples) AS samples,
           max(cpu) AS cpu, max(lasted) AS lasted
    FROM (
        SELECT name, kind, file, line, NULL AS tasks, polls, busy, median, p99, longest_poll, NULL AS blocked,
               NULL AS samples, NULL AS cpu, CAST(NULL AS BIGINT) AS lasted
        FROM polled
        UNION ALL
        SELECT name, kind, file, line, tasks, NULL, busy, NULL, NULL, NULL, blocked, samples, cpu, lasted FROM seen
    )
    GROUP BY name, kind, file, line
)
SELECT m.name AS task_type, CAST(coalesce(m.tasks, 0) AS BIGINT) AS tasks,
       CASE WHEN v.polls THEN CAST(coalesce(m.polls, 0) AS BIGINT) END AS polls,
       m.median, m.p99, m.longest_poll, m.lasted AS in_progress,
       CASE WHEN v.polls THEN CAST(coalesce(m.busy, 0) AS BIGINT) END AS busy,
       CAST(coalesce(m.blocked, 0) AS BIGINT) AS blocked, CAST(coalesce(m.cpu, 0) AS BIGINT) AS cpu,
       m.file, m.line, m.kind, CAST(coalesce(m.samples, 0) AS BIGINT) AS samples
FROM merged m
CROSS JOIN watched v
WHERE coalesce(m.kind, 'task') <> 'worker'
ORDER BY busy DESC NULLS LAST, cpu DESC, blocked DESC, task_type NULLS LAST
