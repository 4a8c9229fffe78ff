-- fleet_hotspots: CPU time by function over many hosts.
--
-- A row is a service, a function and a type of task that ran it, attributed as in hotspots.sql. Minutes count whose start is
-- in the time range.
--
-- Parameters:
--   $from       epoch_ns  start of the time range, in whole minutes
--   $to         epoch_ns  its end, exclusive
--   $service    text      only this service; null = all
--   $host       text      only this host; null = all
--
-- Columns:
--   service     text      service
--   self        ns        CPU time attributed to the function
--   self_share  share     `self` as a share of the CPU time of all samples of the service
--   total       ns        CPU time of the samples that have it anywhere on the stack
--   samples     count     number of samples attributed to it
--   hosts       count     number of hosts on which it was sampled
--   function    text      function, or the task's type if no own frame is known
--   file        text      its source file
--   line        id        line with most of its CPU time
--   task_type   text      type of the task; null outside a task, or if unknown
WITH
by_line AS (
    SELECT service, function, file, line, task_type, host, sum(own) AS own, sum(total) AS total, sum(samples) AS samples
    FROM rollup_cpu
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
    GROUP BY service, function, file, line, task_type, host
),
weighed AS (
    SELECT *, sum(own) OVER (PARTITION BY service, function, file, task_type, line) AS line_own
    FROM by_line
),
located AS (
    SELECT service, function, file, task_type, host, own, total, samples,
           first_value(line) OVER (PARTITION BY service, function, file, task_type
                                   ORDER BY line_own DESC, line NULLS LAST
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS top_line
    FROM weighed
),
summed AS (
    SELECT service, function, file, task_type, min(top_line) AS line, sum(own) AS own, sum(total) AS total,
           sum(samples) AS samples, count(DISTINCT CASE WHEN own > 0 THEN host END) AS hosts
    FROM located
    GROUP BY service, function, file, task_type
)
SELECT service, CAST(own AS BIGINT) AS self,
       CAST(own AS DOUBLE) / nullif(CAST(sum(own) OVER (PARTITION BY service) AS DOUBLE), 0) AS self_share,
       CAST(total AS BIGINT) AS total, CAST(samples AS BIGINT) AS samples, CAST(hosts AS BIGINT) AS hosts,
       function, file, line, task_type
FROM summed
WHERE own > 0
ORDER BY self DESC, service, function, file NULLS LAST, task_type NULLS LAST
