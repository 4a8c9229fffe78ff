-- await_flame: waiting time of tasks by await stack, for flame graphs.
--
-- A row is a distinct await stack of suspended tasks, as text, and their type. flamegraph.pl and inferno read the columns
-- `stack` and `weight`. This is an off-CPU profile of tasks instead of threads: where tasks wait, from the task's own future
-- to the future that waits.
--
-- The time is an estimate by sampling: the recorder reads the state of all tasks as recording begins, a second later, and
-- then every 10 s, and what a snapshot finds counts until the next one. So a wait that is short against that interval has
-- the right share only over many snapshots. Nothing counts after the last snapshot of the session. Intervals are clipped to
-- the time range. A task that waits for several futures at once counts in full at each of them.
--
-- A future is named by its type, and a semicolon in a name becomes a comma. Await stacks need a binary with type
-- information; without one a task's wait is <no stack>.
--
-- Parameters:
--   $from       epoch_ns  start of the time range
--   $to         epoch_ns  its end, exclusive
--   $task       id        only this task; null = all
--
-- Columns:
--   stack       text      functions from the task's own future to the one that waits, separated by semicolons; never null
--   weight      ns        time suspended there, summed over tasks
--   task_type   text      type of the tasks; null if unknown, and for futures that threads run by `block_on`
--   tasks       count     number of tasks
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
-- A state holds until a later snapshot finds another; all tasks have rows within 20 minutes.
found AS (
    SELECT *, coalesce(task_id, -tid) AS who
    FROM task_states
    WHERE ts >= $from - 1200000000000 AND ts < $to AND ($task IS NULL OR task_id = $task)
),
replaced AS (
    SELECT who, ts, lead(ts) OVER (PARTITION BY who ORDER BY ts) AS next_ts
    FROM (SELECT DISTINCT who, ts FROM found)
),
-- The last snapshot.
latest AS (
    SELECT max(ts + dur) AS ts FROM coverage WHERE stream = 'task_states' AND dur > 0
),
waits AS (
    SELECT s.who, s.stack_id, coalesce(s.type_id, p.type_id) AS type_id,
           least(coalesce(r.next_ts, l.ts), l.ts, $to) - greatest(s.ts, $from) AS weight
    FROM found s
    JOIN replaced r ON r.who = s.who AND r.ts = s.ts
    JOIN latest l ON l.ts > s.ts
    LEFT JOIN type_of p ON p.task_id = s.task_id
    WHERE s.state = 'suspended'
),
typed AS (
    SELECT w.who, w.stack_id, y.name AS task_type, sum(w.weight) AS weight
    FROM waits w
    LEFT JOIN task_types y ON y.type_id = w.type_id
    WHERE w.weight > 0
    GROUP BY w.who, w.stack_id, y.name
)
SELECT coalesce(f.stack, '<no stack>') AS stack, CAST(sum(t.weight) AS BIGINT) AS weight, t.task_type,
       count(DISTINCT t.who) AS tasks, coalesce(f.frames, 0) AS frames
FROM typed t
LEFT JOIN folded f ON f.stack_id = t.stack_id
GROUP BY coalesce(f.stack, '<no stack>'), t.task_type, coalesce(f.frames, 0)
ORDER BY weight DESC, stack, task_type NULLS LAST, frames
