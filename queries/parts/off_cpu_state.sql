-- Blocked from `ts` to `ready`, runnable from `ready` to `back`. `sleeper` and `slept_at` are set for sleeps of 1 ms or more,
-- the shortest that are examined for `block_in_place`; `moment` is the end, or the last instant of the window.
tid, task_id, ts, ts + dur AS back, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment,
CASE WHEN state = 'R' THEN ts ELSE ts + dur - coalesce(run_queue, 0) END AS ready,
CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN tid END AS sleeper,
CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN stack_id END AS slept_at
