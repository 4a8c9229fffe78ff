-- wake_latency: wake-to-poll latency by type of task, ordered by total latency.
--
-- A row is a type of task. The latency is that of the poll: from the wake that led to it to its start. Work of the
-- blocking pool and workers' own loops are excluded, as are polls without a recorded wake. Percentiles are by nearest rank
-- over buckets a sixteenth of an octave wide, reported as the middle of the bucket and never above the longest: the error
-- is at most 3.1 %, and 0 below 32 ns. A negative latency counts as 0.
--
-- Parameters:
--   $from       epoch_ns  start of the time range in which polls begin
--   $to         epoch_ns  its end, exclusive
--
-- Columns:
--   task_type   text      type of the tasks; null if unknown
--   count       count     number of polls with a known latency
--   p50         ns        median latency
--   p90         ns        90th percentile
--   p99         ns        99th percentile
--   longest     ns        longest latency, exact
--   mean        ns        mean latency, rounded down
--   total       ns        sum of all latencies
--
-- Further columns:
--   file        text      source file of the future
--   line        id        line in it
WITH
-- Many polls, few buckets: counted before anything is looked up, and grouped by one number, which is much faster than two in
-- both engines: the type (0 if unknown) times 2,048, plus the bucket, which is 32 times the shift plus the shifted delay.
counted AS (
    SELECT spot >> 11 AS type_number, (spot & 31) << ((spot >> 5) & 63) AS low, n, total, longest
    FROM (
        SELECT spot, count(*) AS n, sum(delay) AS total, max(delay) AS longest
        FROM (
            SELECT delay, coalesce(type_id + 1, 0) * 2048 + shift * 32 + (delay >> shift) AS spot
            FROM (
                SELECT type_id, delay, CAST(floor(log2(CAST(greatest(delay, 16) AS DOUBLE))) AS BIGINT) - 4 AS shift
                FROM (
                    SELECT type_id, greatest(wake_delay, 0) AS delay
                    FROM polls
                    WHERE ts >= $from AND ts < $to AND wake_delay IS NOT NULL
                )
            )
        )
        GROUP BY spot
    )
),
typed AS (
    SELECT y.name, y.file, y.line, c.low, sum(c.n) AS n, sum(c.total) AS total, max(c.longest) AS longest
    FROM counted c
    LEFT JOIN task_types y ON y.type_id = c.type_number - 1
    WHERE coalesce(y.kind, 'task') = 'task'
    GROUP BY y.name, y.file, y.line, c.low
),
ranked AS (
    SELECT name, file, line, n, total, longest,
           low + (((CAST(1 AS BIGINT) << (CAST(floor(log2(CAST(greatest(low, 16) AS DOUBLE))) AS BIGINT) - 4)) - 1) >> 1)
               AS middle,
           sum(n) OVER (PARTITION BY name, file, line ORDER BY low
                        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS upto,
           sum(n) OVER (PARTITION BY name, file, line) AS count
    FROM typed
)
SELECT name AS task_type, CAST(sum(n) AS BIGINT) AS count,
       least(min(CASE WHEN upto * 1000 >= count * 500 THEN middle END), max(longest)) AS p50,
       least(min(CASE WHEN upto * 1000 >= count * 900 THEN middle END), max(longest)) AS p90,
       least(min(CASE WHEN upto * 1000 >= count * 990 THEN middle END), max(longest)) AS p99,
       max(longest) AS longest, CAST((sum(total) - sum(total) % sum(n)) / sum(n) AS BIGINT) AS mean,
       CAST(sum(total) AS BIGINT) AS total, file, line
FROM ranked
GROUP BY name, file, line
ORDER BY total DESC, task_type NULLS LAST, file NULLS LAST, line NULLS LAST
