-- fleet_load: resources of each service.
--
-- A row is a service. Only the observed part of each minute counts.
--
-- Parameters:
--   $from       epoch_ns  start of the time range, in whole minutes
--   $to         epoch_ns  its end, exclusive
--   $service    text      only this service; null = all
--   $host       text      only this host; null = all
--
-- Columns:
--   service        text      service
--   hosts          count     number of hosts
--   sessions       count     number of sessions
--   observed       ns        observed time, of all sessions
--   cpu            ns        CPU time of the processes, in user space and in the kernel
--   cpus           share     CPUs in use per process, on average (1 is one CPU)
--   throttled      ns        time in which CPU limits kept threads from running
--   rss            bytes     the greatest resident memory of a process
--   worker_cpu     ns        CPU time of workers, by samples
--   worker_blocked ns        time of workers asleep inside tasks
--   worker_queued  ns        time of workers runnable without a CPU
--   worker_idle    ns        time of workers asleep outside tasks
--   polls          count     polls by workers
--   recorder_share share     CPU time of the recorder as a share of `cpu`
--   lost           count     lost events
WITH
process AS (
    SELECT service, count(DISTINCT host) AS hosts, count(DISTINCT session) AS sessions, sum(observed) AS observed,
           sum(cpu_user + cpu_sys) AS cpu, sum(throttled) AS throttled, max(rss) AS rss,
           sum(recorder_cpu) AS recorder_cpu, sum(lost) AS lost
    FROM rollup_process
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host)
    GROUP BY service
),
worker AS (
    SELECT service, sum(cpu) AS cpu, sum(blocked) AS blocked, sum(run_queue) AS queued, sum(idle) AS idle,
           sum(polls) AS polls
    FROM rollup_workers
    WHERE minute >= $from AND minute < $to
      AND ($service IS NULL OR service = $service) AND ($host IS NULL OR host = $host) AND role = 'worker'
    GROUP BY service
)
SELECT p.service, CAST(p.hosts AS BIGINT) AS hosts, CAST(p.sessions AS BIGINT) AS sessions,
       CAST(p.observed AS BIGINT) AS observed, CAST(p.cpu AS BIGINT) AS cpu,
       CAST(p.cpu AS DOUBLE) / nullif(CAST(p.observed AS DOUBLE), 0) AS cpus, CAST(p.throttled AS BIGINT) AS throttled, p.rss,
       CAST(w.cpu AS BIGINT) AS worker_cpu, CAST(w.blocked AS BIGINT) AS worker_blocked,
       CAST(w.queued AS BIGINT) AS worker_queued, CAST(w.idle AS BIGINT) AS worker_idle, CAST(w.polls AS BIGINT) AS polls,
       CAST(p.recorder_cpu AS DOUBLE) / nullif(CAST(p.cpu AS DOUBLE), 0) AS recorder_share, CAST(p.lost AS BIGINT) AS lost
FROM process p
LEFT JOIN worker w ON w.service = p.service
ORDER BY cpu DESC, p.service
