-- findings: what is worth a word, how bad it is, and on what evidence: the cockpit's rules, worst first.
--
-- A row is one finding of one rule; each speaks only where what it rests on was watched, and says nothing of what was
-- not. The workers' own loops are no tasks. Durations are in ns, shares in thousandths. The rules:
--
-- long_poll: by type of task, polls that began in the window and held their worker (`dur - run_queue`: asleep or on a CPU)
-- for more than $long_poll; a warning where the longest did for more than $very_long_poll. Where polls were not watched,
-- sleeps inside tasks of more than $long_poll count in their place: a sleep lies in one poll. CPU samples do not count: any
-- number of short polls of one task can lie between two of them. Nor do polls and sleeps in `block_in_place`, and of tasks of
-- unknown type only those count that blocking_each.sql lists. `value` is the longest.
--
-- cpu_share: where polls were not watched, for at least $observed in sum, a task whose samples on one worker come to more
-- than $cpu_share of that time. Whether that was one poll or many is not known. Of n samples n - 1 count. `value` is the
-- share in thousandths, `count` the samples.
--
-- short_sleeps: by type of task, sleeps inside polls, each shorter than 1 ms, that come to $short_sleeps a second or more (of
-- the window, or of one second where that is shorter). Those that were only recorded in sum count too (`estimated`: their
-- task is that of the last). Not in `block_in_place`, as above. `value` is their sum.
--
-- cpu_starved: polls of tasks that began in the window and waited for a CPU (`run_queue`) for more than $long_poll. No task
-- is to blame; the sentence says how many CPUs the process and all others used (`process`), and for how long a CPU limit of
-- its control group kept its threads from running. `value` is the longest.
--
-- wake_delay: the 99th percentile of all delays from wake to poll (as in wake_latency.sql) is more than
-- $wake_delay_p99, of at least $wake_delay_count. The type is the one that waited longest in sum.
--
-- worker_blocked: a worker that was observed for at least $observed (as in workers.sql) was asleep inside tasks for
-- more than $worker_blocked of that: a warning. Short sleeps count as long ones do; those inside `block_in_place` do not.
--
-- imbalance: of a runtime's workers that were observed for $observed, the busiest was on a CPU for more than
-- $imbalance_busy of its time, and more than $imbalance times as much of it as the least busy one. `value` is that
-- ratio in thousandths.
--
-- pool_saturated: the blocking pool has at least $pool_threads threads, observed for $observed together, and was at
-- work (as in blocking_pool.sql) for more than $pool_busy of the time.
--
-- tasks_grow: at least $growth tasks of a type were spawned, and at most $growth_ended of as many ended, where ended tasks of
-- unknown type count as well; where `spawns` and `ends` were both watched for at least $observed in sum. `value` is the
-- tasks spawned.
--
-- self_waking: tasks of a type that woke themselves $self_wakes times a second or more (of the window, or of one second
-- where that is shorter), and at least $self_wakes_share of their wakes. `value` is their wakes by themselves.
--
-- lock_owner_asleep: tasks on workers or in the pool waited at least $lock_wait for a mutex or RwLock, and the thread that
-- released it had slept meanwhile (as in locks.sql: the holder is inferred), by the two types. `value` is the longest.
--
-- Parameters:
--   $from              epoch_ns  start of the window
--   $to                epoch_ns  end of the window
--   $long_poll         ns        a poll this long is a caution (default 10000000)
--   $very_long_poll    ns        a poll this long is a warning (default 100000000)
--   $wake_delay_p99    ns        the percentile of delays that is too long (default 5000000)
--   $wake_delay_count  count     the least delays of which it is taken (default 100)
--   $cpu_share         count     thousandths of a worker's time that one task may compute (default 400)
--   $short_sleeps      ns        short sleeps of a type, each second (default 30000000)
--   $worker_blocked    count     thousandths of its time that a worker may sleep inside tasks (default 500)
--   $imbalance         count     how many times as busy the busiest worker may be, in thousandths (default 3000)
--   $imbalance_busy    count     only where it is busy for these thousandths of its time (default 300)
--   $pool_busy         count     thousandths of its time that the pool may be at work (default 950)
--   $pool_threads      count     only where it has so many threads (default 4)
--   $growth            count     spawns of a type that count as growth (default 100)
--   $growth_ended      count     only where no more than these thousandths as many ended (default 100)
--   $self_wakes        count     wakes of a task by itself, each second (default 1000)
--   $self_wakes_share  count     only where they are these thousandths of its wakes (default 500)
--   $lock_wait         ns        a wait this long for a lock whose holder slept (default 1000000)
--   $observed          ns        the least that a worker must have been observed (default 500000000)
--
-- Columns:
--   rule               text      the rule's name
--   severity           text      'warning' or 'caution'
--   sentence           text      who, what and how much
--   value              count     the figure that was held against the threshold, in `unit`
--   threshold          count     the threshold, in `unit`
--   unit               text      'ns', 'thousandths' or 'count'
--   task_type          text      type of task that it is about; null where it is about none, or that is not known
--   thread             text      thread that it is about: its name
--   ts                 epoch_ns  when the worst began; null where it has no moment
--
-- Further columns:
--   task_id            id        task of the worst
--   tid                id        its thread
--   count              count     how many of them: polls, samples, sleeps, delays, tasks, waits; null of a rule that counts
--                                nothing
--   estimated          flag      whether `value` is an estimate
WITH
type_of AS MATERIALIZED (
    SELECT task_id, min(type_id) AS type_id
    FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
    WHERE type_id IS NOT NULL
    GROUP BY task_id
),
kind_of AS (
    SELECT o.task_id, y.kind FROM type_of o JOIN task_types y ON y.type_id = o.type_id
),
thread AS MATERIALIZED (
    SELECT tid, name, role, worker, runtime_id
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
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
-- Stacks inside `block_in_place`, called by the innermost task; and those with own code.
stack_fact AS MATERIALIZED (
    SELECT stack_id, coalesce(in_place < coalesce(polled, in_place + 1), false) AS in_place, is_own > 0 AS is_own
    FROM (
        SELECT p.stack_id,
               min(CASE WHEN f.origin = 'tokio' AND f.function LIKE '%block_in_place%' THEN p.depth END) AS in_place,
               min(CASE WHEN f.origin = 'tokio' AND f.function LIKE 'tokio::runtime::task::%poll%'
                        THEN p.depth END) AS polled,
               max(CASE WHEN f.origin = 'own' THEN 1 ELSE 0 END) AS is_own
        FROM (
            SELECT stack_id, unnest(frame_ids) AS frame_id,
                   unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
            FROM stacks
        ) p
        JOIN frames f ON f.frame_id = p.frame_id
        WHERE f.function IS NOT NULL
        GROUP BY p.stack_id
    )
),
-- long_poll. When polls were not watched: from the latest end so far to the next beginning.
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
-- Sleeps inside tasks of these times.
asleep AS (
    SELECT s.ts, s.end_ts, s.dur, s.tid, s.task_id, s.stack_id
    FROM gaps g
    JOIN (
        SELECT ts, ts + dur AS end_ts, dur - coalesce(run_queue, 0) AS dur, tid, task_id, stack_id,
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12) AS bucket
        FROM off_cpu
        WHERE ts >= $from AND ts < $to AND state IN ('S', 'D') AND task_id IS NOT NULL
          AND dur - coalesce(run_queue, 0) > $long_poll
    ) s ON s.bucket = g.bucket AND s.ts >= g.from_ts AND s.ts < g.to_ts
),
long AS (
    SELECT ts, ts + dur AS end_ts, dur - run_queue AS dur, tid, task_id, type_id, true AS is_known
    FROM polls
    WHERE ts >= $from AND ts < $to AND dur > $long_poll AND dur - run_queue > $long_poll
    UNION ALL
    SELECT a.ts, a.end_ts, a.dur, a.tid, a.task_id, NULL, coalesce(f.is_own, false)
    FROM asleep a
    LEFT JOIN stack_fact f ON f.stack_id = a.stack_id
),
-- Those in which the thread was seen inside `block_in_place`: in a sample, or in a sleep of a millisecond or more.
long_in_place AS (
    SELECT DISTINCT l.tid, l.ts
    FROM (
        SELECT tid, ts, end_ts,
               unnest(generate_series(
                   ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
                   least(end_ts, $to), greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
        FROM long
    ) l
    JOIN (
        SELECT tid, ts,
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12) AS bucket
        FROM (
            SELECT tid, ts, stack_id FROM samples WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
            UNION ALL
            SELECT tid, ts, stack_id FROM off_cpu
            WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL AND state IN ('S', 'D')
              AND dur - coalesce(run_queue, 0) >= 1000000
        ) e
        JOIN stack_fact f ON f.stack_id = e.stack_id
        WHERE f.in_place
    ) m ON m.tid = l.tid AND m.bucket = l.bucket AND m.ts >= l.ts AND m.ts < l.end_ts
),
long_typed AS (
    SELECT l.*, y.name,
           row_number() OVER (PARTITION BY y.name ORDER BY l.dur DESC, l.ts, l.tid, l.task_id) AS n
    FROM (SELECT *, least(end_ts, CAST($to AS BIGINT) - 1) AS moment FROM long) l
    LEFT JOIN handed h ON h.tid = l.tid AND h.from_ts <= l.moment AND l.moment < h.to_ts
          AND h.bucket = l.moment - (l.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    LEFT JOIN long_in_place p ON p.tid = l.tid AND p.ts = l.ts
    LEFT JOIN worker w ON w.tid = l.tid
    LEFT JOIN type_of o ON o.task_id = l.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(l.type_id, o.type_id)
    WHERE coalesce(y.kind, CASE WHEN w.tid IS NOT NULL AND l.is_known THEN 'task' ELSE 'unknown' END) = 'task'
      AND h.tid IS NULL AND p.tid IS NULL
),
long_poll AS (
    SELECT 'long_poll' AS rule, max(dur) > $very_long_poll AS is_warning,
           CASE WHEN count(*) = 1 THEN coalesce(name, 'a task of unknown type') || ' held its worker for '
                ELSE coalesce(name, 'a task of unknown type') || ' held its worker ' || CAST(count(*) AS VARCHAR)
                     || ' times for more than ' END AS text_1,
           CASE WHEN count(*) = 1 THEN CAST(max(dur) AS BIGINT) ELSE CAST($long_poll AS BIGINT) END AS ns_1,
           CASE WHEN count(*) = 1 THEN '' ELSE ', longest ' END AS text_2,
           CASE WHEN count(*) = 1 THEN NULL ELSE CAST(max(dur) AS BIGINT) END AS ns_2, '' AS text_3,
           CAST(max(dur) AS BIGINT) AS value,
           CASE WHEN max(dur) > $very_long_poll THEN CAST($very_long_poll AS BIGINT) ELSE CAST($long_poll AS BIGINT)
           END AS threshold, 'ns' AS unit, name AS task_type, max(CASE WHEN n = 1 THEN ts END) AS ts,
           max(CASE WHEN n = 1 THEN task_id END) AS task_id, max(CASE WHEN n = 1 THEN tid END) AS tid,
           count(*) AS count, false AS estimated
    FROM long_typed
    GROUP BY name
),
-- cpu_share
unwatched AS (
    SELECT CAST(coalesce(sum(to_ts - from_ts), 0) AS BIGINT) AS time FROM (SELECT DISTINCT from_ts, to_ts FROM gaps)
),
computed AS (
    SELECT s.tid, s.task_id, count(*) AS samples, sum(s.weight) AS weight, min(s.ts) AS ts
    FROM gaps g
    JOIN (
        SELECT ts, tid, task_id, weight,
               ts - (ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12) AS bucket
        FROM samples
        WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL
    ) s ON s.bucket = g.bucket AND s.ts >= g.from_ts AND s.ts < g.to_ts
    GROUP BY s.tid, s.task_id
),
cpu_shares AS (
    SELECT c.tid, c.task_id, c.samples, c.ts, u.time, y.name, t.name AS thread,
           coalesce('worker ' || CAST(t.worker AS VARCHAR), 'worker thread ' || CAST(t.tid AS VARCHAR)) AS worker,
           CAST((c.weight * (c.samples - 1) * 1000 - (c.weight * (c.samples - 1) * 1000) % (c.samples * nullif(u.time, 0)))
                / (c.samples * nullif(u.time, 0)) AS BIGINT) AS share
    FROM computed c
    CROSS JOIN unwatched u
    JOIN thread t ON t.tid = c.tid
    LEFT JOIN type_of o ON o.task_id = c.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
    WHERE t.role = 'worker' AND u.time >= $observed AND y.kind = 'task'
),
cpu_share AS (
    SELECT 'cpu_share' AS rule, false AS is_warning,
           name || ' took '
               || CAST(CAST((share - share % 10) / 10 AS BIGINT) AS VARCHAR) || ' % of the time of ' || worker
               || ' in the ' AS text_1,
           time AS ns_1, ' in which polls were not recorded' AS text_2, CAST(NULL AS BIGINT) AS ns_2, '' AS text_3,
           share AS value, CAST($cpu_share AS BIGINT) AS threshold, 'thousandths' AS unit, name AS task_type, ts, task_id,
           tid, samples AS count, true AS estimated
    FROM cpu_shares
    WHERE share > $cpu_share
),
-- short_sleeps
short AS (
    SELECT o.task_id, o.tid, sum(greatest(coalesce(o.intervals, 1), 1)) AS sleeps,
           sum(greatest(o.dur - coalesce(o.run_queue, 0), 0)) AS total,
           max(CASE WHEN o.state = '+' THEN 1 ELSE 0 END) AS is_sum, coalesce(p.is_own, false) AS is_own
    FROM (
        SELECT *, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment
        FROM off_cpu
        WHERE ts >= $from AND ts < $to AND task_id IS NOT NULL AND state IN ('S', 'D', '+')
          AND (state = '+' OR dur - coalesce(run_queue, 0) < 1000000)
    ) o
    LEFT JOIN handed h ON h.tid = o.tid AND h.from_ts <= o.moment AND o.moment < h.to_ts
          AND h.bucket = o.moment - (o.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    LEFT JOIN stack_fact p ON p.stack_id = o.stack_id
    WHERE h.tid IS NULL AND NOT coalesce(p.in_place, false)
    GROUP BY o.task_id, o.tid, coalesce(p.is_own, false)
),
short_typed AS (
    SELECT y.name, s.*, row_number() OVER (PARTITION BY y.name ORDER BY s.total DESC, s.tid, s.task_id, s.is_own) AS n
    FROM short s
    LEFT JOIN worker w ON w.tid = s.tid
    LEFT JOIN type_of o ON o.task_id = s.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
    WHERE coalesce(y.kind, CASE WHEN w.tid IS NOT NULL AND s.is_own THEN 'task' ELSE 'unknown' END) = 'task'
),
short_sleeps AS (
    SELECT 'short_sleeps' AS rule, false AS is_warning,
           coalesce(name, 'a task of unknown type') || ' slept inside polls ' || CAST(CAST(sum(sleeps) AS BIGINT) AS VARCHAR)
               || ' times for less than 1 ms, ' AS text_1,
           CAST(sum(total) AS BIGINT) AS ns_1, ' in sum' AS text_2, CAST(NULL AS BIGINT) AS ns_2, '' AS text_3,
           CAST(sum(total) AS BIGINT) AS value, CAST($short_sleeps AS BIGINT) AS threshold, 'ns' AS unit, name AS task_type,
           CAST(NULL AS BIGINT) AS ts, max(CASE WHEN n = 1 THEN task_id END) AS task_id,
           max(CASE WHEN n = 1 THEN tid END) AS tid, CAST(sum(sleeps) AS BIGINT) AS count, max(is_sum) > 0 AS estimated
    FROM short_typed
    GROUP BY name
    HAVING CAST(sum(total) AS DOUBLE) * 1e9
           >= CAST($short_sleeps AS DOUBLE)
              * CAST(greatest(CAST($to AS BIGINT) - CAST($from AS BIGINT), 1000000000) AS DOUBLE)
),
-- cpu_starved
starved AS (
    SELECT p.ts, least(p.run_queue, p.dur) AS waited, p.tid, p.task_id,
           row_number() OVER (ORDER BY least(p.run_queue, p.dur) DESC, p.ts, p.tid, p.task_id) AS n
    FROM polls p
    LEFT JOIN type_of o ON o.task_id = p.task_id
    LEFT JOIN task_types y ON y.type_id = coalesce(p.type_id, o.type_id)
    WHERE p.ts >= $from AND p.ts < $to AND p.dur > $long_poll AND least(p.run_queue, p.dur) > $long_poll
      AND coalesce(y.kind, 'task') = 'task'
),
-- A row of `process` is a second. In tenths of a CPU.
contended AS (
    SELECT CAST((own - own % nullif(own_rows, 0)) / nullif(own_rows, 0) AS BIGINT) AS own,
           CAST((others - others % nullif(others_rows, 0)) / nullif(others_rows, 0) AS BIGINT) AS others,
           CAST((throttled - throttled % 1000000) / 1000000 AS BIGINT) AS throttled_ms
    FROM (
        SELECT CAST((own - own % 100000000) / 100000000 AS BIGINT) AS own, own_rows,
               CAST((others - others % 100000000) / 100000000 AS BIGINT) AS others, others_rows, throttled
        FROM (
            SELECT CAST(coalesce(sum(greatest(cpu_user, 0) + greatest(cpu_sys, 0)), 0) AS BIGINT) AS own,
                   count(*) AS own_rows, CAST(coalesce(sum(greatest(cpu_others, 0)), 0) AS BIGINT) AS others,
                   count(cpu_others) AS others_rows,
                   CAST(coalesce(sum(greatest(throttled, 0)), 0) AS BIGINT) AS throttled
            FROM process
            WHERE ts >= $from AND ts < $to
        )
    )
),
cpu_starved AS (
    SELECT 'cpu_starved' AS rule, false AS is_warning,
           CASE WHEN count(*) = 1 THEN 'a poll waited for a CPU for '
                ELSE 'polls waited for a CPU ' || CAST(count(*) AS VARCHAR) || ' times for more than ' END AS text_1,
           CASE WHEN count(*) = 1 THEN CAST(max(waited) AS BIGINT) ELSE CAST($long_poll AS BIGINT) END AS ns_1,
           CASE WHEN count(*) = 1 THEN '' ELSE ', longest ' END AS text_2,
           CASE WHEN count(*) = 1 THEN NULL ELSE CAST(max(waited) AS BIGINT) END AS ns_2,
           coalesce('; this process used ' || CAST(max(CAST((c.own - c.own % 10) / 10 AS BIGINT)) AS VARCHAR) || '.'
                    || CAST(max(c.own % 10) AS VARCHAR) || ' CPUs, all others '
                    || CAST(max(CAST((c.others - c.others % 10) / 10 AS BIGINT)) AS VARCHAR) || '.'
                    || CAST(max(c.others % 10) AS VARCHAR), '')
               || CASE WHEN max(c.throttled_ms) > 0
                       THEN '; a CPU limit kept its threads from running for ' || CAST(max(c.throttled_ms) AS VARCHAR) || ' ms'
                       ELSE '' END AS text_3,
           CAST(max(waited) AS BIGINT) AS value, CAST($long_poll AS BIGINT) AS threshold, 'ns' AS unit,
           CAST(NULL AS VARCHAR) AS task_type, max(CASE WHEN n = 1 THEN ts END) AS ts,
           max(CASE WHEN n = 1 THEN task_id END) AS task_id, max(CASE WHEN n = 1 THEN tid END) AS tid,
           count(*) AS count, false AS estimated
    FROM starved
    CROSS JOIN contended c
    HAVING count(*) > 0
),
-- wake_delay
delays AS (
    SELECT type_id, (delay >> shift) << shift AS low, count(*) AS n, sum(delay) AS total, max(delay) AS longest
    FROM (
        SELECT type_id, delay, CAST(floor(log2(CAST(greatest(delay, 16) AS DOUBLE))) AS BIGINT) - 4 AS shift
        FROM (
            SELECT type_id, greatest(wake_delay, 0) AS delay
            FROM polls
            WHERE ts >= $from AND ts < $to AND wake_delay IS NOT NULL
        )
    )
    GROUP BY type_id, (delay >> shift) << shift
),
delays_typed AS (
    SELECT d.low, d.n, d.longest, y.name, sum(d.total) OVER (PARTITION BY y.name) AS total,
           sum(d.n) OVER (ORDER BY d.low) AS upto, sum(d.n) OVER () AS count
    FROM delays d
    LEFT JOIN task_types y ON y.type_id = d.type_id
    WHERE coalesce(y.kind, 'task') = 'task'
),
delayed AS (
    SELECT least(min(CASE WHEN upto * 1000 >= count * 990 THEN low
                          + (((CAST(1 AS BIGINT)
                               << (CAST(floor(log2(CAST(greatest(low, 16) AS DOUBLE))) AS BIGINT) - 4)) - 1) >> 1)
                     END), max(longest)) AS p99,
           max(count) AS count, max(CASE WHEN n_type = 1 THEN name END) AS name
    FROM (SELECT *, row_number() OVER (ORDER BY total DESC, name NULLS LAST) AS n_type FROM delays_typed)
),
wake_delay AS (
    SELECT 'wake_delay' AS rule, false AS is_warning,
           'woken tasks wait for their poll: one in a hundred ' AS text_1, p99 AS ns_1,
           ' or more' || coalesce('; most of it falls to ' || name, '') AS text_2, CAST(NULL AS BIGINT) AS ns_2,
           '' AS text_3, p99 AS value, CAST($wake_delay_p99 AS BIGINT) AS threshold, 'ns' AS unit, name AS task_type,
           CAST(NULL AS BIGINT) AS ts, CAST(NULL AS BIGINT) AS task_id, CAST(NULL AS INTEGER) AS tid,
           CAST(count AS BIGINT) AS count, false AS estimated
    FROM delayed
    WHERE p99 > $wake_delay_p99 AND count >= $wake_delay_count
),
-- worker_blocked, imbalance and pool_saturated rest on the load of threads.
away AS (
    SELECT o.tid, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false) AS in_place, min(o.ts) AS first_ts,
           max(o.back) AS last_ts, sum(greatest(least(o.ready, $to) - greatest(o.ts, $from), 0)) AS asleep,
           sum(greatest(least(o.back, $to) - greatest(o.ready, $from), 0)) AS waiting
    FROM (
        SELECT tid, task_id, ts, ts + dur AS back, least(ts + dur, CAST($to AS BIGINT) - 1) AS moment,
               CASE WHEN state = 'R' THEN ts ELSE ts + dur - coalesce(run_queue, 0) END AS ready,
               CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN tid END AS sleeper,
               CASE WHEN state IN ('S', 'D') AND dur - coalesce(run_queue, 0) >= 1000000 THEN stack_id END AS slept_at
        FROM off_cpu
        WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000
    ) o
    LEFT JOIN handed h ON h.tid = o.sleeper AND h.from_ts <= o.moment AND o.moment < h.to_ts
          AND h.bucket = o.moment - (o.moment - $from)
              % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
    LEFT JOIN stack_fact f ON f.stack_id = o.slept_at
    GROUP BY o.tid, o.task_id, h.tid IS NOT NULL OR coalesce(f.in_place, false)
),
-- A worker's sleep inside `block_in_place`, or in a task of unknown type, which may be its own loop, is set apart.
signs AS (
    SELECT a.tid, a.first_ts, a.last_ts, a.waiting,
           CASE WHEN a.task_id IS NOT NULL AND coalesce(t.kind, '') <> 'worker' AND NOT a.in_place
                     AND (t.kind IS NOT NULL OR w.tid IS NULL) THEN a.asleep ELSE 0 END AS blocked,
           CASE WHEN a.task_id IS NOT NULL AND coalesce(t.kind, '') <> 'worker'
                     AND (a.in_place OR (t.kind IS NULL AND w.tid IS NOT NULL)) THEN a.asleep ELSE 0 END AS apart,
           CASE WHEN a.task_id IS NULL OR t.kind = 'worker' THEN a.asleep ELSE 0 END AS idle
    FROM away a
    LEFT JOIN kind_of t ON t.task_id = a.task_id
    LEFT JOIN worker w ON w.tid = a.tid
    UNION ALL
    SELECT tid, min(ts), max(ts), 0, 0, 0, 0
    FROM samples
    WHERE ts >= greatest($from, -9000000000000000000) - 1000000000 AND ts < least($to, 9000000000000000000) + 1000000000
    GROUP BY tid
    UNION ALL
    SELECT tid, min(ts), max(ts + dur), 0, 0, 0, 0
    FROM polls
    WHERE ts < least($to, 9000000000000000000) + 1000000000 AND ts + dur > greatest($from, -9000000000000000000) - 1000000000
    GROUP BY tid
),
load AS (
    SELECT t.tid, t.role, t.runtime_id, coalesce('worker ' || CAST(t.worker AS VARCHAR),
                                                 'worker thread ' || CAST(t.tid AS VARCHAR)) AS name,
           coalesce(s.observed, 0) AS observed, coalesce(s.blocked, 0) AS blocked, coalesce(s.idle, 0) AS idle,
           coalesce(s.observed - s.blocked - s.apart - s.waiting - s.idle, 0) AS running
    FROM thread t
    LEFT JOIN (
        SELECT tid, greatest(least(max(last_ts), $to) - greatest(min(first_ts), $from), 0) AS observed,
               sum(waiting) AS waiting, sum(blocked) AS blocked, sum(apart) AS apart, sum(idle) AS idle
        FROM signs
        GROUP BY tid
    ) s ON s.tid = t.tid
    WHERE t.role IN ('worker', 'blocking')
),
shares AS (
    SELECT *, CAST((blocked * 1000 - (blocked * 1000) % nullif(observed, 0)) / nullif(observed, 0) AS BIGINT)
               AS blocked_share,
           CAST((running * 1000 - (running * 1000) % nullif(observed, 0)) / nullif(observed, 0) AS BIGINT) AS busy,
           role = 'worker' AND observed >= $observed AND observed > 0 AS is_rated
    FROM load
),
ranked AS (
    SELECT *, first_value(name) OVER (PARTITION BY is_rated, role, runtime_id ORDER BY busy, tid) AS least_name,
           first_value(busy) OVER (PARTITION BY is_rated, role, runtime_id ORDER BY busy, tid) AS least_busy,
           row_number() OVER (PARTITION BY is_rated, role, runtime_id ORDER BY busy DESC, tid) AS n,
           count(*) OVER (PARTITION BY role) AS threads, sum(observed) OVER (PARTITION BY role) AS all_observed,
           sum(observed - idle) OVER (PARTITION BY role) AS all_busy,
           row_number() OVER (PARTITION BY role ORDER BY observed - idle DESC, tid) AS n_busy
    FROM shares
),
rated AS (
    SELECT *, CAST((busy * 1000 - (busy * 1000) % greatest(least_busy, 1)) / greatest(least_busy, 1) AS BIGINT)
               AS ratio,
           CAST((all_busy * 1000 - (all_busy * 1000) % nullif(all_observed, 0)) / nullif(all_observed, 0) AS BIGINT)
               AS pool_share
    FROM ranked
),
loaded AS (
    SELECT r.rule, r.rule = 'worker_blocked' AS is_warning,
           CASE r.rule
               WHEN 'worker_blocked' THEN l.name || ' was asleep inside polls for '
                    || CAST(CAST((l.blocked_share - l.blocked_share % 10) / 10 AS BIGINT) AS VARCHAR)
                    || ' % of its time'
               WHEN 'imbalance' THEN l.name || ' was on a CPU for '
                    || CAST(CAST((l.busy - l.busy % 10) / 10 AS BIGINT) AS VARCHAR) || ' % of its time, '
                    || l.least_name || ' for '
                    || CAST(CAST((l.least_busy - l.least_busy % 10) / 10 AS BIGINT) AS VARCHAR) || ' %'
               ELSE 'the ' || CAST(l.threads AS VARCHAR) || ' threads of the blocking pool were at work for '
                    || CAST(CAST((l.pool_share - l.pool_share % 10) / 10 AS BIGINT) AS VARCHAR) || ' % of the time'
           END AS text_1, CAST(NULL AS BIGINT) AS ns_1, '' AS text_2, CAST(NULL AS BIGINT) AS ns_2, '' AS text_3,
           CASE r.rule WHEN 'worker_blocked' THEN l.blocked_share WHEN 'imbalance' THEN l.ratio ELSE l.pool_share
           END AS value,
           CASE r.rule WHEN 'worker_blocked' THEN CAST($worker_blocked AS BIGINT)
                       WHEN 'imbalance' THEN CAST($imbalance AS BIGINT) ELSE CAST($pool_busy AS BIGINT)
           END AS threshold, 'thousandths' AS unit, CAST(NULL AS VARCHAR) AS task_type, CAST(NULL AS BIGINT) AS ts,
           CAST(NULL AS BIGINT) AS task_id, l.tid, CAST(NULL AS BIGINT) AS count, false AS estimated
    FROM rated l
    CROSS JOIN (SELECT 'worker_blocked' AS rule UNION ALL SELECT 'imbalance' UNION ALL SELECT 'pool_saturated') r
    WHERE (r.rule = 'worker_blocked' AND l.is_rated AND l.blocked_share > $worker_blocked)
       OR (r.rule = 'imbalance' AND l.is_rated AND l.n = 1 AND l.busy > $imbalance_busy AND l.ratio > $imbalance)
       OR (r.rule = 'pool_saturated' AND l.role = 'blocking' AND l.n_busy = 1 AND l.threads >= $pool_threads
           AND l.all_observed >= $observed AND l.pool_share > $pool_busy)
),
-- tasks_grow
lives AS (
    SELECT y.name, sum(l.spawned) AS spawned, sum(l.ended) AS ended
    FROM (
        SELECT task_id, 1 AS spawned, 0 AS ended FROM spawns WHERE ts >= $from AND ts < $to
        UNION ALL
        -- A task ends once.
        SELECT DISTINCT task_id, 0, 1 FROM ends WHERE ts >= $from AND ts < $to
    ) l
    LEFT JOIN type_of o ON o.task_id = l.task_id
    LEFT JOIN task_types y ON y.type_id = o.type_id
    WHERE coalesce(y.kind, 'task') <> 'worker'
    GROUP BY y.name
),
life_watched AS (
    SELECT coalesce(min(watched), 0) AS watched
    FROM (
        SELECT s.stream, coalesce(sum(c.watched), 0) AS watched
        FROM (SELECT 'spawns' AS stream UNION ALL SELECT 'ends') s
        LEFT JOIN (SELECT stream, least(ts + dur, $to) - greatest(ts, $from) AS watched
                   FROM coverage
                   WHERE stream IN ('spawns', 'ends') AND ts < $to AND ts + dur > $from) c ON c.stream = s.stream
        GROUP BY s.stream
    )
),
tasks_grow AS (
    SELECT 'tasks_grow' AS rule, false AS is_warning,
           CAST(l.spawned AS VARCHAR) || ' tasks of ' || l.name || ' were spawned within ' AS text_1,
           CAST(v.watched AS BIGINT) AS ns_1,
           ' that were watched, ' || CAST(l.ended AS VARCHAR) || ' ended' AS text_2,
           CAST(NULL AS BIGINT) AS ns_2, '' AS text_3,
           CAST(l.spawned AS BIGINT) AS value, CAST($growth AS BIGINT) AS threshold, 'count' AS unit,
           l.name AS task_type, CAST(NULL AS BIGINT) AS ts, CAST(NULL AS BIGINT) AS task_id,
           CAST(NULL AS INTEGER) AS tid,
           CAST(l.spawned AS BIGINT) AS count, false AS estimated
    FROM lives l
    CROSS JOIN life_watched v
    CROSS JOIN (SELECT coalesce(sum(ended), 0) AS ended FROM lives WHERE name IS NULL) u
    WHERE l.name IS NOT NULL AND l.spawned >= $growth AND v.watched >= $observed
      AND (l.ended + u.ended) * 1000 <= l.spawned * $growth_ended
),
-- self_waking
spinning AS (
    SELECT task_id, wakes,
           row_number() OVER (PARTITION BY name ORDER BY wakes DESC, task_id) AS n, name
    FROM (
        SELECT w.task_id, w.self_wakes AS wakes, y.name
        FROM (
            SELECT task_id, count(*) AS wakes, sum(CASE WHEN waker_task_id = task_id THEN 1 ELSE 0 END) AS self_wakes
            FROM wakes
            WHERE ts >= $from AND ts < $to
            GROUP BY task_id
        ) w
        LEFT JOIN type_of o ON o.task_id = w.task_id
        LEFT JOIN task_types y ON y.type_id = o.type_id
        WHERE w.self_wakes > 0 AND coalesce(y.kind, 'task') = 'task'
          AND CAST(w.self_wakes AS DOUBLE) * 1e9
              >= CAST($self_wakes AS DOUBLE)
                 * CAST(greatest(CAST($to AS BIGINT) - CAST($from AS BIGINT), 1000000000) AS DOUBLE)
          AND w.self_wakes * 1000 >= w.wakes * $self_wakes_share
    )
),
self_waking AS (
    SELECT 'self_waking' AS rule, false AS is_warning,
           CASE WHEN count(*) = 1 THEN 'a task of ' || coalesce(name, 'unknown type') || ' woke itself '
                ELSE CAST(count(*) AS VARCHAR) || ' tasks of ' || coalesce(name, 'unknown type')
                     || ' woke themselves ' END || CAST(sum(wakes) AS VARCHAR) || ' times' AS text_1,
           CAST(NULL AS BIGINT) AS ns_1, '' AS text_2, CAST(NULL AS BIGINT) AS ns_2, '' AS text_3,
           CAST(sum(wakes) AS BIGINT) AS value, CAST($self_wakes AS BIGINT) AS threshold, 'count' AS unit,
           name AS task_type, CAST(NULL AS BIGINT) AS ts, max(CASE WHEN n = 1 THEN task_id END) AS task_id,
           CAST(NULL AS INTEGER) AS tid, count(*) AS count, false AS estimated
    FROM spinning
    GROUP BY name
),
-- lock_owner_asleep
-- Kinds of lock as in locks.sql: 1 mutex, 2 RwLock, 3 semaphore, 4 condition variable, 5 park, 6 futex.
lock_stacks AS (
    SELECT p.stack_id, min(f.kind) AS kind
    FROM (
        SELECT stack_id, unnest(frame_ids) AS frame_id,
               unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
        FROM stacks
    ) p
    JOIN (
        SELECT frame_id,
               CASE WHEN name LIKE '%condvar%' THEN 4
                    WHEN name LIKE '%mutex%' OR name LIKE '%lock_contended%' OR name LIKE '%lock_slow%' THEN 1
                    WHEN name LIKE '%rwlock%' THEN 2
                    WHEN name LIKE '%semaphore%' THEN 3
                    WHEN name LIKE '%park%' THEN 5
                    WHEN name LIKE '%futex%' THEN 6 END AS kind
        FROM (SELECT frame_id, lower(function) AS name FROM frames WHERE function IS NOT NULL)
    ) f ON f.frame_id = p.frame_id
    WHERE p.depth <= 16 AND f.kind IS NOT NULL
    GROUP BY p.stack_id
),
sleeps AS (
    SELECT o.tid, o.ts, o.dur - coalesce(o.run_queue, 0) AS dur, o.task_id, o.waker_tid, y.name, y.kind,
           coalesce(l.kind <= 2, false) AS is_lock, coalesce(l.kind <> 5, false) AS is_waiting
    FROM off_cpu o
    LEFT JOIN type_of p ON p.task_id = o.task_id
    LEFT JOIN task_types y ON y.type_id = p.type_id
    LEFT JOIN lock_stacks l ON l.stack_id = o.stack_id
    WHERE o.ts >= greatest($from, -9000000000000000000) - 1000000000 AND o.ts < $to AND o.dur >= $lock_wait AND o.task_id IS NOT NULL
      AND o.state IN ('S', 'D') AND o.dur - coalesce(o.run_queue, 0) >= $lock_wait
      AND coalesce(y.kind, 'task') <> 'worker'
),
sleep AS (
    SELECT *
    FROM (SELECT *, row_number() OVER (PARTITION BY tid, ts ORDER BY dur DESC, task_id) AS n FROM sleeps)
    WHERE n = 1
),
marks AS (
    SELECT *, max(CASE WHEN place = 2 THEN moment END) OVER (
                  PARTITION BY moment_tid ORDER BY moment, place
                  ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS sleep_ts
    FROM (
        SELECT on_tid AS moment_tid, began AS moment, 2 AS place, CAST(NULL AS INTEGER) AS tid,
               CAST(NULL AS BIGINT) AS ts, CAST(NULL AS BIGINT) AS dur, CAST(NULL AS BIGINT) AS task_id,
               CAST(NULL AS VARCHAR) AS name
        FROM (SELECT tid AS on_tid, ts AS began FROM sleep)
        UNION ALL
        SELECT s.waker_tid, s.ts + s.dur, 1, s.tid, s.ts, s.dur, s.task_id, s.name
        FROM sleeps s
        JOIN thread t ON t.tid = s.tid
        WHERE s.ts >= $from AND s.is_lock AND coalesce(s.kind, 'task') = 'task' AND t.role <> 'other'
    )
),
locked AS (
    SELECT m.tid, m.ts, m.dur, m.task_id, m.name, s.name AS holder,
           row_number() OVER (PARTITION BY m.name, s.name ORDER BY m.dur DESC, m.ts, m.tid) AS n
    FROM marks m
    JOIN sleep s ON s.tid = m.moment_tid AND s.ts = m.sleep_ts
    WHERE m.place = 1 AND s.tid <> m.tid AND s.ts + s.dur > m.ts AND s.ts + s.dur <= m.moment AND NOT s.is_waiting
),
lock_owner_asleep AS (
    SELECT 'lock_owner_asleep' AS rule, false AS is_warning,
           coalesce(name, 'a task of unknown type') || ' waited '
               || CASE WHEN count(*) > 1 THEN CAST(count(*) AS VARCHAR) || ' times, longest ' ELSE '' END AS text_1,
           max(dur) AS ns_1,
           ' for a lock that ' || coalesce(holder, 'a task of unknown type') || ' released, which had slept meanwhile' AS text_2,
           CAST(NULL AS BIGINT) AS ns_2, '' AS text_3, max(dur) AS value, CAST($lock_wait AS BIGINT) AS threshold,
           'ns' AS unit, name AS task_type, max(CASE WHEN n = 1 THEN ts END) AS ts,
           max(CASE WHEN n = 1 THEN task_id END) AS task_id, max(CASE WHEN n = 1 THEN tid END) AS tid,
           count(*) AS count, false AS estimated
    FROM locked
    GROUP BY name, holder
),
found AS (
    SELECT * FROM long_poll
    UNION ALL SELECT * FROM cpu_share
    UNION ALL SELECT * FROM short_sleeps
    UNION ALL SELECT * FROM cpu_starved
    UNION ALL SELECT * FROM wake_delay
    UNION ALL SELECT * FROM loaded
    UNION ALL SELECT * FROM tasks_grow
    UNION ALL SELECT * FROM self_waking
    UNION ALL SELECT * FROM lock_owner_asleep
),
-- A duration as people read it.
told AS (
    SELECT f.*,
           CASE WHEN ns_1 IS NULL THEN ''
                WHEN ns_1 >= 10000000000
                THEN CAST(CAST((ns_1 - ns_1 % 1000000000) / 1000000000 AS BIGINT) AS VARCHAR) || ' s'
                WHEN ns_1 >= 10000000 THEN CAST(CAST((ns_1 - ns_1 % 1000000) / 1000000 AS BIGINT) AS VARCHAR) || ' ms'
                WHEN ns_1 >= 10000 THEN CAST(CAST((ns_1 - ns_1 % 1000) / 1000 AS BIGINT) AS VARCHAR) || ' µs'
                ELSE CAST(ns_1 AS VARCHAR) || ' ns' END AS told_1,
           CASE WHEN ns_2 IS NULL THEN ''
                WHEN ns_2 >= 10000000000
                THEN CAST(CAST((ns_2 - ns_2 % 1000000000) / 1000000000 AS BIGINT) AS VARCHAR) || ' s'
                WHEN ns_2 >= 10000000 THEN CAST(CAST((ns_2 - ns_2 % 1000000) / 1000000 AS BIGINT) AS VARCHAR) || ' ms'
                WHEN ns_2 >= 10000 THEN CAST(CAST((ns_2 - ns_2 % 1000) / 1000 AS BIGINT) AS VARCHAR) || ' µs'
                ELSE CAST(ns_2 AS VARCHAR) || ' ns' END AS told_2
    FROM found f
)
SELECT f.rule, CASE WHEN f.is_warning THEN 'warning' ELSE 'caution' END AS severity,
       f.text_1 || f.told_1 || f.text_2 || f.told_2 || f.text_3 AS sentence, f.value, f.threshold, f.unit, f.task_type,
       t.name AS thread, f.ts, f.task_id, f.tid, f.count, f.estimated
FROM told f
LEFT JOIN thread t ON t.tid = f.tid
ORDER BY severity DESC, f.rule, f.value DESC, sentence
