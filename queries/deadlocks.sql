-- deadlocks: tasks that waited for each other in a cycle, longest first.
--
-- A row is a deadlock that a snapshot of all tasks found in the time range: tasks of which each waits for a lock that the
-- next one certainly holds, for room in a channel that it receives from, or for its end. A task that waits for itself is
-- one too. They end only if one of the tasks is aborted. The row shows the last snapshot in the time range that found it.
--
-- A deadlock that one snapshot found (`snapshots`) is not certain: tasks are read one after the other while they run.
--
-- Parameters:
--   $from            epoch_ns  start of the time range
--   $to              epoch_ns  its end, exclusive
--   $task            id        only deadlocks of this task; null = all
--
-- Columns:
--   cycle            id        its number, the smallest id of its tasks
--   tasks            count     number of tasks in it
--   lasted           ns        time for which all of them have been found there, at least
--   waits            text      each task with its type, its place, and the task for which it waits
--   snapshots        count     snapshots in the time range that found it
--
-- Further columns:
--   since            epoch_ns  the first snapshot that found all of them there
--   first_ts         epoch_ns  the first snapshot in the time range that found it
--   ts               epoch_ns  the last one
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
placed AS (
    -- part placed
    SELECT stack_id, unnest(frame_ids) AS frame_id,
           unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
    FROM stacks
    -- end placed
),
-- The frame of each await stack to which the wait is attributed.
attribution AS (
    -- part await_place
    -- The innermost own function; without one that of a dependency, else the outermost.
    SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, d.last)] AS frame_id
    FROM stacks s
    JOIN (
        SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
               min(CASE WHEN f.origin = 'dependency' THEN p.depth END) AS near, max(p.depth) AS last
        FROM placed p
        JOIN frames f ON f.frame_id = p.frame_id
        WHERE f.function IS NOT NULL
        GROUP BY p.stack_id
    ) d ON d.stack_id = s.stack_id
    -- end await_place
),
found AS (
    SELECT t.*, max(t.ts) OVER (PARTITION BY t.cycle) AS last_ts, min(t.ts) OVER (PARTITION BY t.cycle) AS first_ts
    FROM task_states t
    WHERE t.ts >= $from AND t.ts < $to AND t.cycle IS NOT NULL
),
counted AS (
    SELECT cycle, count(DISTINCT ts) AS snapshots, max(CASE WHEN task_id = $task THEN 1 ELSE 0 END) AS is_wanted
    FROM found
    GROUP BY cycle
)
SELECT w.cycle, count(*) AS tasks, max(w.ts) - max(w.since) AS lasted,
       string_agg(coalesce(CAST(w.task_id AS VARCHAR), 'thread ' || CAST(w.tid AS VARCHAR), '?') || ' '
                  || coalesce(y.name, '<unknown>') || ' in ' || coalesce(f.function, '<unknown>')
                  || coalesce(' at ' || f.file || ':' || CAST(f.line AS VARCHAR), '') || ' waits for '
                  || coalesce(CAST(w.holder_task_id AS VARCHAR), 'thread ' || CAST(w.holder_tid AS VARCHAR), '?'),
                  '; ' ORDER BY w.task_id, w.tid, w.branch) AS waits,
       c.snapshots, max(w.since) AS since, min(w.first_ts) AS first_ts, max(w.ts) AS ts
FROM found w
JOIN counted c ON c.cycle = w.cycle
LEFT JOIN attribution a ON a.stack_id = w.stack_id
LEFT JOIN frames f ON f.frame_id = a.frame_id
LEFT JOIN type_of p ON p.task_id = w.task_id
LEFT JOIN task_types y ON y.type_id = coalesce(w.type_id, p.type_id)
WHERE w.ts = w.last_ts AND ($task IS NULL OR c.is_wanted = 1)
GROUP BY w.cycle, c.snapshots
ORDER BY lasted DESC, w.cycle
