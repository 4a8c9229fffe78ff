-- fleet_outliers: hosts that differ from the other hosts of their service.
--
-- A row is a host and a measure whose value is far from the median of its service: by more than three and a half times the
-- median absolute deviation, scaled to a standard deviation (Iglewicz and Hoaglin, 1993), and by a tenth of the median.
-- Services with fewer than five hosts are left out.
--
-- Parameters:
--   $from       epoch_ns  start of the time range, in whole minutes
--   $to         epoch_ns  its end, exclusive
--   $service    text      only this service; null = all
--   $host       text      only this host; null = all
--
-- Columns:
--   service     text      service
--   host        text      host
--   measure     text      'cpus' (CPUs in use), 'blocked' (share of workers' time asleep inside tasks), 'queued' (share of workers'
--                         time runnable without a CPU) or 'wake' (mean wake-to-poll latency in seconds)
--   value       share     value of the host
--   peers       share     median of the hosts of the service
--   score       share     distance from the median in standard deviations; negative if below
--   hosts       count     number of hosts of the service
WITH
measured AS (
    SELECT service, host, 'cpus' AS measure, sum(cpu_user + cpu_sys) AS part, sum(observed) AS whole
    FROM rollup_process
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
    GROUP BY service, host
    UNION ALL
    SELECT service, host, 'blocked' AS measure, sum(blocked) AS part, sum(cpu + blocked + run_queue + idle) AS whole
    FROM rollup_workers
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host) AND role = 'worker'
    GROUP BY service, host
    UNION ALL
    SELECT service, host, 'queued' AS measure, sum(run_queue) AS part, sum(cpu + blocked + run_queue + idle) AS whole
    FROM rollup_workers
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host) AND role = 'worker'
    GROUP BY service, host
    UNION ALL
    SELECT service, host, 'wake' AS measure, sum(total) AS part, sum(count) * 1000000000 AS whole
    FROM rollup_wake
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
    GROUP BY service, host
),
valued AS (
    SELECT service, host, measure, CAST(part AS DOUBLE) / CAST(whole AS DOUBLE) AS value
    FROM measured
    WHERE whole > 0
),
peer AS (
    SELECT service, measure, median(value) AS middle, count(*) AS hosts
    FROM valued
    GROUP BY service, measure
),
distant AS (
    SELECT v.service, v.host, v.measure, v.value, p.middle, p.hosts, abs(v.value - p.middle) AS distance
    FROM valued v
    JOIN peer p ON p.service = v.service AND p.measure = v.measure
),
spread AS (
    SELECT service, measure, median(distance) * 1.4826 AS deviation
    FROM distant
    GROUP BY service, measure
),
scored AS (
    SELECT d.service, d.host, d.measure, d.value, d.middle AS peers,
           (d.value - d.middle) / greatest(s.deviation, d.middle * 0.01) AS score, CAST(d.hosts AS BIGINT) AS hosts
    FROM distant d
    JOIN spread s ON s.service = d.service AND s.measure = d.measure
    WHERE d.hosts >= 5 AND d.distance > 3.5 * s.deviation AND d.distance > d.middle * 0.1
)
-- DataFusion 55 cannot sort by an expression of columns that are not selected in the query that joins.
SELECT service, host, measure, value, peers, score, hosts
FROM scored
ORDER BY abs(score) DESC, service, host, measure
