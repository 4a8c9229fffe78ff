-- run_queue: run-queue latency by thread and by type of task, ordered by total time.
--
-- A row is a thread and a type of task that it was polling, with the time for which the thread was runnable without a CPU.
-- Exact, from the scheduler: from the wake, or the whole of a preemption. A sleep without a recorded wake has no run-queue
-- latency. Intervals are clipped to the time range. In a sum of intervals (`intervals` in `off_cpu`), each counts as a
-- wait after a wake, in the task of the last.
--
-- Parameters:
--   $from       epoch_ns  start of the time range
--   $to         epoch_ns  its end, exclusive
--   $thread     id        only this thread; null = all
--
-- Columns:
--   thread      text      name of the thread; null if unknown
--   role        text      'worker', 'blocking' or 'other'; null if unknown
--   task_type   text      type of the task it was polling; null outside a task, or if unknown
--   waits       count     number of waits for a CPU
--   total       ns        total run-queue latency
--   share       share     that time as a share of the time range
--   longest     ns        longest wait, in full; for a sum, the mean
--   preempted   ns        part of `total` after a preemption or a yield
--   woken       ns        part of `total` after a wake
--
-- Further columns:
--   in_task     flag      whether it was polling a task; a worker's own loop is none
--   tid         id        thread
WITH
thread AS (
    -- part thread
    -- Each thread with its last known role, as a thread that exits loses it.
    SELECT tid, name, role, worker, runtime_id
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
    WHERE n = 1
    -- end thread
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
