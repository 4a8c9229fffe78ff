-- A task's type is recorded when the task is first seen, and when it is spawned.
SELECT task_id, min(type_id) AS type_id
FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
WHERE type_id IS NOT NULL
GROUP BY task_id
