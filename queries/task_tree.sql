-- task_tree: tasks by the task that spawned them.
--
-- A row is a task that was spawned in the time range, or that spawned one of these there. Each follows its parent,
-- children in the order of their ids. A parent whose spawn was not recorded in the time range is a root, as is a task
-- spawned outside a task. Ancestors are followed for at most $depth levels; deeper tasks start at that depth. If a task
-- has several spawns, the first counts.
--
-- Parameters:
--   $from           epoch_ns  start of the time range of spawns
--   $to             epoch_ns  its end, exclusive
--   $task           id        only this task and its descendants; null = all
--   $depth          count     maximum number of levels of ancestors (default 64)
--
-- Columns:
--   depth           count     number of known ancestors; 0 for a root
--   path            text      ids from the root to the task, separated by slashes
--   task_id         id        task
--   task_type       text      type of the task; null if unknown
--   children        count     tasks that it spawned
--   descendants     count     children, and all tasks that they spawned
--   spawned_ts      epoch_ns  when it was spawned; null for a root whose spawn was not recorded in the time range
--   lifetime        ns        time from its spawn to its end; null if either was not recorded in the time range
--   outcome         text      how it ended; null if that was not recorded in the time range
--   polls           count     its polls that began in the time range; null if polls were not recorded
--   busy            ns        busy time of these polls: neither asleep nor waiting for a CPU
--   tree_busy       ns        the same, of the task and its descendants
--
-- Further columns:
--   parent_task_id  id        the task that spawned it
--   type_path       text      types from the root to the task
WITH RECURSIVE
spawned AS (
    SELECT task_id, ts, parent_task_id
    FROM (SELECT *, row_number() OVER (PARTITION BY task_id ORDER BY ts, tid, parent_task_id NULLS FIRST) AS n
          FROM spawns
          WHERE ts >= $from AND ts < $to)
    WHERE n = 1
),
above AS (
    SELECT task_id, parent_task_id AS ancestor, CAST(1 AS BIGINT) AS level
    FROM spawned
    WHERE parent_task_id IS NOT NULL
    UNION ALL
    SELECT a.task_id, s.parent_task_id, a.level + 1
    FROM above a
    JOIN spawned s ON s.task_id = a.ancestor
    WHERE s.parent_task_id IS NOT NULL AND a.level < $depth
),
polled AS (
    SELECT task_id, min(type_id) AS type_id, count(*) AS polls, sum(dur - blocked - run_queue) AS busy
    FROM polls
    WHERE ts >= $from AND ts < $to
    GROUP BY task_id
),
-- A task's type is recorded when the task is first seen, when it is spawned, and with its polls.
node AS (
    SELECT n.task_id, y.name, p.polls, p.busy
    FROM (SELECT task_id FROM spawned
          UNION SELECT parent_task_id FROM spawned WHERE parent_task_id IS NOT NULL) n
    LEFT JOIN polled p ON p.task_id = n.task_id
    LEFT JOIN (
        -- part type_of
        -- A task's type is recorded when the task is first seen, and when it is spawned.
        SELECT task_id, min(type_id) AS type_id
        FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
        WHERE type_id IS NOT NULL
        GROUP BY task_id
        -- end type_of
    ) o ON o.task_id = n.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(least(o.type_id, p.type_id), o.type_id, p.type_id)
),
-- An ancestor counts once, even if ids form a cycle.
below AS (
    SELECT d.ancestor, count(*) AS descendants, sum(CASE WHEN d.level = 1 THEN 1 ELSE 0 END) AS children,
           sum(n.busy) AS busy
    FROM (SELECT ancestor, task_id, min(level) AS level FROM above WHERE ancestor <> task_id
          GROUP BY ancestor, task_id) d
    JOIN node n ON n.task_id = d.task_id
    GROUP BY d.ancestor
),
ways AS (
    SELECT a.task_id, max(a.level) AS depth,
           string_agg(CAST(a.ancestor AS VARCHAR), '/' ORDER BY a.level DESC) AS path,
           string_agg(lpad(CAST(a.ancestor AS VARCHAR), 20, ' '), '/' ORDER BY a.level DESC) AS place,
           string_agg(coalesce(n.name, '<unknown>'), ' > ' ORDER BY a.level DESC) AS type_path,
           max(CASE WHEN a.ancestor = $task THEN 1 ELSE 0 END) AS is_below
    FROM above a
    JOIN node n ON n.task_id = a.ancestor
    GROUP BY a.task_id
),
ended AS (
    SELECT task_id, ts, outcome
    FROM (SELECT *, row_number() OVER (PARTITION BY task_id ORDER BY ts, outcome) AS n
          FROM ends
          WHERE ts >= $from AND ts < $to)
    WHERE n = 1
),
watched AS (
    -- part watched
    -- Whether polls were recorded in the window.
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
    -- end watched
)
SELECT coalesce(w.depth, 0) AS depth, coalesce(w.path || '/', '') || CAST(n.task_id AS VARCHAR) AS path, n.task_id,
       n.name AS task_type, CAST(coalesce(b.children, 0) AS BIGINT) AS children,
       CAST(coalesce(b.descendants, 0) AS BIGINT) AS descendants, s.ts AS spawned_ts, e.ts - s.ts AS lifetime, e.outcome,
       CASE WHEN v.polls THEN coalesce(n.polls, 0) END AS polls,
       CASE WHEN v.polls THEN CAST(coalesce(n.busy, 0) AS BIGINT) END AS busy,
       CASE WHEN v.polls THEN CAST(coalesce(n.busy, 0) + coalesce(b.busy, 0) AS BIGINT) END AS tree_busy,
       s.parent_task_id, coalesce(w.type_path || ' > ', '') || coalesce(n.name, '<unknown>') AS type_path
FROM node n
CROSS JOIN watched v
LEFT JOIN spawned s ON s.task_id = n.task_id
LEFT JOIN ended e ON e.task_id = n.task_id
LEFT JOIN below b ON b.ancestor = n.task_id
LEFT JOIN ways w ON w.task_id = n.task_id
WHERE $task IS NULL OR n.task_id = $task OR w.is_below = 1
ORDER BY coalesce(w.place || '/', '') || lpad(CAST(n.task_id AS VARCHAR), 20, ' ')
