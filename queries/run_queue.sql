-- run_queue: who waited for a CPU, by thread and by type of task, the longest wait in sum first.
--
-- A row is a thread and a type of task that it was polling: time in which the thread could have run, but had no CPU.
-- Exact, from the scheduler: since it was woken, or all of a preemption. Of a sleep whose waking was not seen, none of
-- it is known to be such time. Stretches are clipped to the window. Where only the sum of several stretches was recorded
-- (`intervals` in `off_cpu`), each counts as a wait, all of it as after a wake, and in the last one's task.
--
-- Parameters:
--   $from       epoch_ns  start of the window
--   $to         epoch_ns  end of the window
--   $thread     id        only this thread; null = all
--
-- Columns:
--   thread      text      the thread's name; null where not known
--   role        text      'worker', 'blocking' or 'other'; null where not known
--   task_type   text      type of the task it was polling; null outside a task, and where not known
--   waits       count     times that it waited
--   total       ns        how long, together
--   share       share     part of the window
--   longest     ns        the longest wait, in full; of a sum, the mean
--   preempted   ns        of `total`, after it was preempted or yielded
--   woken       ns        of `total`, after it was woken
--
-- Further columns:
--   in_task     flag      whether it was polling a task; a worker's own loop is none
--   tid         id        thread
WITH
thread AS (
    SELECT tid, name, role
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
    WHERE n = 1
),
type_of AS (
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
),
-- Runnable from `ready` on.
waited AS (
    SELECT tid, task_id, state = 'R' AS is_preempted, greatest(coalesce(intervals, 1), 1) AS waits,
           CASE WHEN state = 'R' THEN ts ELSE ts + dur - run_queue END AS ready, ts + dur AS back
    FROM off_cpu
    WHERE ts < $to AND ts + dur > $from
      AND (state = 'R' OR run_queue > 0)
      AND ($thread IS NULL OR tid = $thread)
),
clipped AS (
    SELECT tid, task_id, is_preempted, waits, ready,
           CAST(((back - ready) - (back - ready) % waits) / waits AS BIGINT) AS wait,
           least(back, $to) - greatest(ready, $from) AS part
    FROM waited
    WHERE ready < $to AND back > $from AND back > ready
),
summed AS (
    SELECT tid, task_id, sum(waits) AS waits, sum(part) AS total,
           sum(CASE WHEN is_preempted THEN part ELSE 0 END) AS preempted, max(wait) AS longest
    FROM clipped
    GROUP BY tid, task_id
),
typed AS (
    SELECT s.tid, CASE WHEN y.kind <> 'worker' THEN y.name END AS task_type,
           s.task_id IS NOT NULL AND coalesce(y.kind, 'task') <> 'worker' AS in_task,
           s.waits, s.total, s.preempted, s.longest
    FROM summed s
    LEFT JOIN type_of o ON o.task_id = s.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
)
SELECT t.name AS thread, t.role, s.task_type, CAST(sum(s.waits) AS BIGINT) AS waits,
       CAST(sum(s.total) AS BIGINT) AS total,
       CAST(sum(s.total) AS DOUBLE) / (CAST($to AS BIGINT) - CAST($from AS BIGINT)) AS share,
       max(s.longest) AS longest, CAST(sum(s.preempted) AS BIGINT) AS preempted,
       CAST(sum(s.total) - sum(s.preempted) AS BIGINT) AS woken, s.in_task, s.tid
FROM typed s
LEFT JOIN thread t ON t.tid = s.tid
GROUP BY t.name, t.role, s.task_type, s.in_task, s.tid
ORDER BY total DESC, s.tid, s.task_type NULLS LAST, s.in_task
