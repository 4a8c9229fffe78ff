-- timeline: what the workers did, step by step.
--
-- A row is one step of one worker, for every step in which the worker was observed. Its time is in the four states of
-- workers.sql: running, blocked, waiting, idle. What crosses steps is split between them.
--
-- Parameters:
--   $from         epoch_ns  start of the window and of the first step
--   $to           epoch_ns  end of the window
--   $step         ns        length of a step
--   $thread       id        only this thread; null = all
--
-- Columns:
--   ts            epoch_ns  start of the step
--   dur           ns        its length: $step, or what is left of the window
--   runtime_id    id        runtime of the worker; null where not known
--   worker        id        its number in that runtime; null where not known
--   tid           id        its thread
--   running       ns        on a CPU
--   blocked       ns        asleep inside a task
--   waiting       ns        runnable without a CPU
--   idle          ns        asleep outside a task
--   polls         count     polls that began in the step; null where none were recorded in the window
--   longest_poll  ns        the longest poll that was under way in the step, in full
--   task_type     text      type of the tasks that took most of the step, by their polls, samples and sleeps
WITH
worker AS (
    SELECT tid, name, worker, runtime_id
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
    WHERE n = 1 AND role = 'worker' AND ($thread IS NULL OR tid = $thread)
),
-- A worker's own loop is a task of tokio's; inside it and nothing else the worker is outside a task.
loops AS (
    SELECT DISTINCT o.task_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM polls) o
    JOIN task_types y ON y.type_id = o.type_id
    WHERE y.kind = 'worker'
),
seen AS (
    SELECT tid, greatest(min(first_ts), $from) AS from_ts, least(max(last_ts), $to) AS to_ts
    FROM (
        SELECT tid, min(ts) AS first_ts, max(ts + dur) AS last_ts FROM off_cpu GROUP BY tid
        UNION ALL SELECT tid, min(ts), max(ts) FROM samples GROUP BY tid
        UNION ALL SELECT tid, min(ts), max(ts + dur) FROM polls GROUP BY tid
    )
    GROUP BY tid
),
-- Off CPU: asleep from `ts` to `ready`, then runnable to `back`.
away AS (
    SELECT o.tid, o.ts, o.ts + o.dur AS back,
           CASE WHEN o.state = 'R' THEN o.ts ELSE o.ts + o.dur - coalesce(o.run_queue, 0) END AS ready,
           o.task_id IS NOT NULL AND l.task_id IS NULL AS in_task, o.task_id
    FROM off_cpu o
    LEFT JOIN loops l ON l.task_id = o.task_id
    WHERE o.ts < $to AND o.ts + o.dur > $from AND o.tid IN (SELECT tid FROM worker)
),
type_of AS (
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks
          UNION ALL SELECT task_id, type_id FROM spawns
          UNION ALL SELECT task_id, type_id FROM polls)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
),
steps AS (
    SELECT tid, from_ts, to_ts,
           unnest(generate_series(from_ts - (from_ts - $from) % $step, to_ts - 1, $step)) AS step
    FROM seen
    WHERE tid IN (SELECT tid FROM worker) AND from_ts < to_ts
),
away_steps AS (
    SELECT tid, step, in_task, task_id,
           greatest(least(ready, step + $step, $to) - greatest(ts, step), 0) AS asleep,
           greatest(least(back, step + $step, $to) - greatest(ready, step), 0) AS waiting
    FROM (
        SELECT tid, ts, ready, back, in_task, task_id,
               unnest(generate_series(greatest(ts, $from) - (greatest(ts, $from) - $from) % $step,
                                      least(back, $to) - 1, $step)) AS step
        FROM away
    )
),
off AS (
    SELECT tid, step, sum(CASE WHEN in_task THEN asleep ELSE 0 END) AS blocked,
           sum(CASE WHEN in_task THEN 0 ELSE asleep END) AS idle, sum(waiting) AS waiting
    FROM away_steps
    GROUP BY tid, step
),
-- Polls, split where they cross steps; few do, and only these are unfolded.
poll_steps AS (
    SELECT p.tid, p.ts, p.dur, p.type_id, p.ts - (p.ts - $from) % $step AS step
    FROM polls p
    WHERE p.ts >= $from AND p.ts < $to AND (p.ts - $from) % $step + p.dur <= $step
    UNION ALL
    SELECT tid, ts, dur, type_id,
           unnest(generate_series(greatest(ts, $from) - (greatest(ts, $from) - $from) % $step,
                                  least(ts + dur, $to) - 1, $step))
    FROM polls
    WHERE ts < $to AND ts + dur > $from AND (ts < $from OR (ts - $from) % $step + dur > $step)
),
polled AS (
    SELECT p.tid, p.step, sum(CASE WHEN p.ts >= p.step THEN 1 ELSE 0 END) AS polls, max(p.dur) AS longest
    FROM poll_steps p
    LEFT JOIN task_types y ON y.type_id = p.type_id
    WHERE coalesce(y.kind, 'task') <> 'worker'
    GROUP BY p.tid, p.step
),
-- Whose step it was.
shares AS (
    SELECT tid, step, type_id, least(ts + dur, step + $step) - greatest(ts, step) AS share FROM poll_steps
    UNION ALL
    SELECT s.tid, s.ts - (s.ts - $from) % $step, o.type_id, s.weight
    FROM samples s
    JOIN type_of o ON o.task_id = s.task_id
    WHERE s.ts >= $from AND s.ts < $to
    UNION ALL
    SELECT a.tid, a.step, o.type_id, a.asleep
    FROM away_steps a
    JOIN type_of o ON o.task_id = a.task_id
    WHERE a.in_task
),
owner AS (
    SELECT tid, step, name
    FROM (
        SELECT s.tid, s.step, y.name,
               row_number() OVER (PARTITION BY s.tid, s.step ORDER BY sum(s.share) DESC, y.name) AS n
        FROM shares s
        JOIN task_types y ON y.type_id = s.type_id
        WHERE y.kind <> 'worker'
        GROUP BY s.tid, s.step, y.name
    )
    WHERE n = 1
),
watched AS (
    SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
),
spent AS (
    SELECT s.step, s.tid, least(s.to_ts, s.step + $step) - greatest(s.from_ts, s.step) AS observed,
           CAST(coalesce(o.blocked, 0) AS BIGINT) AS blocked,
           CAST(coalesce(o.waiting, 0) AS BIGINT) AS waiting,
           CAST(coalesce(o.idle, 0) AS BIGINT) AS idle
    FROM steps s
    LEFT JOIN off o ON o.tid = s.tid AND o.step = s.step
)
SELECT s.step AS ts, least($step, $to - s.step) AS dur, w.runtime_id, w.worker, s.tid,
       CAST(s.observed - s.blocked - s.waiting - s.idle AS BIGINT) AS running, s.blocked, s.waiting, s.idle,
       CASE WHEN v.polls THEN CAST(coalesce(p.polls, 0) AS BIGINT) END AS polls, p.longest AS longest_poll,
       t.name AS task_type
FROM spent s
JOIN worker w ON w.tid = s.tid
CROSS JOIN watched v
LEFT JOIN polled p ON p.tid = s.tid AND p.step = s.step
LEFT JOIN owner t ON t.tid = s.tid AND t.step = s.step
-- Not a bare `s.step`: DataFusion 55 takes it for a function of `tid`, by which `seen` is grouped, and drops it.
ORDER BY w.runtime_id NULLS LAST, w.worker NULLS LAST, s.tid, greatest(s.step, $from)
