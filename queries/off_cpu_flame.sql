-- off_cpu_flame: time asleep by whole stack, for flame graphs.
--
-- A row is a distinct stack with which threads fell asleep, as text, and the type of the task that they were polling:
-- `stack` and `weight` are what flamegraph.pl and inferno read. What a thread waited for a CPU after it was woken is
-- not in it, and preemptions are not. A sleep belongs to the window in which it began, in full. Inlined frames are in
-- the stack. A function without a name is its module in angle brackets, or <unknown>; a semicolon within a name is
-- written as a comma. A sleep without a stack is <no stack>; so are those of which only the sum was recorded
-- (`intervals` in `off_cpu`), whose task is that of the last.
--
-- Parameters:
--   $from       epoch_ns  sleeps that began from then on
--   $to         epoch_ns  and before
--   $task       id        only of this task; null = all
--   $thread     id        only of this thread; null = all
--
-- Columns:
--   stack       text      functions from the thread's start to the leaf, separated by semicolons; never null
--   weight      ns        time asleep
--   task_type   text      type of the task; null outside a task, and where not known
--   sleeps      count     times that it slept
--
-- Further columns:
--   frames      count     frames of the stack
WITH
type_of AS (
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
),
-- Text that cannot be taken for a separator.
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
        SELECT stack_id, unnest(frame_ids) AS frame_id,
               unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
        FROM stacks
    ) p
    LEFT JOIN frame f ON f.frame_id = p.frame_id
    GROUP BY p.stack_id
),
-- Many rows, few stacks: counted before anything is looked up.
counted AS (
    SELECT task_id, stack_id, sum(greatest(coalesce(intervals, 1), 1)) AS n,
           sum(dur - coalesce(run_queue, 0)) AS weight
    FROM off_cpu
    WHERE ts >= $from AND ts < $to AND state <> 'R'
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
    GROUP BY task_id, stack_id
),
typed AS (
    SELECT CASE WHEN y.kind <> 'worker' THEN y.name END AS task_type, c.stack_id,
           sum(c.n) AS n, sum(c.weight) AS weight
    FROM counted c
    LEFT JOIN type_of o ON o.task_id = c.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
    GROUP BY CASE WHEN y.kind <> 'worker' THEN y.name END, c.stack_id
)
SELECT coalesce(f.stack, '<no stack>') AS stack, CAST(sum(t.weight) AS BIGINT) AS weight, t.task_type,
       CAST(sum(t.n) AS BIGINT) AS sleeps, coalesce(f.frames, 0) AS frames
FROM typed t
LEFT JOIN folded f ON f.stack_id = t.stack_id
GROUP BY coalesce(f.stack, '<no stack>'), t.task_type, coalesce(f.frames, 0)
HAVING sum(t.weight) > 0
ORDER BY weight DESC, stack, task_type NULLS LAST, frames
