-- blocking: code that blocks workers, ordered by total time.
--
-- A row is a culprit: a function, a type of task, and how it kept its worker from other tasks: blocked, asleep inside a
-- poll (cause 'blocked'), or busy, computing inside a poll (cause 'cpu'). Each line that sleeps is a row of its own; a
-- function that computes is one row, whichever of its lines the samples hit. The rows sum the intervals of
-- blocking_each.sql, which says how each is detected. If `spans` is 'one poll', each interval lies in one poll; if it is
-- 'one poll or several', polls were not recorded and the number of polls is unknown.
--
-- Sleeps shorter than $asleep are summed per culprit, and listed if the sum reaches $threshold (`spans` is 'short
-- sleeps'); `median` is then their mean. If a thread slept too often for each sleep to be recorded (`intervals` in
-- `off_cpu`), the stack is unknown, the task is that of the last sleep, and `estimated` is true.
--
-- Parameters:
--   $from       epoch_ns  start of the time range in which intervals begin
--   $to         epoch_ns  its end, exclusive
--   $threshold  ns        minimum duration of busy intervals, and minimum sum of short sleeps (default 10ms)
--   $asleep     ns        minimum duration of a sleep that is listed by itself (default 1ms)
--   $task       id        only this task; null = all
--   $thread     id        only this thread; null = all
--
-- Columns:
--   cause       text      'blocked' or 'cpu'
--   spans       text      'one poll', 'one poll or several' or 'short sleeps'
--   count       count     number of intervals
--   total       ns        sum of their durations
--   median      ns        median duration; mean of short sleeps
--   longest     ns        longest duration
--   estimated   flag      whether any duration is an estimate
--   in_progress ns        longest time for which a poll had been in progress when last observed; null if all have ended
--   function    text      first own function on the stack, from the leaf; the task's type if none is known
--   file        text      its source file; if a frame has no line, file and line of the task's type
--   line        id        line in it; of busy intervals, that of the longest
--   task_type   text      type of the task; null if unknown
--
-- Further columns:
--   p99         ns        99th percentile of the durations, interpolated; null for short sleeps
--   first_ts    epoch_ns  start of the first interval
--   last_ts     epoch_ns  start of the last interval
--   worst_ts    epoch_ns  start of the longest interval; null for short sleeps
--   task_id     id        task of the longest interval; of short sleeps, the one that slept longest in total
--   tid         id        thread of the longest interval; of short sleeps, the one that slept longest in total
--   thread      text      name of that thread
WITH
-- part held
-- Intervals in which a task held its worker: `intervals`, whose last parenthesis the view closes.
thread_name AS MATERIALIZED (
    -- part thread_name
    SELECT tid, name
    FROM (SELECT tid, name, row_number() OVER (PARTITION BY tid ORDER BY ts DESC, name) AS n FROM threads)
    WHERE n = 1
    -- end thread_name
),
-- Threads that are or were workers.
worker AS MATERIALIZED (
    SELECT DISTINCT tid FROM threads WHERE role = 'worker'
),
handed AS MATERIALIZED (
    -- part handed
    -- Intervals in which a thread of `worker` was no worker, as `block_in_place` had moved its core to another thread; one row
    -- per bucket of time, so that they are joined by equality. The window has at most 4,097 buckets.
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
    -- end handed
),
-- part progress
-- Observations of polls in progress, each certainly of one poll. The last that concerns the window comes up to 2 s after it.
progress AS MATERIALIZED (
    SELECT tid, task_id, type_id, ts, ts - lasted AS begin_ts, lasted, state, stack_id
    FROM in_progress
    WHERE NOT ended AND NOT estimated AND ts > $from AND ts < least($to, 9000000000000000000) + 2000000000
      AND ts - lasted < $to
),
-- Sleeps inside polls that `off_cpu` does not have, as they began before the recording or have not ended: from the thread's
-- last event to the last observation of the sleep, clipped to the window. (`coalesce(…, 0)`: never null, as in the tables
-- that it is united with.)
sleep_in_progress AS MATERIALIZED (
    SELECT tid, task_id, max(type_id) AS type_id, max(stack_id) AS stack_id, coalesce(from_ts, 0) AS ts,
           coalesce(least(max(ts), CAST($to AS BIGINT)) - from_ts, 0) AS dur, max(lasted) AS lasted
    FROM (
        SELECT tid, task_id, type_id, stack_id, begin_ts, lasted, ts,
               greatest(begin_ts, coalesce(back, begin_ts), CAST($from AS BIGINT)) AS from_ts
        FROM (
            SELECT *, max(event_end) OVER (PARTITION BY tid ORDER BY ts, place
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS back
            FROM (
                SELECT tid, ts, 0 AS place, ts + dur AS event_end, CAST(NULL AS BIGINT) AS task_id,
                       CAST(NULL AS BIGINT) AS type_id, CAST(NULL AS BIGINT) AS stack_id,
                       CAST(NULL AS BIGINT) AS begin_ts, CAST(NULL AS BIGINT) AS lasted
                FROM off_cpu
                WHERE ts < least($to, 9000000000000000000) + 2000000000 AND ts + dur > $from
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, ts, 0, ts AS event_end, NULL, NULL, NULL, NULL, NULL
                FROM samples
                WHERE ts >= $from AND ts < least($to, 9000000000000000000) + 2000000000
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, ts, 1, NULL, task_id, type_id, stack_id, begin_ts, lasted
                FROM progress
                WHERE state = 'blocked'
            )
        )
        WHERE place = 1 AND coalesce(back < ts, true)
    )
    WHERE from_ts < $to
    GROUP BY tid, task_id, begin_ts, from_ts
),
-- end progress
-- part poll_in_progress
-- Polls that `polls` does not have and that were on their CPU when they were observed, clipped to the window. A recorded poll
-- that was observed has at least the 100 ms after which it is.
poll_in_progress AS MATERIALIZED (
    SELECT p.tid, p.task_id, p.type_id, coalesce(p.ts, 0) AS ts, coalesce(p.end_ts, 0) AS end_ts, p.lasted,
           coalesce(greatest(p.end_ts - p.ts - CAST(coalesce(sum(CASE WHEN o.tid IS NOT NULL
                                                                      THEN least(o.back, p.end_ts) - greatest(o.ts, p.ts) END),
                                                             0) AS BIGINT), 0), 0) AS busy
    FROM (
        SELECT tid, task_id, begin_ts, max(type_id) AS type_id, greatest(begin_ts, CAST($from AS BIGINT)) AS ts,
               least(max(ts), CAST($to AS BIGINT)) AS end_ts, max(lasted) AS lasted
        FROM (
            SELECT *, max(event_end) OVER (PARTITION BY tid, task_id ORDER BY ts, place
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS back
            FROM (
                SELECT tid, task_id, ts, 0 AS place, ts + dur AS event_end, CAST(NULL AS BIGINT) AS type_id,
                       CAST(NULL AS BIGINT) AS begin_ts, CAST(NULL AS BIGINT) AS lasted, CAST(NULL AS VARCHAR) AS state
                FROM polls
                WHERE ts < least($to, 9000000000000000000) + 2000000000 AND ts + dur > $from AND dur >= 100000000
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, task_id, ts, 1, NULL, type_id, begin_ts, lasted, state
                FROM progress
            )
        )
        WHERE place = 1 AND coalesce(back < ts, true)
        GROUP BY tid, task_id, begin_ts
        HAVING max(CASE WHEN state <> 'blocked' THEN 1 ELSE 0 END) = 1
    ) p
    LEFT JOIN (
        SELECT tid, ts, ts + dur AS back
        FROM off_cpu
        WHERE ts < $to AND ts + dur > $from AND tid IN (SELECT tid FROM progress)
        UNION ALL
        SELECT tid, ts, ts + dur FROM sleep_in_progress
    ) o ON o.tid = p.tid AND o.ts < p.end_ts AND o.back > p.ts
    GROUP BY p.tid, p.task_id, p.begin_ts, p.type_id, p.ts, p.end_ts, p.lasted
),
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
    -- Intervals in which polls were not recorded, from the latest end so far to the next start; one row per bucket of time.
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
-- end held
),
-- Sleeps that are too short to be listed by themselves, and sums of sleeps.
short AS MATERIALIZED (
    SELECT o.task_id, o.tid, o.stack_id, sum(greatest(coalesce(o.intervals, 1), 1)) AS sleeps,
           sum(greatest(o.dur - coalesce(o.run_queue, 0), 0)) AS total,
           max(CAST((greatest(o.dur - coalesce(o.run_queue, 0), 0)
                     - greatest(o.dur - coalesce(o.run_queue, 0), 0) % greatest(coalesce(o.intervals, 1), 1))
                    / greatest(coalesce(o.intervals, 1), 1) AS BIGINT)) AS longest,
           min(o.ts) AS first_ts, max(o.ts) AS last_ts,
           max(CASE WHEN o.state = '+' THEN 1 ELSE 0 END) AS is_sum
    FROM (
        SELECT *, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment
        FROM off_cpu
        WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL AND state IN ('S', 'D', '+')
          AND (state = '+' OR dur - coalesce(run_queue, 0) < $asleep)
          AND ($task IS NULL OR task_id = $task)
          AND ($thread IS NULL OR tid = $thread)
    ) o
    LEFT JOIN handed h ON h.tid = o.tid AND h.from_ts <= o.moment AND o.moment < h.to_ts
          AND h.bucket = o.moment - (o.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    WHERE h.tid IS NULL
    GROUP BY o.task_id, o.tid, o.stack_id
),
short_type_of AS (
    SELECT o.task_id, min(o.type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns) o
    WHERE o.type_id IS NOT NULL AND o.task_id IN (SELECT task_id FROM short)
    GROUP BY o.task_id
),
short_placed AS (
    SELECT s.sleeps, s.total, s.longest, s.first_ts, s.last_ts, s.is_sum, s.task_id, s.tid, s.stack_id, t.name AS thread,
           CASE WHEN b.is_own THEN f.function ELSE coalesce(y.name, f.function, '<unknown>') END AS function,
           CASE WHEN y.name IS NOT NULL
                 AND (NOT coalesce(b.is_own, false) OR (f.line IS NULL AND y.line IS NOT NULL))
                THEN y.file ELSE f.file END AS file,
           CASE WHEN y.name IS NOT NULL
                 AND (NOT coalesce(b.is_own, false) OR (f.line IS NULL AND y.line IS NOT NULL))
                THEN y.line ELSE f.line END AS line,
           y.name AS task_type
    FROM short s
    LEFT JOIN short_type_of o ON o.task_id = s.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
    LEFT JOIN worker w ON w.tid = s.tid
    LEFT JOIN thread_name t ON t.tid = s.tid
    LEFT JOIN attribution b ON b.stack_id = s.stack_id
    LEFT JOIN frames f ON f.frame_id = b.frame_id
    WHERE coalesce(y.kind, CASE WHEN w.tid IS NOT NULL AND b.is_own THEN 'task' ELSE 'unknown' END) = 'task'
      AND NOT coalesce(b.in_place, false)
),
culprits AS (
    SELECT cause, spans, count(*) AS count, sum(dur) AS total,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY dur) AS median, max(dur) AS longest,
           bool_or(estimated) AS estimated, max(lasted) AS in_progress, function, file,
           max(CASE WHEN n = 1 THEN line END) AS line, task_type,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY dur) AS p99,
           min(ts) AS first_ts, max(ts) AS last_ts, max(CASE WHEN n = 1 THEN ts END) AS worst_ts,
           max(CASE WHEN n = 1 THEN task_id END) AS task_id, max(CASE WHEN n = 1 THEN tid END) AS tid,
           max(CASE WHEN n = 1 THEN thread END) AS thread
    FROM (
        SELECT *, row_number() OVER (PARTITION BY cause, spans, task_type, function, file, line_key
                                     ORDER BY dur DESC, ts, tid) AS n
        FROM (SELECT *, CASE WHEN cause = 'blocked' THEN line END AS line_key FROM intervals)
    )
    GROUP BY cause, spans, task_type, function, file, line_key
    UNION ALL
    SELECT 'blocked', 'short sleeps', CAST(sum(sleeps) AS BIGINT), sum(total),
           CAST(CAST((sum(total) - sum(total) % sum(sleeps)) / sum(sleeps) AS BIGINT) AS DOUBLE), max(longest),
           max(is_sum) > 0, NULL, function, file, line, task_type, CAST(NULL AS DOUBLE), min(first_ts), max(last_ts),
           CAST(NULL AS BIGINT), max(CASE WHEN n = 1 THEN task_id END), max(CASE WHEN n = 1 THEN tid END),
           max(CASE WHEN n = 1 THEN thread END)
    FROM (
        SELECT *, row_number() OVER (PARTITION BY task_type, function, file, line
                                     ORDER BY total DESC, tid, task_id, stack_id NULLS LAST) AS n
        FROM short_placed
    )
    GROUP BY function, file, line, task_type
    HAVING sum(total) >= $threshold
)
SELECT cause, spans, count, CAST(total AS BIGINT) AS total, CAST(round(median) AS BIGINT) AS median, longest, estimated,
       in_progress, function, file, line, task_type, CAST(round(p99) AS BIGINT) AS p99, first_ts, last_ts, worst_ts, task_id,
       tid, thread
FROM culprits
ORDER BY total DESC, cause, function, file NULLS LAST, line NULLS LAST, task_type NULLS LAST, spans
