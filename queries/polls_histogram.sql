-- polls_histogram: poll durations by type of task, in buckets that double.
--
-- A row is a bucket of a type: polls of at least `low` and less than `high`, if there are any. Workers' own loops are
-- excluded. Types are ordered by the total time of their polls, buckets from the shortest.
--
-- Parameters:
--   $from             epoch_ns  start of the time range in which polls begin
--   $to               epoch_ns  its end, exclusive
--   $task             id        only this task; null = all
--   $thread           id        only this thread; null = all
--
-- Columns:
--   task_type         text      type of the tasks; null if unknown
--   low               ns        minimum duration of the bucket: 0, 1, 2, 4, 8, …
--   high              ns        upper limit of the bucket, exclusive
--   count             count     number of polls
--   share             share     these polls as a share of the type's polls
--   cumulative_share  share     share of the type's polls that took less than `high`
--   total             ns        total time of these polls
--   time_share        share     that time as a share of the time of all the type's polls; null if that is 0
--
-- Further columns:
--   kind              text      'task' or 'blocking' (work of the blocking pool); null if unknown
WITH
counted AS (
    SELECT type_id, low, count(*) AS n, sum(dur) AS total
    FROM (
        SELECT type_id, dur,
               CASE WHEN dur < 1 THEN 0
                    ELSE CAST(1 AS BIGINT) << CAST(floor(log2(CAST(greatest(dur, 1) AS DOUBLE))) AS BIGINT) END AS low
        FROM polls
        WHERE ts >= $from AND ts < $to
          AND ($task IS NULL OR task_id = $task)
          AND ($thread IS NULL OR tid = $thread)
    )
    GROUP BY type_id, low
),
typed AS (
    SELECT y.name, y.kind, c.low, sum(c.n) AS n, sum(c.total) AS total
    FROM counted c
    LEFT JOIN task_types y ON y.type_id = c.type_id
    WHERE coalesce(y.kind, 'task') <> 'worker'
    GROUP BY y.name, y.kind, c.low
),
ranked AS (
    SELECT *, sum(n) OVER (PARTITION BY name, kind ORDER BY low
                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS upto,
           sum(n) OVER (PARTITION BY name, kind) AS all_n, sum(total) OVER (PARTITION BY name, kind) AS all_total
    FROM typed
)
SELECT name AS task_type, low, CASE WHEN low = 0 THEN 1 ELSE low * 2 END AS high, CAST(n AS BIGINT) AS count,
       CAST(n AS DOUBLE) / all_n AS share, CAST(upto AS DOUBLE) / all_n AS cumulative_share,
       CAST(total AS BIGINT) AS total, CAST(total AS DOUBLE) / nullif(all_total, 0) AS time_share, kind
FROM ranked
ORDER BY all_total DESC, task_type NULLS LAST, kind NULLS LAST, low
