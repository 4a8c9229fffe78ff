-- locks: waits for locks by place and holder, ordered by total waiting time.
--
-- A row is a place where tasks of a type waited, the kind of lock, and its holder. A wait is a sleep inside a task with a
-- function of a lock among its first 16 frames from the leaf. It belongs to the time range in which it began. A wait that had
-- not ended when it was last observed, or that began before the recording, is known from `in_progress`; its part in the time
-- range counts, and its holder is unknown.
--
-- The holder is inferred from the thread that woke the waiter, which released the lock. `held` is 'asleep' if that thread
-- slept inside a task, for at least $asleep, and its last such sleep to begin before the wait ended also ended during the
-- wait, and its stack does not show a wait for a lock. `held` is 'computing' if its last poll of at least $asleep to begin
-- before the wait ended was still in progress, and at least $asleep passed since that poll began and since that last
-- sleep. Else the holder is unknown. Sleeps and polls of holders are searched for from a second before the time range.
--
-- Parameters:
--   $from            epoch_ns  start of the time range in which waits begin
--   $to              epoch_ns  its end, exclusive
--   $asleep          ns        minimum duration of a sleep (default 1ms)
--   $task            id        only waits of this task; null = all
--   $thread          id        only waits on this thread; null = all
--
-- Columns:
--   lock             text      'mutex', 'rwlock', 'semaphore', 'condvar', 'park' or 'futex': the first on the stack
--   waits            count     number of waits
--   total            ns        total waiting time
--   longest          ns        longest wait
--   in_progress      ns        longest time for which a waiting poll had lasted when last observed; null if all ended
--   function         text      where it waited: first own function from the leaf; the task's type if none is known
--   file             text      its source file; if a frame has no line, file and line of the task's type
--   line             id        line in it
--   task_type        text      type of the waiting task; null if unknown
--   held             text      state of the inferred holder: 'asleep' or 'computing'; null if unknown
--   holder_type      text      type of the inferred holder's task; null if unknown
--   holder_function  text      where the holder slept, as `function`; null if it did not sleep
--   holder_file      text      its source file
--   holder_line      id        line in it
--
-- Further columns:
--   longest_ts       epoch_ns  start of the longest wait
--   tid              id        thread of the longest wait
--   task_id          id        task of the longest wait
--   holder_tid       id        thread that ended the longest wait; null if unknown
WITH
type_of AS MATERIALIZED (
    -- part type_of
    -- A task's type is recorded when the task is first seen, and when it is spawned.
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
    -- end type_of
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
placed AS (
    -- part placed
    SELECT stack_id, unnest(frame_ids) AS frame_id,
           unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
    FROM stacks
    -- end placed
),
-- The frame to which a stack is attributed, and the kind of lock among its first 16 frames from the leaf.
attribution AS (
    SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, 1)] AS frame_id, d.own IS NOT NULL AS is_own, d.lock
    FROM stacks s
    JOIN (
        SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
               min(CASE WHEN f.origin IN ('dependency', 'tokio') THEN p.depth END) AS near,
               min(CASE WHEN p.depth > 16 THEN NULL
                        WHEN f.name LIKE '%condvar%' THEN 4
                        WHEN f.name LIKE '%mutex%' OR f.name LIKE '%lock_contended%' OR f.name LIKE '%lock_slow%' THEN 1
                        WHEN f.name LIKE '%rwlock%' THEN 2
                        WHEN f.name LIKE '%semaphore%' THEN 3
                        WHEN f.name LIKE '%park%' THEN 5
                        WHEN f.name LIKE '%futex%' THEN 6 END) AS lock
        FROM placed p
        JOIN (SELECT frame_id, origin, lower(function) AS name FROM frames WHERE function IS NOT NULL) f
          ON f.frame_id = p.frame_id
        GROUP BY p.stack_id
    ) d ON d.stack_id = s.stack_id
),
-- Long sleeps inside tasks; waits for locks have a kind.
sleeps AS (
    SELECT o.tid, o.ts, o.dur - coalesce(o.run_queue, 0) AS dur, o.task_id, o.waker_tid, b.lock, b.frame_id, b.is_own,
           y.name, y.kind, y.file, y.line, o.lasted
    FROM (
        SELECT tid, ts, dur, run_queue, task_id, waker_tid, state, stack_id, CAST(NULL AS BIGINT) AS type_id,
               CAST(NULL AS BIGINT) AS lasted
        FROM off_cpu
        WHERE ts >= greatest($from, -9000000000000000000) - 1000000000 AND ts < $to AND dur >= $asleep
        UNION ALL
        SELECT tid, ts, dur, NULL, task_id, NULL, 'S', stack_id, type_id, lasted FROM sleep_in_progress
    ) o
    LEFT JOIN type_of p ON p.task_id = o.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(o.type_id, p.type_id)
    LEFT JOIN attribution b ON b.stack_id = o.stack_id
    WHERE o.dur >= $asleep AND o.task_id IS NOT NULL AND o.state IN ('S', 'D')
      AND o.dur - coalesce(o.run_queue, 0) >= $asleep AND coalesce(y.kind, 'task') <> 'worker'
),
long_polls AS (
    SELECT p.tid, p.ts, max(p.dur) AS dur, min(p.task_id) AS task_id, min(p.type_id) AS type_id
    FROM polls p
    LEFT JOIN task_types y ON y.type_id = p.type_id
    WHERE p.ts >= greatest($from, -9000000000000000000) - 1000000000 AND p.ts < $to AND p.dur >= $asleep AND coalesce(y.kind, 'task') <> 'worker'
    GROUP BY p.tid, p.ts
),
sleep AS (
    SELECT *
    FROM (SELECT *, row_number() OVER (PARTITION BY tid, ts ORDER BY dur DESC, task_id, frame_id NULLS LAST) AS n
          FROM sleeps
          WHERE lasted IS NULL)
    WHERE n = 1
),
-- For the end of each wait, the last poll and the last sleep on its waker's thread.
marks AS (
    SELECT *, max(CASE WHEN place = 0 THEN moment END) OVER (
                  PARTITION BY moment_tid ORDER BY moment, place
                  ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS poll_ts,
           max(CASE WHEN place = 2 THEN moment END) OVER (
                  PARTITION BY moment_tid ORDER BY moment, place
                  ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS sleep_ts
    FROM (
        SELECT on_tid AS moment_tid, began AS moment, place, CAST(NULL AS INTEGER) AS tid, CAST(NULL AS BIGINT) AS ts,
               CAST(NULL AS BIGINT) AS dur, CAST(NULL AS BIGINT) AS task_id, CAST(NULL AS BIGINT) AS lock,
               CAST(NULL AS BIGINT) AS frame_id, CAST(NULL AS BOOLEAN) AS is_own, CAST(NULL AS VARCHAR) AS name,
               CAST(NULL AS VARCHAR) AS file, CAST(NULL AS INTEGER) AS line, CAST(NULL AS BIGINT) AS lasted
        FROM (SELECT tid AS on_tid, ts AS began, 0 AS place FROM long_polls
              UNION ALL
              SELECT tid, ts, 2 FROM sleep)
        UNION ALL
        SELECT waker_tid, ts + dur, 1, tid, ts, dur, task_id, lock, frame_id, is_own, name, file, line, lasted
        FROM sleeps
        WHERE ts >= $from AND lock IS NOT NULL
          AND ($task IS NULL OR task_id = $task)
          AND ($thread IS NULL OR tid = $thread)
    )
),
inferred AS (
    SELECT m.tid, m.ts, m.dur, m.task_id, m.lock, m.frame_id, m.is_own, m.name, m.file, m.line, m.lasted, m.moment_tid,
           s.tid IS NOT NULL AND s.ts + s.dur > m.ts AND s.ts + s.dur <= m.moment
               AND (s.lock IS NULL OR s.lock = 5) AS is_asleep,
           p.tid IS NOT NULL AND m.moment - p.ts >= $asleep
               AND (s.tid IS NULL OR m.moment - (s.ts + s.dur) >= $asleep) AS is_computing,
           s.name AS sleep_name, s.frame_id AS sleep_frame_id, s.is_own AS sleep_is_own, s.file AS sleep_file,
           s.line AS sleep_line, p.type_id AS poll_type_id, p.task_id AS poll_task_id
    FROM marks m
    LEFT JOIN sleep s ON s.tid = m.moment_tid AND s.ts = m.sleep_ts AND s.tid <> m.tid
    LEFT JOIN long_polls p ON p.tid = m.moment_tid AND p.ts = m.poll_ts AND p.tid <> m.tid AND p.ts + p.dur >= m.moment
    WHERE m.place = 1
),
held AS (
    SELECT i.tid, i.ts, i.dur, i.task_id, i.lock, i.frame_id, i.is_own, i.name, i.file, i.line, i.lasted,
           i.moment_tid AS holder_tid, i.is_asleep,
           CASE WHEN i.is_asleep THEN 'asleep' WHEN i.is_computing THEN 'computing' END AS held,
           CASE WHEN i.is_asleep THEN i.sleep_name WHEN i.is_computing THEN coalesce(y.name, z.name) END AS holder_type,
           CASE WHEN i.is_asleep THEN i.sleep_frame_id END AS holder_frame_id,
           i.is_asleep AND i.sleep_is_own AS holder_is_own,
           CASE WHEN i.is_asleep THEN i.sleep_file END AS holder_type_file,
           CASE WHEN i.is_asleep THEN i.sleep_line END AS holder_type_line
    FROM inferred i
    LEFT JOIN task_types y ON y.type_id = i.poll_type_id
    LEFT JOIN type_of o ON o.task_id = i.poll_task_id
    LEFT JOIN task_types z ON z.type_id = o.type_id
),
located AS (
    SELECT h.*,
           CASE WHEN h.is_own THEN f.function ELSE coalesce(h.name, f.function, '<unknown>') END AS function,
           CASE WHEN h.name IS NOT NULL
                 AND (NOT coalesce(h.is_own, false) OR (f.line IS NULL AND h.line IS NOT NULL))
                THEN h.file ELSE f.file END AS at_file,
           CASE WHEN h.name IS NOT NULL
                 AND (NOT coalesce(h.is_own, false) OR (f.line IS NULL AND h.line IS NOT NULL))
                THEN h.line ELSE f.line END AS at_line,
           CASE WHEN h.is_asleep THEN CASE WHEN h.holder_is_own THEN g.function
                                           ELSE coalesce(h.holder_type, g.function, '<unknown>') END
           END AS holder_function,
           CASE WHEN NOT h.is_asleep THEN NULL
                WHEN h.holder_type IS NOT NULL
                 AND (NOT coalesce(h.holder_is_own, false) OR (g.line IS NULL AND h.holder_type_line IS NOT NULL))
                THEN h.holder_type_file ELSE g.file END AS holder_file,
           CASE WHEN NOT h.is_asleep THEN NULL
                WHEN h.holder_type IS NOT NULL
                 AND (NOT coalesce(h.holder_is_own, false) OR (g.line IS NULL AND h.holder_type_line IS NOT NULL))
                THEN h.holder_type_line ELSE g.line END AS holder_line
    FROM held h
    LEFT JOIN frames f ON f.frame_id = h.frame_id
    LEFT JOIN frames g ON g.frame_id = h.holder_frame_id
)
SELECT CASE lock WHEN 1 THEN 'mutex' WHEN 2 THEN 'rwlock' WHEN 3 THEN 'semaphore' WHEN 4 THEN 'condvar'
                 WHEN 5 THEN 'park' ELSE 'futex' END AS lock,
       count(*) AS waits, CAST(sum(dur) AS BIGINT) AS total, max(dur) AS longest, max(lasted) AS in_progress, function,
       at_file AS file, at_line AS line, name AS task_type, held, holder_type, holder_function, holder_file, holder_line,
       max(CASE WHEN n = 1 THEN ts END) AS longest_ts, max(CASE WHEN n = 1 THEN tid END) AS tid,
       max(CASE WHEN n = 1 THEN task_id END) AS task_id, max(CASE WHEN n = 1 THEN holder_tid END) AS holder_tid
FROM (SELECT *, row_number() OVER (PARTITION BY lock, function, at_file, at_line, name, held, holder_type,
                                                holder_function, holder_file, holder_line
                                   ORDER BY dur DESC, ts, tid) AS n
      FROM located)
GROUP BY lock, function, at_file, at_line, name, held, holder_type, holder_function, holder_file, holder_line
ORDER BY total DESC, lock, function, file NULLS LAST, line NULLS LAST, task_type NULLS LAST, held NULLS LAST,
         holder_type NULLS LAST, holder_function NULLS LAST, holder_line NULLS LAST
