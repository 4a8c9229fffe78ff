-- tasks: cost of each task, the busiest first.
--
-- A row is a task with any event in the time range: a poll, a sample, a sleep inside a poll, an end, or the record of its
-- type. Work of the blocking pool is included, workers' own loops are not. `busy` and `blocked` include the part in the time
-- range of polls in progress (100 ms or more), which are in no other table.
--
-- Parameters:
--   $from         epoch_ns  start of the time range
--   $to           epoch_ns  its end, exclusive
--   $task         id        only this task; null = all
--
-- Columns:
--   task_id       id        task
--   task_type     text      type of the task; null if unknown
--   file          text      source file of its future
--   line          id        line in it
--   polls         count     polls that began in the range; null if polls were not recorded
--   busy          ns        busy time of these polls: neither asleep nor waiting for a CPU
--   blocked       ns        time asleep inside polls, from the scheduler
--   longest_poll  ns        longest poll
--   in_progress   ns        time for which its poll had lasted by the end of the range and not ended, at least
--   cpu           ns        CPU time by samples: an estimate, known without polls too
--   first_seen    epoch_ns  first event in the time range
--   last_seen     epoch_ns  last event in the time range
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
facts AS (
    SELECT task_id, min(type_id) AS type_id, count(*) AS polls, sum(dur - blocked - run_queue) AS busy,
           max(dur) AS longest_poll, 0 AS blocked, 0 AS samples, 0 AS cpu, min(ts) AS first_seen,
           max(ts + dur) AS last_seen
    FROM polls
    WHERE ts >= $from AND ts < $to AND ($task IS NULL OR task_id = $task)
    GROUP BY task_id
    UNION ALL
    SELECT task_id, NULL, 0, 0, NULL, sum(CASE WHEN state = 'R' THEN 0 ELSE dur - coalesce(run_queue, 0) END), 0, 0,
           min(ts), max(ts + dur)
    FROM off_cpu
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL AND ($task IS NULL OR task_id = $task)
    GROUP BY task_id
    UNION ALL
    SELECT task_id, NULL, 0, 0, NULL, 0, count(*), sum(weight), min(ts), max(ts)
    FROM samples
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL AND ($task IS NULL OR task_id = $task)
    GROUP BY task_id
    UNION ALL
    SELECT task_id, type_id, 0, 0, NULL, dur, 0, 0, ts, ts + dur
    FROM sleep_in_progress
    WHERE $task IS NULL OR task_id = $task
    UNION ALL
    SELECT task_id, type_id, 0, busy, NULL, 0, 0, 0, ts, end_ts
    FROM poll_in_progress
    WHERE $task IS NULL OR task_id = $task
    UNION ALL
    SELECT task_id, NULL, 0, 0, NULL, 0, 0, 0, min(ts), max(ts)
    FROM ends
    WHERE ts >= $from AND ts < $to AND ($task IS NULL OR task_id = $task)
    GROUP BY task_id
    UNION ALL
    -- A task has one type, whenever it was recorded; but only a record in the time range is an event there.
    SELECT task_id, min(type_id), 0, 0, NULL, 0, 0, 0, min(CASE WHEN ts >= $from AND ts < $to THEN ts END),
           max(CASE WHEN ts >= $from AND ts < $to THEN ts END)
    FROM (SELECT task_id, ts, type_id FROM tasks UNION ALL SELECT task_id, ts, type_id FROM spawns)
    WHERE $task IS NULL OR task_id = $task
    GROUP BY task_id
),
watched AS (
    -- part watched
    -- Whether polls were recorded in the window.
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
    -- end watched
),
summed AS (
    SELECT task_id, min(type_id) AS type_id, sum(polls) AS polls, sum(busy) AS busy,
           max(longest_poll) AS longest_poll, sum(blocked) AS blocked, sum(samples) AS samples, sum(cpu) AS cpu,
           min(first_seen) AS first_seen, max(last_seen) AS last_seen
    FROM facts
    GROUP BY task_id
)
SELECT s.task_id, y.name AS task_type, y.file, y.line,
       CASE WHEN v.polls THEN CAST(s.polls AS BIGINT) END AS polls,
       CASE WHEN v.polls THEN CAST(s.busy AS BIGINT) END AS busy,
       CAST(s.blocked AS BIGINT) AS blocked, s.longest_poll, k.lasted AS in_progress, CAST(s.cpu AS BIGINT) AS cpu, s.first_seen, s.last_seen,
       y.kind, CAST(s.samples AS BIGINT) AS samples
FROM summed s
CROSS JOIN watched v
LEFT JOIN task_types y ON y.type_id = s.type_id
LEFT JOIN (SELECT task_id, max(lasted) AS lasted FROM stuck GROUP BY task_id) k ON k.task_id = s.task_id
WHERE s.first_seen IS NOT NULL AND coalesce(y.kind, 'task') <> 'worker'
ORDER BY busy DESC NULLS LAST, cpu DESC, blocked DESC, s.task_id
