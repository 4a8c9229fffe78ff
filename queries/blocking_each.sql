-- blocking_each: what held a worker, each stretch, longest first.
--
-- A row is one stretch in which a task kept its worker from other tasks: asleep inside a poll (cause 'blocked'), or
-- computing inside a poll (cause 'cpu'). Sleeps are exact, from the scheduler, and so is computing where polls were
-- recorded: each such stretch lies in one poll. Where polls were not recorded (stream 'polls' not in `coverage`), two or
-- more consecutive CPU samples of one task on one thread, without a sleep between, are a row: they can lie in one poll or
-- in several short ones (`spans`), and `dur` is at least how long the task computed between the first and the last
-- (`estimated`). It is the least of the time between them less the time that the thread was off CPU, and of n - 1 sampling
-- periods for n samples. A computation is blamed on the frame that weighs most in the samples of its task inside it, own
-- frames before others. What does not keep other tasks waiting is no stretch: work in the blocking pool, and a task inside
-- `block_in_place`, known by the stack, or as its thread has handed its worker's core over by the end of the stretch. Where the
-- task's type is not known, it may be a worker's idle loop or work of the pool: then a stretch counts only on a worker's
-- thread, with own code on the stack or inside a recorded poll. A stretch belongs to the window in which it began.
-- Sleeps shorter than $asleep are added up in blocking.sql.
--
-- Parameters:
--   $from       epoch_ns  stretches that began from then on
--   $to         epoch_ns  and before
--   $threshold  ns        computing counts from this duration on
--   $asleep     ns        sleeping counts from this duration on
--   $task       id        only of this task; null = all
--   $thread     id        only on this thread; null = all
--
-- Columns:
--   ts          epoch_ns  when it began: the thread fell asleep, the poll was entered, the first sample was taken
--   dur         ns        how long the task slept (not what it then waited for a CPU), or computed
--   cause       text      'blocked' or 'cpu'
--   spans       text      'one poll', or 'one poll or several' where CPU samples are all that is known
--   estimated   flag      whether `dur` is an estimate, from samples: at least so long
--   function    text      first own function on the stack, from the leaf; the task's type where none is known
--   file        text      its source file; where a frame has no line, file and line of the task's type
--   line        id        line in it
--   task_type   text      type of the task; null where not known
--
-- Further columns:
--   task_id     id        task
--   tid         id        thread that it held
--   thread      text      that thread's name
WITH
thread_name AS MATERIALIZED (
    SELECT tid, name
    FROM (SELECT tid, name, row_number() OVER (PARTITION BY tid ORDER BY ts DESC, name) AS n FROM threads)
    WHERE n = 1
),
-- Threads that are or were a worker's, and when one of them was no worker: `block_in_place` had handed its core to another
-- thread.
worker AS MATERIALIZED (
    SELECT DISTINCT tid FROM threads WHERE role = 'worker'
),
handed AS MATERIALIZED (
    SELECT tid, from_ts, to_ts,
           unnest(generate_series(
               from_ts - (from_ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
               to_ts - 1, greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
    FROM (
        SELECT tid, greatest(ts, $from) AS from_ts, least(coalesce(next_ts, $to), $to) AS to_ts
        FROM (
            SELECT tid, ts, role, lead(ts) OVER (PARTITION BY tid ORDER BY ts) AS next_ts
            FROM (
                SELECT tid, ts, min(role) AS role
                FROM threads
                WHERE role <> 'other' AND tid IN (SELECT tid FROM worker)
                GROUP BY tid, ts
            )
        )
        WHERE role = 'blocking'
    )
    WHERE from_ts < to_ts
),
-- What the window's sleeps and samples refer to. `$few` says that these are known by now, so that only they need be read.
needed AS MATERIALIZED (
    SELECT stack_id FROM samples WHERE ts >= $from AND ts < $to
    UNION
    SELECT stack_id FROM off_cpu WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
),
seen AS (
    SELECT stack_id, frame_ids
    FROM stacks
    WHERE NOT $few OR stack_id IN (SELECT stack_id FROM needed)
),
placed AS (
    SELECT stack_id, unnest(frame_ids) AS frame_id,
           unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
    FROM seen
),
-- The frame that a stack is blamed on: the first own one from the leaf, else of a dependency or tokio, else the leaf. And
-- whether it is inside `block_in_place`, called by the innermost task.
blame AS MATERIALIZED (
    SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, 1)] AS frame_id, d.own IS NOT NULL AS is_own,
           coalesce(d.in_place < coalesce(d.polled, d.in_place + 1), false) AS in_place
    FROM seen s
    LEFT JOIN (
        SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
               min(CASE WHEN f.origin IN ('dependency', 'tokio') THEN p.depth END) AS near,
               min(CASE WHEN f.origin = 'tokio' AND f.function LIKE '%block_in_place%' THEN p.depth END) AS in_place,
               min(CASE WHEN f.origin = 'tokio' AND f.function LIKE 'tokio::runtime::task::%poll%'
                        THEN p.depth END) AS polled
        FROM placed p
        JOIN frames f ON f.frame_id = p.frame_id
        WHERE f.function IS NOT NULL
        GROUP BY p.stack_id
    ) d ON d.stack_id = s.stack_id
),
asleep AS MATERIALIZED (
    SELECT o.ts, o.dur - coalesce(o.run_queue, 0) AS dur, o.ts + o.dur AS end_ts, o.task_id, o.tid, o.stack_id
    FROM off_cpu o
    WHERE o.ts >= $from AND o.ts < $to AND o.dur >= $asleep
      AND o.task_id IS NOT NULL AND o.state IN ('S', 'D')
      AND o.dur - coalesce(o.run_queue, 0) >= $asleep
),
-- Polls that computed for long, in each bucket of time that they touch, at most 4,097 in the window: a poll has no stack
-- of its own, the samples of its task inside it have, and are looked up by thread and bucket.
long_polls AS (
    SELECT tid, ts, end_ts, busy AS dur, task_id, type_id,
           unnest(generate_series(
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
               least(end_ts, $to), greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
    FROM (
        SELECT p.tid, p.ts, p.ts + p.dur AS end_ts, p.dur - p.blocked - p.run_queue AS busy, p.task_id, p.type_id
        FROM polls p
        LEFT JOIN task_types y ON y.type_id = p.type_id
        WHERE p.ts >= $from AND p.ts < $to AND p.dur >= $threshold AND p.dur - p.blocked - p.run_queue >= $threshold
          AND coalesce(y.kind, 'task') = 'task'
    )
),
-- The samples inside each of them, by stack: known before it is known what stacks are blamed on.
sampled_polls AS MATERIALIZED (
    SELECT p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, s.stack_id, sum(coalesce(s.weight, 0)) AS weight
    FROM long_polls p
    LEFT JOIN (
        SELECT ts, tid, task_id, stack_id, weight,
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12) AS bucket
        FROM samples
        WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    ) s ON s.tid = p.tid AND s.bucket = p.bucket AND s.task_id = p.task_id AND s.ts >= p.ts AND s.ts < p.end_ts
    GROUP BY p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, s.stack_id
),
poll_pieces AS (
    SELECT p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, b.frame_id, coalesce(b.is_own, false) AS is_own,
           sum(p.weight) AS weight, max(CASE WHEN b.in_place THEN 1 ELSE 0 END) AS in_place
    FROM sampled_polls p
    LEFT JOIN blame b ON b.stack_id = p.stack_id
    GROUP BY p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, b.frame_id, coalesce(b.is_own, false)
),
computed AS MATERIALIZED (
    SELECT *
    FROM (SELECT *, row_number() OVER (PARTITION BY tid, ts, end_ts, dur, task_id, type_id
                                       ORDER BY is_own DESC, weight DESC, frame_id NULLS LAST) AS n,
                 max(in_place) OVER (PARTITION BY tid, ts, end_ts, dur, task_id, type_id) AS any_in_place
          FROM poll_pieces)
    WHERE n = 1 AND any_in_place = 0
),
-- When polls were not watched: from the latest end so far to the next beginning.
gaps AS MATERIALIZED (
    SELECT from_ts, to_ts,
           unnest(generate_series(
               from_ts - (from_ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
               to_ts - 1, greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
    FROM (
        SELECT ts AS to_ts, max(end_ts) OVER (ORDER BY ts, end_ts
                                              ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS from_ts
        FROM (
            SELECT CAST($from AS BIGINT) AS ts, CAST($from AS BIGINT) AS end_ts
            UNION ALL
            SELECT ts, ts + dur FROM coverage
            WHERE stream = 'polls' AND dur > 0 AND ts < $to AND ts + dur > $from
            UNION ALL
            SELECT CAST($to AS BIGINT), CAST($to AS BIGINT)
        )
    )
    WHERE from_ts < to_ts
),
-- Samples of these times, sleeps, and other times off CPU.
unwatched AS (
    SELECT s.tid, s.ts, s.task_id, s.stack_id, s.weight, s.off, s.place, g.from_ts AS gap
    FROM gaps g
    JOIN (
        SELECT tid, ts, task_id, stack_id, weight, 0 AS off, 0 AS place,
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12) AS bucket
        FROM samples
        WHERE ts >= $from AND ts < $to
        UNION ALL
        SELECT tid, ts, CASE WHEN state IN ('S', 'D', '+') THEN NULL ELSE task_id END, NULL, 0, dur,
               CASE WHEN state IN ('S', 'D', '+') THEN 1 ELSE 2 END,
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
        FROM off_cpu
        WHERE ts >= $from AND ts < $to
    ) s ON s.bucket = g.bucket AND s.ts >= g.from_ts AND s.ts < g.to_ts
),
-- Islands: consecutive samples of one task without a sleep between. Any number of polls may lie in one.
islands AS (
    SELECT *, min(CASE WHEN place = 0 THEN ts END) OVER (PARTITION BY tid, gap, island) AS first_ts,
           max(CASE WHEN place = 0 THEN ts END) OVER (PARTITION BY tid, gap, island) AS last_ts
    FROM (
        SELECT *, sum(is_shore) OVER (PARTITION BY tid, gap ORDER BY ts, place
                                      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS island
        FROM (
            SELECT *, CASE WHEN task_id = lag(task_id) OVER (PARTITION BY tid, gap ORDER BY ts, place)
                           THEN 0 ELSE 1 END AS is_shore
            FROM unwatched
        )
    )
),
island_pieces AS (
    SELECT i.tid, i.gap, i.island, i.task_id, i.first_ts, i.last_ts, b.frame_id, coalesce(b.is_own, false) AS is_own,
           sum(CASE WHEN i.place = 0 THEN 1 ELSE 0 END) AS samples, sum(i.weight) AS weight,
           sum(CASE WHEN i.ts > i.first_ts AND i.ts < i.last_ts THEN i.off ELSE 0 END) AS off,
           max(CASE WHEN b.in_place THEN 1 ELSE 0 END) AS in_place
    FROM islands i
    LEFT JOIN blame b ON b.stack_id = i.stack_id
    WHERE i.task_id IS NOT NULL AND i.first_ts IS NOT NULL
    GROUP BY i.tid, i.gap, i.island, i.task_id, i.first_ts, i.last_ts, b.frame_id, coalesce(b.is_own, false)
),
-- A lower bound: n samples lie n - 1 periods apart, and the thread was on a CPU for no longer than the scheduler says.
estimated AS MATERIALIZED (
    SELECT tid, task_id, frame_id, is_own, ts, last_ts,
           least(last_ts - ts - off,
                 CAST((weight * (samples - 1) - (weight * (samples - 1)) % samples) / samples AS BIGINT)) AS dur
    FROM (
        SELECT tid, task_id, frame_id, is_own, first_ts AS ts, last_ts,
               sum(samples) OVER (PARTITION BY tid, gap, island) AS samples,
               sum(weight) OVER (PARTITION BY tid, gap, island) AS weight,
               sum(off) OVER (PARTITION BY tid, gap, island) AS off,
               max(in_place) OVER (PARTITION BY tid, gap, island) AS any_in_place,
               row_number() OVER (PARTITION BY tid, gap, island
                                  ORDER BY is_own DESC, weight DESC, frame_id NULLS LAST) AS n
        FROM island_pieces
    )
    WHERE n = 1 AND samples >= 2 AND any_in_place = 0
),
found AS MATERIALIZED (
    SELECT s.ts, s.dur, s.cause, s.spans, s.estimated, s.task_id, s.type_id, s.tid, s.frame_id, s.is_own,
           f.function AS own_function, f.file AS own_file, f.line AS own_line, t.name AS thread,
           w.tid IS NOT NULL AS is_worker, coalesce(s.is_polled, false) AS is_polled
    FROM (
        SELECT *, least(end_ts, CAST($to AS BIGINT) - 1) AS moment
        FROM (
            SELECT a.ts, a.dur, a.end_ts, 'blocked' AS cause, 'one poll' AS spans, false AS estimated, a.task_id,
                   CAST(NULL AS BIGINT) AS type_id, a.tid, b.frame_id, coalesce(b.is_own, false) AS is_own,
                   false AS is_polled
            FROM asleep a
            LEFT JOIN blame b ON b.stack_id = a.stack_id
            WHERE NOT coalesce(b.in_place, false)
            UNION ALL
            SELECT ts, dur, end_ts, 'cpu', 'one poll', false, task_id, type_id, tid, frame_id, is_own, true
            FROM computed
            UNION ALL
            SELECT ts, dur, last_ts, 'cpu', 'one poll or several', true, task_id, CAST(NULL AS BIGINT), tid, frame_id,
                   is_own, false
            FROM estimated
            WHERE dur >= $threshold
        )
    ) s
    LEFT JOIN handed h ON h.tid = s.tid AND h.from_ts <= s.moment AND s.moment < h.to_ts
          AND h.bucket = s.moment - (s.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    LEFT JOIN frames f ON f.frame_id = s.frame_id
    LEFT JOIN thread_name t ON t.tid = s.tid
    LEFT JOIN worker w ON w.tid = s.tid
    WHERE h.tid IS NULL
),
-- A task's type is told when the task is first met, and as it is spawned.
type_of AS MATERIALIZED (
    SELECT o.task_id, min(o.type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns) o
    WHERE o.type_id IS NOT NULL
      AND (NOT $few OR o.task_id IN (SELECT task_id FROM asleep UNION SELECT task_id FROM computed
                                     UNION SELECT task_id FROM estimated))
    GROUP BY o.task_id
),
stretches AS (
    SELECT s.ts, CAST(s.dur AS BIGINT) AS dur, s.cause, s.spans, s.estimated,
           CASE WHEN s.is_own THEN s.own_function ELSE coalesce(y.name, s.own_function, '<unknown>') END AS function,
           CASE WHEN y.name IS NOT NULL
                 AND (NOT coalesce(s.is_own, false) OR (s.own_line IS NULL AND y.line IS NOT NULL))
                THEN y.file ELSE s.own_file END AS file,
           CASE WHEN y.name IS NOT NULL
                 AND (NOT coalesce(s.is_own, false) OR (s.own_line IS NULL AND y.line IS NOT NULL))
                THEN y.line ELSE s.own_line END AS line,
           y.name AS task_type, s.task_id, s.tid, s.thread
    FROM found s
    LEFT JOIN type_of o ON o.task_id = s.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(s.type_id, o.type_id)
    WHERE coalesce(y.kind, CASE WHEN s.is_worker AND (s.is_own OR s.is_polled) THEN 'task' ELSE 'unknown' END) = 'task'
      AND ($task IS NULL OR s.task_id = $task)
      AND ($thread IS NULL OR s.tid = $thread)
)
SELECT ts, dur, cause, spans, estimated, function, file, line, task_type, task_id, tid, thread
FROM stretches
ORDER BY dur DESC, ts, tid
