-- in_progress: polls that had not ended when they were observed, longest first.
--
-- A row is a poll that had lasted for at least 100 ms at an observation in the time range. The recorder looks at each
-- worker's thread, and at other threads that poll tasks, at the attach and each second: polls that began before the attach
-- and never end are here and in no other table. The row shows the last observation in the time range.
--
-- That it is one poll is certain where polls were recorded, and while the thread slept: it was not switched since. Where a
-- thread stayed on its CPU while polls were not recorded, there may have been several polls of the task (`estimated`).
--
-- Workers' loops and work of the blocking pool are not listed. A task inside `block_in_place` is (`in_place`), although it
-- keeps no other task waiting.
--
-- Parameters:
--   $from       epoch_ns  start of the time range of observations
--   $to         epoch_ns  its end, exclusive
--   $task       id        only polls of this task; null = all
--   $thread     id        only polls on this thread; null = all
--
-- Columns:
--   lasted      ns        time for which it had lasted by the last observation, at least
--   since       epoch_ns  when it had begun by; null if that was before the attach
--   state       text      'blocked' (asleep), 'runnable' (waiting for a CPU) or 'running' at the last observation
--   ended       flag      whether it was no longer in progress, or no longer certainly, at an observation after that
--   estimated   flag      whether there may have been several polls
--   function    text      first own function on the thread's stack, from the leaf; the task's type if none is known
--   file        text      its source file; if a frame has no line, file and line of the task's type
--   line        id        line in it
--   task_type   text      type of the task; null if unknown
--
-- Further columns:
--   ts          epoch_ns  the last observation
--   first_ts    epoch_ns  the first one
--   task_id     id        task
--   tid         id        thread
--   thread      text      name of that thread
--   worker      id        number of the worker; null for other threads
--   in_place    flag      whether the task had called `block_in_place`
WITH
thread_name AS (
    -- part thread_name
    SELECT tid, name
    FROM (SELECT tid, name, row_number() OVER (PARTITION BY tid ORDER BY ts DESC, name) AS n FROM threads)
    WHERE n = 1
    -- end thread_name
),
type_of AS (
    -- part type_of
    -- A task's type is recorded when the task is first seen, and when it is spawned.
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
    -- end type_of
),
placed AS (
    -- part placed
    SELECT stack_id, unnest(frame_ids) AS frame_id,
           unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
    FROM stacks
    -- end placed
),
in_place AS (
    -- part stack_fact
    -- Whether the innermost task of a stack has called `block_in_place`.
    SELECT stack_id, coalesce(in_place < coalesce(polled, in_place + 1), false) AS in_place
    FROM (
        SELECT p.stack_id,
               min(CASE WHEN f.function LIKE '%block_in_place%' THEN p.depth END) AS in_place,
               min(CASE WHEN f.function LIKE 'tokio::runtime::task::%poll%'
                        THEN p.depth END) AS polled
        FROM (
            -- part placed
            SELECT stack_id, unnest(frame_ids) AS frame_id,
                   unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
            FROM stacks
            -- end placed
        ) p
        JOIN frames f ON f.frame_id = p.frame_id
        WHERE f.origin = 'tokio'
        GROUP BY p.stack_id
    )
    -- end stack_fact
),
-- The frame to which a stack is attributed.
attribution AS (
    SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, 1)] AS frame_id, d.own IS NOT NULL AS is_own
    FROM stacks s
    LEFT JOIN (
        SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
               min(CASE WHEN f.origin IN ('dependency', 'tokio') THEN p.depth END) AS near
        FROM placed p
        JOIN frames f ON f.frame_id = p.frame_id
        WHERE f.function IS NOT NULL
        GROUP BY p.stack_id
    ) d ON d.stack_id = s.stack_id
),
-- Observations of one poll have the same begin.
observed AS (
    SELECT *, row_number() OVER (PARTITION BY tid, task_id, estimated, ts - lasted ORDER BY ts DESC) AS n,
           min(ts) OVER (PARTITION BY tid, task_id, estimated, ts - lasted) AS first_ts
    FROM in_progress
    WHERE ts >= $from AND ts < $to AND NOT ended
      AND ($task IS NULL OR task_id = $task)
      AND ($thread IS NULL OR tid = $thread)
),
-- The row that closes a poll repeats for how long it was observed.
closed AS (
    SELECT DISTINCT tid, task_id, estimated, lasted
    FROM in_progress
    WHERE ts >= $from AND ts < $to AND ended
)
SELECT o.lasted, o.since, o.state, c.tid IS NOT NULL AS ended, o.estimated,
       CASE WHEN a.is_own THEN f.function ELSE coalesce(y.name, f.function, '<unknown>') END AS function,
       CASE WHEN y.name IS NOT NULL
             AND (NOT coalesce(a.is_own, false) OR (f.line IS NULL AND y.line IS NOT NULL))
            THEN y.file ELSE f.file END AS file,
       CASE WHEN y.name IS NOT NULL
             AND (NOT coalesce(a.is_own, false) OR (f.line IS NULL AND y.line IS NOT NULL))
            THEN y.line ELSE f.line END AS line,
       y.name AS task_type, o.ts, o.first_ts, o.task_id, o.tid, t.name AS thread, o.worker,
       coalesce(i.in_place, false) AS in_place
FROM observed o
LEFT JOIN closed c ON c.tid = o.tid AND c.task_id = o.task_id AND c.estimated = o.estimated AND c.lasted = o.lasted
LEFT JOIN attribution a ON a.stack_id = o.stack_id
LEFT JOIN in_place i ON i.stack_id = o.stack_id
LEFT JOIN frames f ON f.frame_id = a.frame_id
LEFT JOIN type_of p ON p.task_id = o.task_id
LEFT JOIN task_types y ON y.type_id = coalesce(o.type_id, p.type_id)
LEFT JOIN thread_name t ON t.tid = o.tid
WHERE o.n = 1
ORDER BY o.lasted DESC, o.tid, o.ts, o.task_id
