-- hotspots: CPU time by function.
--
-- A row is a function and a type of task that ran it. A sample is attributed to the first frame, from the leaf, of the
-- user's own code, inlined frames included: not to the code that it called in std, in a dependency or in the system. A
-- sample inside a task whose stack has no own frame (it is incomplete, or missing) is attributed to the task's type.
-- Outside tasks a sample is attributed to the first frame of a dependency or of tokio, else to the leaf.
--
-- Parameters:
--   $from       epoch_ns  start of the time range
--   $to         epoch_ns  its end, exclusive
--   $task       id        only this task; null = all
--   $thread     id        only this thread; null = all
--   $lines      flag      true: a row per line; false: a row per function, with its hottest line
--
-- Columns:
--   self        ns        CPU time attributed to it: the weight of its samples
--   self_share  share     `self` as a share of the CPU time of all samples
--   total       ns        CPU time of the samples that have it anywhere on the stack
--   samples     count     number of samples attributed to it
--   function    text      function, or the task's type if no own frame is known; never null
--   file        text      its source file; if a frame has no line, file and line of the task's type
--   line        id        line that was executing, the hottest one of the function
--   task_type   text      type of the task; null outside a task, or if unknown
--   leaf        text      most frequent function at the leaf of these stacks, which it was calling
WITH
-- Samples are many, stacks are few: counted before anything is looked up. If `$few`, this part has been materialized, and
-- only the stacks and tasks in it are read.
counted AS MATERIALIZED (
    SELECT task_id, stack_id, count(*) AS samples, sum(weight) AS weight
    FROM samples
    WHERE ts >= $from AND ts < $to
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
    GROUP BY task_id, stack_id
),
-- Independent of `counted`, so that types are looked up while samples are counted.
sampled_task AS MATERIALIZED (
    SELECT DISTINCT task_id
    FROM samples
    WHERE ts >= $from AND ts < $to
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
),
-- As in parts/type_of.sql, but only for the tasks above.
type_of AS MATERIALIZED (
    SELECT o.task_id, min(o.type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns) o
    WHERE o.type_id IS NOT NULL AND o.task_id IN (SELECT task_id FROM sampled_task)
    GROUP BY o.task_id
),
sampled AS (
    SELECT stack_id, frame_ids
    FROM stacks
    WHERE NOT $few OR stack_id IN (SELECT stack_id FROM counted)
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
    SELECT stack_id, unnest(frame_ids) AS frame_id,
           unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
    FROM sampled
),
-- The frame to which a stack is attributed.
attribution AS MATERIALIZED (
    SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, 1)] AS frame_id, d.own IS NOT NULL AS is_own,
           s.frame_ids[1] AS leaf_id
    FROM sampled s
    LEFT JOIN (
        SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
               min(CASE WHEN f.origin IN ('dependency', 'tokio') THEN p.depth END) AS near
        FROM placed p
        JOIN frame f ON f.frame_id = p.frame_id
        WHERE f.is_named
        GROUP BY p.stack_id
    ) d ON d.stack_id = s.stack_id
),
by_type_id AS (
    SELECT o.type_id, c.stack_id, sum(c.samples) AS samples, sum(c.weight) AS weight
    FROM counted c
    LEFT JOIN type_of o ON o.task_id = c.task_id
    GROUP BY o.type_id, c.stack_id
),
typed AS (
    SELECT y.name AS task_type, y.file AS task_file, y.line AS task_line, c.stack_id,
           sum(c.samples) AS samples, sum(c.weight) AS weight
    FROM by_type_id c
    LEFT JOIN task_types y ON y.type_id = c.type_id AND y.kind <> 'worker'
    GROUP BY y.name, y.file, y.line, c.stack_id
),
attributed AS (
    SELECT t.*, l.function AS leaf,
           CASE WHEN b.is_own THEN f.function ELSE coalesce(t.task_type, f.function, '<no stack>') END AS function,
           f.file AS own_file, f.line AS own_line,
           t.task_type IS NOT NULL
               AND (NOT coalesce(b.is_own, false) OR (f.line IS NULL AND t.task_line IS NOT NULL)) AS by_type
    FROM typed t
    LEFT JOIN attribution b ON b.stack_id = t.stack_id
    LEFT JOIN frame f ON f.frame_id = b.frame_id
    LEFT JOIN frame l ON l.frame_id = b.leaf_id
),
located AS (
    SELECT task_type, task_file, task_line, stack_id, samples, weight, leaf, function,
           CASE WHEN by_type THEN task_file ELSE own_file END AS file,
           CASE WHEN by_type THEN task_line ELSE own_line END AS line
    FROM attributed
),
-- The hottest line of a function, and the function that it was calling most.
weighed AS (
    SELECT *, CASE WHEN $lines THEN line END AS line_key,
           sum(weight) OVER (PARTITION BY function, file, task_type, line) AS line_self,
           -- `line` last: with it twice in a partition, DuckDB 1.4 takes this one for the one above.
           sum(weight) OVER (PARTITION BY function, file, task_type, leaf, CASE WHEN $lines THEN line END) AS leaf_self
    FROM located
),
-- By whole partitions: row by row, as it is without the frame, takes DataFusion 55 fifty times as long.
topped AS MATERIALIZED (
    SELECT task_type, stack_id, samples, weight, function, file, line_key,
           first_value(line) OVER (PARTITION BY function, file, line_key, task_type
                                   ORDER BY line_self DESC, line NULLS LAST
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS top_line,
           first_value(leaf) OVER (PARTITION BY function, file, line_key, task_type
                                   ORDER BY leaf_self DESC, leaf NULLS LAST
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS top_leaf
    FROM weighed
),
-- Functions by number: that of the first frame that is in it.
spot AS MATERIALIZED (
    SELECT frame_id, function, file, CASE WHEN $lines THEN line END AS line_key,
           min(frame_id) OVER (PARTITION BY function, file, CASE WHEN $lines THEN line END) AS spot
    FROM frame
),
-- Each function of a stack to which samples are attributed, once.
reach AS MATERIALIZED (
    SELECT stack_id, CAST(NULL AS BIGINT) AS spot, true AS is_itself FROM sampled
    UNION ALL
    -- `coalesce` hides that stacks come in order: DataFusion 55 would keep it, and sort for it.
    SELECT DISTINCT coalesce(p.stack_id, 0), s.spot, false
    FROM placed p
    JOIN spot s ON s.frame_id = p.frame_id
    WHERE s.spot IN (SELECT b.spot FROM spot b WHERE b.frame_id IN (SELECT frame_id FROM attribution)
                     UNION
                     SELECT b.spot FROM spot b WHERE b.function IN (SELECT name FROM task_types))
),
reached AS (
    SELECT t.task_type, t.weight, coalesce(r.is_itself, true) AS is_itself, t.samples, t.top_line, t.top_leaf,
           CASE WHEN coalesce(r.is_itself, true) THEN t.function ELSE s.function END AS function,
           CASE WHEN coalesce(r.is_itself, true) THEN t.file ELSE s.file END AS file,
           CASE WHEN coalesce(r.is_itself, true) THEN t.line_key ELSE s.line_key END AS line_key
    FROM topped t
    LEFT JOIN reach r ON r.stack_id = t.stack_id
    LEFT JOIN spot s ON s.frame_id = r.spot
    WHERE coalesce(r.is_itself, true)
       OR s.function <> t.function OR (s.file IS DISTINCT FROM t.file) OR (s.line_key IS DISTINCT FROM t.line_key)
),
summed AS (
    SELECT function, file, line_key, task_type, sum(CASE WHEN is_itself THEN weight ELSE 0 END) AS self,
           sum(weight) AS total, sum(CASE WHEN is_itself THEN samples ELSE 0 END) AS samples,
           min(CASE WHEN is_itself THEN top_line END) AS line, min(CASE WHEN is_itself THEN top_leaf END) AS leaf
    FROM reached
    GROUP BY function, file, line_key, task_type
)
SELECT CAST(self AS BIGINT) AS self,
       CAST(self AS DOUBLE) / sum(self) OVER () AS self_share,
       CAST(total AS BIGINT) AS total,
       CAST(samples AS BIGINT) AS samples,
       function, file, line, task_type, leaf
FROM summed
WHERE self > 0
ORDER BY self DESC, function, file NULLS LAST, line NULLS LAST, task_type NULLS LAST
