-- tasks_by_type: what each type of task cost, the busiest first.
--
-- A row is a type of task, of which at least one was met in the window: polled, sampled, asleep inside a poll, or told
-- by its type. Work of the blocking pool is among them, the workers' own loops are not.
--
-- Parameters:
--   $from         epoch_ns  start of the window
--   $to           epoch_ns  end of the window
--
-- Columns:
--   task_type     text      type; null for the tasks whose type is not known
--   tasks         count     tasks of it that were met
--   polls         count     polls that began in the window; null where none were recorded
--   median        ns        median duration of a poll
--   p99           ns        99th percentile of the durations, interpolated
--   longest_poll  ns        the longest poll
--   busy          ns        computing inside these polls: neither asleep nor waiting for a CPU
--   blocked       ns        asleep inside polls, from the scheduler
--   cpu           ns        CPU time by samples: an estimate, there without polls too
--   file          text      where the future is written
--   line          id        line in it
--
-- Further columns:
--   kind          text      'task' or 'blocking' (work of the blocking pool); null where not known
--   samples       count     CPU samples in it
WITH
-- A task's type is told when the task is first met, and by each of its polls.
type_of AS (
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks
          UNION ALL SELECT task_id, type_id FROM spawns
          UNION ALL SELECT task_id, type_id FROM polls)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
),
polled AS (
    SELECT y.name, y.kind, y.file, y.line, count(*) AS polls, sum(p.dur - p.blocked - p.run_queue) AS busy,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY p.dur) AS median,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY p.dur) AS p99, max(p.dur) AS longest_poll
    FROM polls p
    LEFT JOIN task_types y ON y.type_id = p.type_id
    WHERE p.ts >= $from AND p.ts < $to
    GROUP BY y.name, y.kind, y.file, y.line
),
facts AS (
    SELECT task_id, 0 AS blocked, 0 AS samples, 0 AS cpu FROM polls WHERE ts >= $from AND ts < $to GROUP BY task_id
    UNION ALL
    SELECT task_id, sum(CASE WHEN state = 'R' THEN 0 ELSE dur - coalesce(run_queue, 0) END), 0, 0
    FROM off_cpu
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    GROUP BY task_id
    UNION ALL
    SELECT task_id, 0, count(*), sum(weight)
    FROM samples
    WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    GROUP BY task_id
    UNION ALL
    SELECT task_id, 0, 0, 0
    FROM (SELECT task_id, ts FROM tasks UNION ALL SELECT task_id, ts FROM spawns UNION ALL SELECT task_id, ts FROM ends)
    WHERE ts >= $from AND ts < $to
    GROUP BY task_id
),
met AS (
    SELECT y.name, y.kind, y.file, y.line, count(DISTINCT f.task_id) AS tasks, sum(f.blocked) AS blocked,
           sum(f.samples) AS samples, sum(f.cpu) AS cpu
    FROM facts f
    LEFT JOIN type_of o ON o.task_id = f.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
    GROUP BY y.name, y.kind, y.file, y.line
),
watched AS (
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
),
-- One row a type: what its polls say, beside what everything else says.
merged AS (
    SELECT name, kind, file, line, max(tasks) AS tasks, max(polls) AS polls, max(busy) AS busy, max(median) AS median,
           max(p99) AS p99, max(longest_poll) AS longest_poll, max(blocked) AS blocked, max(samples) AS samples,
           max(cpu) AS cpu
    FROM (
        SELECT name, kind, file, line, NULL AS tasks, polls, busy, median, p99, longest_poll, NULL AS blocked,
               NULL AS samples, NULL AS cpu
        FROM polled
        UNION ALL
        SELECT name, kind, file, line, tasks, NULL, NULL, NULL, NULL, NULL, blocked, samples, cpu FROM met
    )
    GROUP BY name, kind, file, line
)
SELECT m.name AS task_type, CAST(coalesce(m.tasks, 0) AS BIGINT) AS tasks,
       CASE WHEN v.polls THEN CAST(coalesce(m.polls, 0) AS BIGINT) END AS polls,
       CAST(round(m.median) AS BIGINT) AS median, CAST(round(m.p99) AS BIGINT) AS p99, m.longest_poll,
       CASE WHEN v.polls THEN CAST(coalesce(m.busy, 0) AS BIGINT) END AS busy,
       CAST(coalesce(m.blocked, 0) AS BIGINT) AS blocked, CAST(coalesce(m.cpu, 0) AS BIGINT) AS cpu,
       m.file, m.line, m.kind, CAST(coalesce(m.samples, 0) AS BIGINT) AS samples
FROM merged m
CROSS JOIN watched v
WHERE coalesce(m.kind, 'task') <> 'worker'
ORDER BY busy DESC NULLS LAST, cpu DESC, blocked DESC, task_type NULLS LAST
