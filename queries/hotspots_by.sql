-- hotspots_by: time by any of function, line, type of task, thread and state, most first.
--
-- The flags select the columns by which time is grouped; the columns of the others are null. By default only CPU time
-- counts, by samples. With $states, off-CPU intervals that began in the time range count too, from the scheduler. Samples
-- and intervals are attributed as in hotspots.sql. Preemptions have no stack, and neither have sums of intervals
-- (`intervals` in `off_cpu`).
--
-- Parameters:
--   $from       epoch_ns  start of the time range of samples, and in which intervals begin
--   $to         epoch_ns  its end, exclusive
--   $task       id        only this task; null = all
--   $thread     id        only this thread; null = all
--   $functions  flag      group by function and its file (default true)
--   $lines      flag      group by line too, if $functions is true
--   $types      flag      group by type of task (default true)
--   $threads    flag      group by thread
--   $states     flag      group by state, and include off-CPU intervals
--
-- Columns:
--   time        ns        weight of the samples, or duration of the intervals
--   share       share     `time` as a share of the time of all rows
--   count       count     number of samples or intervals; of a sum, the number of intervals in it
--   function    text      function, or the task's type if no own frame is known
--   file        text      its source file; if a frame has no line, file of the task's type
--   line        id        line in it
--   task_type   text      type of the task; null outside a task, or if unknown
--   thread      text      name of the thread
--   state       text      'running' on a CPU, 'asleep', or 'waiting' for a CPU
--
-- Further columns:
--   tid         id        thread
WITH
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
),
frame AS MATERIALIZED (
    -- part frame
    SELECT f.frame_id, coalesce(f.function, '<' || split_part(m.path, '/', -1) || '>', '<unknown>') AS function,
           f.file, f.line, f.origin, f.function IS NOT NULL AS is_named
    FROM frames f
    LEFT JOIN (SELECT module_id, min(path) AS path FROM modules GROUP BY module_id) m ON m.module_id = f.module_id
    -- end frame
),
placed AS (
    -- part placed
    SELECT stack_id, unnest(frame_ids) AS frame_id,
           unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
    FROM stacks
    -- end placed
),
attribution AS (
    SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, 1)] AS frame_id, d.own IS NOT NULL AS is_own
    FROM stacks s
    LEFT JOIN (
        SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
               min(CASE WHEN f.origin IN ('dependency', 'tokio') THEN p.depth END) AS near
        FROM placed p
        JOIN frame f ON f.frame_id = p.frame_id
        WHERE f.is_named
        GROUP BY p.stack_id
    ) d ON d.stack_id = s.stack_id
),
-- Rows are many, stacks are few: counted before anything is looked up.
counted AS (
    SELECT task_id, stack_id, CASE WHEN $threads THEN tid END AS tid, 'running' AS state, count(*) AS n,
           sum(weight) AS time
    FROM samples
    WHERE ts >= $from AND ts < $to
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
    GROUP BY task_id, stack_id, CASE WHEN $threads THEN tid END
    UNION ALL
    SELECT task_id, stack_id, CASE WHEN $threads THEN tid END, 'asleep',
           sum(greatest(coalesce(intervals, 1), 1)), sum(dur - coalesce(run_queue, 0))
    FROM off_cpu
    WHERE $states AND ts >= $from AND ts < $to AND state <> 'R'
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
    GROUP BY task_id, stack_id, CASE WHEN $threads THEN tid END
    UNION ALL
    SELECT task_id, stack_id, CASE WHEN $threads THEN tid END, 'waiting',
           sum(greatest(coalesce(intervals, 1), 1)),
           sum(CASE WHEN state = 'R' THEN dur ELSE run_queue END)
    FROM off_cpu
    WHERE $states AND ts >= $from AND ts < $to AND (state = 'R' OR run_queue > 0)
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
    GROUP BY task_id, stack_id, CASE WHEN $threads THEN tid END
),
typed AS (
    SELECT y.type_id, c.stack_id, c.tid, c.state, sum(c.n) AS n, sum(c.time) AS time
    FROM counted c
    LEFT JOIN type_of o ON o.task_id = c.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id AND y.kind <> 'worker'
    GROUP BY y.type_id, c.stack_id, c.tid, c.state
),
attributed AS (
    SELECT t.*, y.name AS task_type, y.file AS task_file, y.line AS task_line, f.file AS own_file, f.line AS own_line,
           CASE WHEN b.is_own THEN f.function ELSE coalesce(y.name, f.function, '<no stack>') END AS function,
           y.name IS NOT NULL
               AND (NOT coalesce(b.is_own, false) OR (f.line IS NULL AND y.line IS NOT NULL)) AS by_type
    FROM typed t
    LEFT JOIN task_types y ON y.type_id = t.type_id
    LEFT JOIN attribution b ON b.stack_id = t.stack_id
    LEFT JOIN frame f ON f.frame_id = b.frame_id
),
grouped AS (
    SELECT CASE WHEN $functions THEN function END AS function,
           CASE WHEN $functions THEN CASE WHEN by_type THEN task_file ELSE own_file END END AS file,
           CASE WHEN $functions AND $lines THEN CASE WHEN by_type THEN task_line ELSE own_line END END AS line,
           CASE WHEN $types THEN task_type END AS task_type, tid, CASE WHEN $states THEN state END AS state,
           sum(n) AS n, sum(time) AS time
    FROM attributed
    GROUP BY CASE WHEN $functions THEN function END,
             CASE WHEN $functions THEN CASE WHEN by_type THEN task_file ELSE own_file END END,
             CASE WHEN $functions AND $lines THEN CASE WHEN by_type THEN task_line ELSE own_line END END,
             CASE WHEN $types THEN task_type END, tid, CASE WHEN $states THEN state END
)
SELECT CAST(g.time AS BIGINT) AS time, CAST(g.time AS DOUBLE) / sum(g.time) OVER () AS share,
       CAST(g.n AS BIGINT) AS count, g.function, g.file, g.line, g.task_type, t.name AS thread, g.state, g.tid
FROM grouped g
LEFT JOIN thread_name t ON t.tid = g.tid
WHERE g.time > 0
ORDER BY time DESC, g.function NULLS LAST, g.file NULLS LAST, g.line NULLS LAST, g.task_type NULLS LAST,
         g.tid NULLS LAST, g.state
