-- tasks: cost of each task, the busiest first.
--
-- A row is a task with any event in the time range: a poll, a sample, a sleep inside a poll, an end, or the record of its
-- type. Work of the blocking pool is included, workers' own loops are not.
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
--   cpu           ns        CPU time by samples: an estimate, known without polls too
--   first_seen    epoch_ns  first event in the time range
--   last_seen     epoch_ns  last event in the time range
--
-- Further columns:
--   kind          text      'task' or 'blocking' (work of the blocking pool); null if unknown
--   samples       count     number of CPU samples in it
WITH
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
       CAST(s.blocked AS BIGINT) AS blocked, s.longest_poll, CAST(s.cpu AS BIGINT) AS cpu, s.first_seen, s.last_seen,
       y.kind, CAST(s.samples AS BIGINT) AS samples
FROM summed s
CROSS JOIN watched v
LEFT JOIN task_types y ON y.type_id = s.type_id
WHERE s.first_seen IS NOT NULL AND coalesce(y.kind, 'task') <> 'worker'
ORDER BY busy DESC NULLS LAST, cpu DESC, blocked DESC, s.task_id
