-- Intervals in which a task held its worker: `intervals`, whose last parenthesis the view closes.
thread_name AS MATERIALIZED (
    -- part thread_name
    -- end thread_name
),
-- Threads that are or were workers.
worker AS MATERIALIZED (
    SELECT DISTINCT tid FROM threads WHERE role = 'worker'
),
handed AS MATERIALIZED (
    -- part handed
    -- end handed
),
-- part progress
-- end progress
-- part poll_in_progress
-- end poll_in_progress
-- Stacks of the window's sleeps and samples. If `$few`, this part has been materialized, and only these stacks are read.
needed AS MATERIALIZED (
    SELECT stack_id FROM samples WHERE ts >= $from AND ts < $to
    UNION
    SELECT stack_id FROM off_cpu WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    UNION
    SELECT stack_id FROM sleep_in_progress
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
-- The frame to which a stack is attributed: the first own one from the leaf, else of a dependency or tokio, else the leaf.
-- And whether the innermost task has called `block_in_place`.
attribution AS MATERIALIZED (
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
slept AS MATERIALIZED (
    SELECT o.ts, o.dur - coalesce(o.run_queue, 0) AS dur, o.ts + o.dur AS end_ts, o.task_id, o.tid, o.stack_id
    FROM off_cpu o
    WHERE o.ts >= $from AND o.ts < $to AND o.dur >= $asleep
      AND o.task_id IS NOT NULL AND o.state IN ('S', 'D')
      AND o.dur - coalesce(o.run_queue, 0) >= $asleep
),
-- Apart from the materialized one: DataFusion 55 fails to plan a union by itself of which one side is empty.
asleep AS (
    SELECT ts, dur, end_ts, task_id, tid, stack_id, CAST(NULL AS BIGINT) AS type_id, CAST(NULL AS BIGINT) AS lasted
    FROM slept
    UNION ALL
    SELECT ts, dur, ts + dur, task_id, tid, stack_id, type_id, lasted
    FROM sleep_in_progress
    WHERE dur >= $asleep
),
-- Polls that were busy for long, a row per bucket of time that they touch. A poll has no stack; the samples of its task
-- have, and are joined by thread and bucket.
long_polls AS (
    SELECT tid, ts, end_ts, busy AS dur, task_id, type_id, lasted,
           unnest(generate_series(
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
               least(end_ts, $to), greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
    FROM (
        SELECT p.tid, p.ts, p.ts + p.dur AS end_ts, p.dur - p.blocked - p.run_queue AS busy, p.task_id, p.type_id,
               CAST(NULL AS BIGINT) AS lasted
        FROM polls p
        LEFT JOIN task_types y ON y.type_id = p.type_id
        WHERE p.ts >= $from AND p.ts < $to AND p.dur >= $threshold AND p.dur - p.blocked - p.run_queue >= $threshold
          AND coalesce(y.kind, 'task') = 'task'
        UNION ALL
        SELECT tid, ts, end_ts, busy, task_id, type_id, lasted FROM poll_in_progress WHERE busy >= $threshold
    )
),
-- Their samples by stack. Independent of `attribution`, so that both are materialized in parallel.
sampled_polls AS MATERIALIZED (
    SELECT p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, p.lasted, s.stack_id, sum(coalesce(s.weight, 0)) AS weight
    FROM long_polls p
    LEFT JOIN (
        SELECT ts, tid, task_id, stack_id, weight,
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12) AS bucket
        FROM samples
        WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    ) s ON s.tid = p.tid AND s.bucket = p.bucket AND s.task_id = p.task_id AND s.ts >= p.ts AND s.ts < p.end_ts
    GROUP BY p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, p.lasted, s.stack_id
),
poll_pieces AS (
    SELECT p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, p.lasted, b.frame_id, coalesce(b.is_own, false) AS is_own,
           sum(p.weight) AS weight, max(CASE WHEN b.in_place THEN 1 ELSE 0 END) AS in_place
    FROM sampled_polls p
    LEFT JOIN attribution b ON b.stack_id = p.stack_id
    GROUP BY p.tid, p.ts, p.end_ts, p.dur, p.task_id, p.type_id, p.lasted, b.frame_id, coalesce(b.is_own, false)
),
computed AS MATERIALIZED (
    SELECT *
    FROM (SELECT *, row_number() OVER (PARTITION BY tid, ts, end_ts, dur, task_id, type_id, lasted
                                       ORDER BY is_own DESC, weight DESC, frame_id NULLS LAST) AS n,
                 max(in_place) OVER (PARTITION BY tid, ts, end_ts, dur, task_id, type_id, lasted) AS any_in_place
          FROM poll_pieces)
    WHERE n = 1 AND any_in_place = 0
),
gaps AS MATERIALIZED (
    -- part gaps
    -- end gaps
),
-- Samples, sleeps and other off-CPU intervals in the gaps.
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
-- Islands: consecutive samples of one task without a sleep between them. An island may contain any number of polls.
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
    LEFT JOIN attribution b ON b.stack_id = i.stack_id
    WHERE i.task_id IS NOT NULL AND i.first_ts IS NOT NULL
    GROUP BY i.tid, i.gap, i.island, i.task_id, i.first_ts, i.last_ts, b.frame_id, coalesce(b.is_own, false)
),
-- A lower bound: n samples are n - 1 periods apart, and the scheduler knows how long the thread was off CPU.
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
    SELECT s.ts, s.dur, s.cause, s.spans, s.estimated, s.lasted, s.task_id, s.type_id, s.tid, s.frame_id, s.is_own,
           f.function AS own_function, f.file AS own_file, f.line AS own_line, t.name AS thread,
           w.tid IS NOT NULL AS is_worker, coalesce(s.is_polled, false) AS is_polled
    FROM (
        SELECT *, least(end_ts, CAST($to AS BIGINT) - 1) AS moment
        FROM (
            SELECT a.ts, a.dur, a.end_ts, 'blocked' AS cause, 'one poll' AS spans, false AS estimated, a.task_id,
                   a.type_id, a.lasted, a.tid, b.frame_id, coalesce(b.is_own, false) AS is_own,
                   false AS is_polled
            FROM asleep a
            LEFT JOIN attribution b ON b.stack_id = a.stack_id
            WHERE NOT coalesce(b.in_place, false)
            UNION ALL
            SELECT ts, dur, end_ts, 'cpu', 'one poll', false, task_id, type_id, lasted, tid, frame_id, is_own, true
            FROM computed
            UNION ALL
            SELECT ts, dur, last_ts, 'cpu', 'one poll or several', true, task_id, NULL, NULL, tid, frame_id,
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
-- As in parts/type_of.sql, but only for the tasks above.
type_of AS MATERIALIZED (
    SELECT o.task_id, min(o.type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns) o
    WHERE o.type_id IS NOT NULL
      AND (NOT $few OR o.task_id IN (SELECT task_id FROM slept UNION SELECT task_id FROM sleep_in_progress
                                     UNION SELECT task_id FROM computed UNION SELECT task_id FROM estimated))
    GROUP BY o.task_id
),
intervals AS (
    SELECT s.ts, CAST(s.dur AS BIGINT) AS dur, s.cause, s.spans, s.estimated,
           CASE WHEN s.is_own THEN s.own_function ELSE coalesce(y.name, s.own_function, '<unknown>') END AS function,
           CASE WHEN y.name IS NOT NULL
                 AND (NOT coalesce(s.is_own, false) OR (s.own_line IS NULL AND y.line IS NOT NULL))
                THEN y.file ELSE s.own_file END AS file,
           CASE WHEN y.name IS NOT NULL
                 AND (NOT coalesce(s.is_own, false) OR (s.own_line IS NULL AND y.line IS NOT NULL))
                THEN y.line ELSE s.own_line END AS line,
           y.name AS task_type, s.task_id, s.tid, s.thread, s.lasted
    FROM found s
    LEFT JOIN type_of o ON o.task_id = s.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(s.type_id, o.type_id)
    WHERE coalesce(y.kind, CASE WHEN s.is_worker AND (s.is_own OR s.is_polled) THEN 'task' ELSE 'unknown' END) = 'task'
      AND ($task IS NULL OR s.task_id = $task)
      AND ($thread IS NULL OR s.tid = $thread)
