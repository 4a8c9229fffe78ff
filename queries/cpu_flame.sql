-- cpu_flame: CPU time by whole stack, for flame graphs.
--
-- A row is a distinct stack of CPU samples, as text, and the type of task that ran it. flamegraph.pl and inferno read the
-- columns `stack` and `weight`. Inlined frames are included. A function without a name is its module in angle brackets, or
-- <unknown>; a semicolon in a name becomes a comma. A sample without a stack is <no stack>.
--
-- Parameters:
--   $from       epoch_ns  start of the time range
--   $to         epoch_ns  its end, exclusive
--   $task       id        only this task; null = all
--   $thread     id        only this thread; null = all
--
-- Columns:
--   stack       text      functions from the thread's start to the leaf, separated by semicolons; never null
--   weight      ns        CPU time that the samples represent
--   task_type   text      type of the task; null outside a task, or if unknown
--   samples     count     number of samples
--
-- Further columns:
--   frames      count     number of frames of the stack
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
-- part folded
-- Stacks as text, without the separators of the format in names.
frame AS (
    SELECT f.frame_id,
           replace(replace(coalesce(f.function, '<' || split_part(m.path, '/', -1) || '>', '<unknown>'), ';', ','),
                   chr(10), ' ') AS function
    FROM frames f
    LEFT JOIN (SELECT module_id, min(path) AS path FROM modules GROUP BY module_id) m ON m.module_id = f.module_id
),
folded AS (
    SELECT p.stack_id, string_agg(coalesce(f.function, '<unknown>'), ';' ORDER BY p.depth DESC) AS stack,
           count(*) AS frames
    FROM (
        -- part placed
        SELECT stack_id, unnest(frame_ids) AS frame_id,
               unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
        FROM stacks
        -- end placed
    ) p
    LEFT JOIN frame f ON f.frame_id = p.frame_id
    GROUP BY p.stack_id
),
-- end folded
-- Many rows, few stacks: counted before anything is looked up.
counted AS (
    SELECT task_id, stack_id, count(*) AS n, sum(weight) AS weight
    FROM samples
    WHERE ts >= $from AND ts < $to
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
    GROUP BY task_id, stack_id
),
typed AS (
    -- part typed_stack
    SELECT CASE WHEN y.kind <> 'worker' THEN y.name END AS task_type, c.stack_id,
           sum(c.n) AS n, sum(c.weight) AS weight
    FROM counted c
    LEFT JOIN type_of o ON o.task_id = c.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
    GROUP BY CASE WHEN y.kind <> 'worker' THEN y.name END, c.stack_id
    -- end typed_stack
)
SELECT coalesce(f.stack, '<no stack>') AS stack, CAST(sum(t.weight) AS BIGINT) AS weight, t.task_type,
       CAST(sum(t.n) AS BIGINT) AS samples, coalesce(f.frames, 0) AS frames
FROM typed t
LEFT JOIN folded f ON f.stack_id = t.stack_id
GROUP BY coalesce(f.stack, '<no stack>'), t.task_type, coalesce(f.frames, 0)
HAVING sum(t.weight) > 0
ORDER BY weight DESC, stack, task_type NULLS LAST, frames
