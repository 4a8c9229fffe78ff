-- fleet_latency: poll durations and wake-to-poll latencies by type of task, over many hosts.
--
-- Percentiles come from merged histograms: by nearest rank, reported as the middle of a slot that is a sixteenth of an octave
-- wide, and never above the longest. Their error is at most 3.1 %, and 0 below 32 ns.
--
-- Parameters:
--   $from       epoch_ns  start of the time range, in whole minutes
--   $to         epoch_ns  its end, exclusive
--   $service    text      only this service; null = all
--   $host       text      only this host; null = all
--
-- Columns:
--   service     text      service
--   measure     text      'poll' (duration of a poll) or 'wake' (wake-to-poll latency)
--   task_type   text      type of the tasks; null if unknown
--   count       count     number of polls
--   p50         ns        median
--   p90         ns        90th percentile
--   p99         ns        99th percentile
--   longest     ns        the longest, exact
--   mean        ns        mean, rounded down
--   total       ns        sum
--   hosts       count     number of hosts
WITH
recorded AS (
    SELECT 'poll' AS measure, service, host, task_type, total, longest, slots, counts
    FROM rollup_polls
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
    UNION ALL
    SELECT 'wake' AS measure, service, host, task_type, total, longest, slots, counts
    FROM rollup_wake
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
),
facts AS (
    SELECT measure, service, coalesce(task_type, '') AS type_key, min(task_type) AS task_type, sum(total) AS total,
           max(longest) AS longest, count(DISTINCT host) AS hosts
    FROM recorded
    GROUP BY measure, service, coalesce(task_type, '')
),
counted AS (
    SELECT measure, service, type_key, slot, sum(n) AS n
    FROM (
        SELECT measure, service, coalesce(task_type, '') AS type_key, unnest(slots) AS slot, unnest(counts) AS n
        FROM recorded
    )
    GROUP BY measure, service, type_key, slot
),
ranked AS (
    SELECT measure, service, type_key,
           CASE WHEN slot < 16 THEN slot
                ELSE ((16 + slot % 16) << ((slot >> 4) - 1)) + (((CAST(1 AS BIGINT) << ((slot >> 4) - 1)) - 1) >> 1)
           END AS middle,
           sum(n) OVER (PARTITION BY measure, service, type_key ORDER BY slot
                        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS upto,
           sum(n) OVER (PARTITION BY measure, service, type_key) AS count
    FROM counted
),
quantiles AS (
    SELECT measure, service, type_key, min(count) AS count,
           min(CASE WHEN upto * 1000 >= count * 500 THEN middle END) AS p50,
           min(CASE WHEN upto * 1000 >= count * 900 THEN middle END) AS p90,
           min(CASE WHEN upto * 1000 >= count * 990 THEN middle END) AS p99
    FROM ranked
    GROUP BY measure, service, type_key
)
SELECT f.service, f.measure, f.task_type, CAST(q.count AS BIGINT) AS count, least(q.p50, f.longest) AS p50,
       least(q.p90, f.longest) AS p90, least(q.p99, f.longest) AS p99, f.longest,
       CAST((f.total - f.total % q.count) / q.count AS BIGINT) AS mean, CAST(f.total AS BIGINT) AS total,
       CAST(f.hosts AS BIGINT) AS hosts
FROM facts f
JOIN quantiles q ON q.measure = f.measure AND q.service = f.service AND q.type_key = f.type_key
ORDER BY f.measure, total DESC, f.service, f.task_type NULLS LAST
