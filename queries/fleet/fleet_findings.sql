-- fleet_findings: detected problems over many hosts, by rule and code.
--
-- A row is a service, a rule and the code to which the problem is attributed. Those on most hosts come first.
--
-- Parameters:
--   $from       epoch_ns  start of the time range, in whole minutes
--   $to         epoch_ns  its end, exclusive
--   $service    text      only this service; null = all
--   $host       text      only this host; null = all
--
-- Columns:
--   service     text      service
--   severity    text      'warning' or 'caution', the worse of them
--   rule        text      name of the rule
--   hosts       count     number of hosts with the problem
--   ranges      count     number of time ranges of 5 s with the problem, of all hosts
--   worst       count     the greatest figure that was compared with the threshold, in `unit`
--   unit        text      'ns', 'thousandths' or 'count'
--   function    text      function; null if the problem is attributed to none
--   file        text      its source file
--   line        id        line in it
--   task_type   text      type of the task; null if the problem is about none
--   first       epoch_ns  first minute with the problem
--   last        epoch_ns  last minute with the problem
SELECT service, CASE WHEN max(CASE WHEN severity = 'warning' THEN 1 ELSE 0 END) = 1 THEN 'warning' ELSE 'caution' END AS severity,
       rule, CAST(count(DISTINCT host) AS BIGINT) AS hosts, CAST(sum(ranges) AS BIGINT) AS ranges, max(worst) AS worst, unit,
       function, file, line, task_type, min(minute) AS first, max(minute) AS last
FROM rollup_findings
WHERE minute >= $from AND minute < $to
  AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
GROUP BY service, rule, unit, function, file, line, task_type
ORDER BY hosts DESC, ranges DESC, service, rule, function NULLS LAST, file NULLS LAST, line NULLS LAST, task_type NULLS LAST
