-- fleet_regressions: what became slower or more expensive from one build to another.
--
-- A row is a type of task and a measure. Each host's minute is one observation: the mean over its polls. The interval is the
-- difference of the two builds' means of observations with a confidence of 95 %, by Welch's method with the normal quantile,
-- so it needs 30 observations of each build; rows with fewer are left out.
--
-- Parameters:
--   $from       epoch_ns  start of the time range, in whole minutes
--   $to         epoch_ns  its end, exclusive
--   $service    text      only this service; null = all
--   $host       text      only this host; null = all
--   $before     text      build id or version to compare with
--   $after      text      build id or version that is compared
--
-- Columns:
--   service     text      service
--   measure     text      'poll' (mean duration), 'busy' (mean computing time of a poll) or 'wake' (mean wake-to-poll latency)
--   task_type   text      type of the tasks; null if unknown
--   before      ns        mean of the first build
--   after       ns        mean of the second
--   change      share     change as a share of the first
--   low         ns        lower end of the interval of the difference
--   high        ns        its upper end
--   significant flag      whether the interval does not contain 0
--   minutes     count     observations of the build with fewer of them
WITH
observed AS (
    SELECT service, 'poll' AS measure, coalesce(task_type, '') AS type_key, build_id, version,
           CAST(total AS DOUBLE) / CAST(count AS DOUBLE) AS value
    FROM rollup_polls
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host) AND count > 0
    UNION ALL
    SELECT service, 'busy' AS measure, coalesce(task_type, '') AS type_key, build_id, version,
           CAST(busy AS DOUBLE) / CAST(count AS DOUBLE) AS value
    FROM rollup_polls
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host) AND count > 0
    UNION ALL
    SELECT service, 'wake' AS measure, coalesce(task_type, '') AS type_key, build_id, version,
           CAST(total AS DOUBLE) / CAST(count AS DOUBLE) AS value
    FROM rollup_wake
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host) AND count > 0
),
sided AS (
    SELECT service, measure, type_key, build_id = $after OR version = $after AS is_after, value
    FROM observed
    WHERE build_id = $before OR version = $before OR build_id = $after OR version = $after
),
summed AS (
    SELECT service, measure, type_key, coalesce(is_after, false) AS is_after, count(*) AS n, avg(value) AS mean,
           var_samp(value) AS variance
    FROM sided
    GROUP BY service, measure, type_key, coalesce(is_after, false)
),
compared AS (
    SELECT b.service, b.measure, b.type_key, b.mean AS before_mean, a.mean AS after_mean, least(a.n, b.n) AS minutes,
           1.96 * sqrt(a.variance / a.n + b.variance / b.n) AS width
    FROM summed b
    JOIN summed a ON a.service = b.service AND a.measure = b.measure AND a.type_key = b.type_key
    WHERE NOT b.is_after AND a.is_after AND a.n >= 30 AND b.n >= 30
),
changed AS (
    SELECT service, measure, nullif(type_key, '') AS task_type, CAST(floor(before_mean) AS BIGINT) AS before,
           CAST(floor(after_mean) AS BIGINT) AS after, (after_mean - before_mean) / nullif(before_mean, 0) AS change,
           CAST(floor(after_mean - before_mean - width) AS BIGINT) AS low,
           CAST(floor(after_mean - before_mean + width) AS BIGINT) AS high,
           abs(after_mean - before_mean) > width AS significant, CAST(minutes AS BIGINT) AS minutes
    FROM compared
)
SELECT service, measure, task_type, before, after, change, low, high, significant, minutes
FROM changed
ORDER BY significant DESC, abs(change) DESC NULLS LAST, service, measure, task_type NULLS LAST
