-- suspended: where tasks wait, and for what, at the last snapshot of the time range.
--
-- A row is a place in the code at which tasks are suspended, a task type, and a kind of resource. The recorder reads the
-- state of all tasks as recording begins, a second later, and then every 10 s; a time range without such a snapshot has no
-- rows. The place is that of the innermost own function of the await stack, with the line of its `.await`; without own
-- code that of the innermost function of a dependency, otherwise of the task's own future.
--
-- A task that waits for several futures at once counts at each of them. How long a task has been there is the time
-- since the first snapshot that found it there, in the same await stack and waiting for the same resource: it may be
-- longer, or the task may have been polled in between.
--
-- Parameters:
--   $from            epoch_ns  start of the time range
--   $to              epoch_ns  its end, exclusive
--   $task            id        only this task; null = all
--
-- Columns:
--   tasks            count     tasks that wait there
--   longest          ns        time for which the first of them has been found there, at least
--   shortest         ns        the same for the last of them
--   function         text      function that awaits; the future's type if its code is unknown
--   file             text      its source file; null if unknown
--   line             id        line of the `.await`
--   resource         text      what they wait for, as in `task_states`: 'mutex', 'timer', 'io', …; null if unknown
--   detail           text      that resource in words; null if they differ
--   resources        count     number of distinct resources; 0 for timers, and if unknown
--   holder_task_id   id        task that holds it, receives from it, or whose end is awaited; null if several or unknown
--   task_type        text      type of the tasks; null if unknown, and for futures that threads run by `block_on`
--
-- Further columns:
--   deadlocked       count     tasks of these that wait for each other in a cycle
--   holders          count     number of distinct holders that are tasks
--   task_id          id        the task with the smallest id; null if all are run by `block_on`
--   ts               epoch_ns  time of the snapshot
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
snapshot AS (
    -- part snapshot
    -- When the state of all tasks was last read; an interval of length 0 says why it was not.
    SELECT max(ts + dur) AS ts
    FROM coverage
    WHERE stream = 'task_states' AND dur > 0 AND ts + dur >= $from AND ts + dur < $to
    -- end snapshot
),
state AS (
    -- part state
    -- The newest rows of each task by then. All tasks have rows within 20 minutes.
    SELECT *
    FROM (SELECT t.*, s.ts AS seen_at, max(t.ts) OVER (PARTITION BY t.task_id, t.tid) AS newest_ts
          FROM task_states t
          JOIN snapshot s ON t.ts <= s.ts AND t.ts > s.ts - 1200000000000
          WHERE t.ts >= $from - 1200000000000 AND t.ts < $to)
    WHERE ts = newest_ts
    -- end state
)
SELECT count(DISTINCT coalesce(w.task_id, -w.tid)) AS tasks,
       max(w.seen_at - w.since) AS longest, min(w.seen_at - w.since) AS shortest,
       coalesce(f.function, y.name, '<unknown>') AS function, f.file, f.line, w.resource,
       CASE WHEN count(DISTINCT w.detail) = 1 AND count(w.detail) = count(*) THEN min(w.detail) END AS detail,
       count(DISTINCT w.address) AS resources,
       CASE WHEN count(DISTINCT w.holder_task_id) = 1 AND count(w.holder_task_id) = count(*)
            THEN min(w.holder_task_id) END AS holder_task_id,
       y.name AS task_type,
       count(DISTINCT CASE WHEN w.cycle IS NOT NULL THEN coalesce(w.task_id, -w.tid) END) AS deadlocked,
       count(DISTINCT w.holder_task_id) AS holders, min(w.task_id) AS task_id, w.seen_at AS ts
FROM state w
LEFT JOIN attribution a ON a.stack_id = w.stack_id
LEFT JOIN frames f ON f.frame_id = a.frame_id
LEFT JOIN type_of p ON p.task_id = w.task_id
LEFT JOIN task_types y ON y.type_id = coalesce(w.type_id, p.type_id)
WHERE w.state = 'suspended' AND ($task IS NULL OR w.task_id = $task)
GROUP BY coalesce(f.function, y.name, '<unknown>'), f.file, f.line, w.resource, y.name, w.seen_at
ORDER BY tasks DESC, longest DESC, function, f.file, f.line, w.resource, task_type
