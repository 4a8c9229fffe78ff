-- wait_graph: tasks that wait for another task, with that task, at the last snapshot of the time range.
--
-- A row is a task that waits for a lock that another task certainly holds, for room in a channel that another one receives
-- from, or for the end of another one; or one that waits for permits of a semaphore while it holds some itself. Tasks that wait for each other in a cycle (a deadlock) come first; they end only if
-- one is aborted. A time range without a snapshot of all tasks has no rows.
--
-- The place is that of the innermost own function of the await stack, with the line of its `.await`; without own code that
-- of the innermost function of a dependency, otherwise of the task's own future. Another holder of permits of a semaphore is
-- not listed, as others may have some, nor is one that keeps its guard in a collection.
--
-- Parameters:
--   $from            epoch_ns  start of the time range
--   $to              epoch_ns  its end, exclusive
--   $task            id        only waits of this task or for it; null = all
--
-- Columns:
--   cycle            id        number of the deadlock, the smallest id of its tasks; null if it is none
--   task_id          id        task that waits; null for a future that a thread runs by `block_on`
--   function         text      function that awaits; the future's type if its code is unknown
--   file             text      its source file; null if unknown
--   line             id        line of the `.await`
--   waited           ns        time for which it has been found there, at least
--   resource         text      what it waits for, as in `task_states`: 'mutex', 'task', …
--   detail           text      that resource in words; null if unknown
--   holder_task_id   id        task that it waits for; null for a future that a thread runs by `block_on`
--   holder_state     text      state of that task; null if it was not found
--   holder_function  text      function in which that task awaits; its type if it does not, or if that is unknown
--   holder_file      text      its source file; null if unknown
--   holder_line      id        line of the `.await`
--
-- Further columns:
--   task_type        text      type of the task; null if unknown
--   holder_type      text      type of the other task; null if unknown
--   tid              id        thread that runs the waiting future by `block_on`; null for a task
--   holder_tid       id        thread that runs the other future by `block_on`; null for a task
--   address          id        address of the resource
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
),
-- A task's state, and where it waits.
waiting AS (
    SELECT w.*, y.name AS task_type, coalesce(f.function, y.name, '<unknown>') AS function, f.file, f.line
    FROM state w
    LEFT JOIN attribution a ON a.stack_id = w.stack_id
    LEFT JOIN frames f ON f.frame_id = a.frame_id
    LEFT JOIN type_of p ON p.task_id = w.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(w.type_id, p.type_id)
)
SELECT w.cycle, w.task_id, w.function, w.file, w.line, w.seen_at - w.since AS waited, w.resource, w.detail,
       w.holder_task_id, h.state AS holder_state, h.function AS holder_function, h.file AS holder_file,
       h.line AS holder_line, w.task_type, h.task_type AS holder_type, w.tid, w.holder_tid, w.address, w.seen_at AS ts
FROM waiting w
LEFT JOIN waiting h ON coalesce(h.task_id, -h.tid) = coalesce(w.holder_task_id, -w.holder_tid) AND h.branch = 0
WHERE w.state = 'suspended' AND coalesce(w.holder_task_id, w.holder_tid) IS NOT NULL
  AND ($task IS NULL OR w.task_id = $task OR w.holder_task_id = $task)
ORDER BY w.cycle NULLS LAST, waited DESC, w.task_id, w.tid, w.branch
