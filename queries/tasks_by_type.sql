-- tasks_by_type: cost of each type of task, the busiest first.
--
-- A row is a type of task with any event in the time range: a poll, a sample, a sleep inside a poll, an end, or the record
-- of a task's type. Work of the blocking pool is included, workers' own loops are not. Percentiles are by nearest rank
-- over buckets a 64th of an octave wide, reported as the middle of the bucket and never above the longest: the error is at
-- most 0.8 %.
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
    SELECT task_id, min(type_id) AS type_id, 0 AS blocked, 0 AS samples, 0 AS cpu, 1 AS signs
    FROM polls
    WHERE ts >= $from AND ts < $to
    GROUP BY task_id
    UNION ALL
    SELECT task_id, NULL, sum(CASE WHEN state = 'R' THEN 0 ELSE dur - coalesce(run_queue, 0) END), 0, 0, 1
    FROM off_cpu
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    GROUP BY task_id
    UNION ALL
    SELECT task_id, NULL, 0, count(*), sum(weight), 1
    FROM samples
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    GROUP BY task_id
    UNION ALL
    SELECT task_id, NULL, 0, 0, 0, 1
    FROM ends
    WHERE ts >= $from AND ts < $to
    GROUP BY task_id
    UNION ALL
    -- A task has one type, whenever it was recorded; but only a record in the time range is an event there.
    SELECT task_id, min(type_id), 0, 0, 0, max(CASE WHEN ts >= $from AND ts < $to THEN 1 ELSE 0 END)
    FROM (SELECT task_id, ts, type_id FROM tasks UNION ALL SELECT task_id, ts, type_id FROM spawns)
    GROUP BY task_id
),
seen AS (
    SELECT y.name, y.kind, y.file, y.line, count(*) AS tasks, sum(f.blocked) AS blocked, sum(f.samples) AS samples,
           sum(f.cpu) AS cpu
    FROM (
        SELECT task_id, min(type_id) AS type_id, sum(blocked) AS blocked, sum(samples) AS samples, sum(cpu) AS cpu
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
    SELECT name, kind, file, line, max(tasks) AS tasks, max(polls) AS polls, max(busy) AS busy, max(median) AS median,
           max(p99) AS p99, max(longest_poll) AS longest_poll, max(blocked) AS blocked, max(samples) AS samples,
           max(cpu) AS cpu
    FROM (
        SELECT name, kind, file, line, NULL AS tasks, polls, busy, median, p99, longest_poll, NULL AS blocked,
               NULL AS samples, NULL AS cpu
        FROM polled
        UNION ALL
        SELECT name, kind, file, line, tasks, NULL, NULL, NULL, NULL, NULL, blocked, samples, cpu FROM seen
    )
    GROUP BY name, kind, file, line
)
SELECT m.name AS task_type, CAST(coalesce(m.tasks, 0) AS BIGINT) AS tasks,
       CASE WHEN v.polls THEN CAST(coalesce(m.polls, 0) AS BIGINT) END AS polls,
       m.median, m.p99, m.longest_poll,
       CASE WHEN v.polls THEN CAST(coalesce(m.busy, 0) AS BIGINT) END AS busy,
       CAST(coalesce(m.blocked, 0) AS BIGINT) AS blocked, CAST(coalesce(m.cpu, 0) AS BIGINT) AS cpu,
       m.file, m.line, m.kind, CAST(coalesce(m.samples, 0) AS BIGINT) AS samples
FROM merged m
CROSS JOIN watched v
WHERE coalesce(m.kind, 'task') <> 'worker'
ORDER BY busy DESC NULLS LAST, cpu DESC, blocked DESC, task_type NULLS LAST
