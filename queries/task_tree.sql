-- task_tree: who spawned whom.
--
-- A row is a task that was spawned in the window, or that spawned one of these there; each stands below its parent,
-- children in the order of their ids. A parent of which no spawning was seen in the window is a root, as is a task
-- spawned outside a task. Ancestors are followed for $depth levels at most; what lies deeper starts at that depth. A
-- task that was told to be spawned more than once counts by the first time.
--
-- Parameters:
--   $from           epoch_ns  tasks that were spawned from then on
--   $to             epoch_ns  and before
--   $task           id        only this task and what it spawned, directly or not; null = all
--   $depth          count     levels that ancestors are followed at most (default 64)
--
-- Columns:
--   depth           count     ancestors that are known; 0 for a root
--   path            text      ids from the root to the task, separated by slashes
--   task_id         id        task
--   task_type       text      its type; null where not known
--   children        count     tasks that it spawned
--   descendants     count     those, and what they spawned
--   spawned_ts      epoch_ns  when it was spawned; null of a root whose spawning was not seen in the window
--   lifetime        ns        from its spawn to its end; null where one of them was not seen in the window
--   outcome         text      how it ended; null where that was not seen in the window
--   polls           count     its polls that began in the window; null where none were recorded
--   busy            ns        computing inside these polls: neither asleep nor waiting for a CPU
--   tree_busy       ns        the same, of it and its descendants
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
-- A task's type is told when the task is first met, and as it is spawned; its polls tell it too.
node AS (
    SELECT n.task_id, y.name, p.polls, p.busy
    FROM (SELECT task_id FROM spawned
          UNION SELECT parent_task_id FROM spawned WHERE parent_task_id IS NOT NULL) n
    LEFT JOIN polled p ON p.task_id = n.task_id
    LEFT JOIN (
        SELECT task_id, min(type_id) AS type_id
        FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
        WHERE type_id IS NOT NULL
        GROUP BY task_id
    ) o ON o.task_id = n.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(least(o.type_id, p.type_id), o.type_id, p.type_id)
),
-- A task above another counts once, however often a circle leads to it.
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
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
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
