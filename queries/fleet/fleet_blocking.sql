-- fleet_blocking: code that blocks workers, over many hosts.
--
-- A row is a service and a culprit as in blocking.sql: cause, function and type of task. Sleeps shorter than 1 ms are the cause
-- 'short sleeps'.
--
-- Parameters:
--   $from       epoch_ns  start of the time range, in whole minutes
--   $to         epoch_ns  its end, exclusive
--   $service    text      only this service; null = all
--   $host       text      only this host; null = all
--
-- Columns:
--   service     text      service
--   cause       text      'blocked', 'cpu' or 'short sleeps'
--   count       count     number of intervals
--   total       ns        sum of their durations
--   longest     ns        the longest
--   estimated   flag      whether any duration is an estimate
--   hosts       count     number of hosts with such intervals
--   function    text      function to which they are attributed
--   file        text      its source file
--   line        id        line with most of the time
--   task_type   text      type of the task; null if unknown
WITH
by_line AS (
    SELECT service, cause, function, file, line, task_type, host, sum(count) AS count, sum(total) AS total,
           max(longest) AS longest, max(CASE WHEN estimated THEN 1 ELSE 0 END) AS estimated
    FROM rollup_blocking
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
    GROUP BY service, cause, function, file, line, task_type, host
),
weighed AS (
    SELECT *, sum(total) OVER (PARTITION BY service, cause, function, file, task_type, line) AS line_total
    FROM by_line
),
located AS (
    SELECT service, cause, function, file, task_type, host, count, total, longest, estimated,
           first_value(line) OVER (PARTITION BY service, cause, function, file, task_type
                                   ORDER BY line_total DESC, line NULLS LAST
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS top_line
    FROM weighed
)
SELECT service, cause, CAST(sum(count) AS BIGINT) AS count, CAST(sum(total) AS BIGINT) AS total,
       max(longest) AS longest, max(estimated) = 1 AS estimated, CAST(count(DISTINCT host) AS BIGINT) AS hosts,
       function, file, min(top_line) AS line, task_type
FROM located
GROUP BY service, cause, function, file, task_type
ORDER BY total DESC, service, cause, function, file NULLS LAST, task_type NULLS LAST
