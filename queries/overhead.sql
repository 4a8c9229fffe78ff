-- overhead: cost of hud itself, in total and by second.
--
-- The first row is the total of the time range, the others are its seconds, as recorded. Shares are of one CPU: 0.02 is
-- 2 % of one. The length of a second is the time since the row before it; the session's first row has none, so it has no
-- shares and does not count in those of the total.
--
-- Parameters:
--   $from           epoch_ns  start of the time range
--   $to             epoch_ns  its end, exclusive
--
-- Columns:
--   what            text      'sum' or 'second'
--   ts              epoch_ns  when the second was recorded; null for the total
--   dur             ns        time that the row covers; null if unknown
--   cpu             ns        CPU time of kernel programs and recorder
--   share           share     that time as a share of one CPU
--   probe_share     share     share of one CPU used by the kernel programs; null if the kernel does not report it
--   recorder_share  share     share of one CPU used by the recorder
--   recorder_rss    bytes     resident memory of the recorder; for the total, the maximum
--   events          count     number of events read
--   ring_bytes      bytes     bytes read from the ring
--
-- Further columns:
--   probe_ns        ns        run time of the kernel programs; null if the kernel does not report it
--   recorder_cpu    ns        CPU time of the recorder
WITH
second AS (
    SELECT *
    FROM (SELECT *, ts - lag(ts) OVER (ORDER BY ts) AS dur FROM overhead)
    WHERE ts >= $from AND ts < $to
),
rows_of AS (
    SELECT 'sum' AS what, CAST(NULL AS BIGINT) AS ts, sum(dur) AS dur, sum(probe_ns) AS probe_ns,
           sum(recorder_cpu) AS recorder_cpu, max(recorder_rss) AS recorder_rss, sum(events) AS events,
           sum(ring_bytes) AS ring_bytes, sum(CASE WHEN dur > 0 THEN probe_ns END) AS probes,
           sum(CASE WHEN dur > 0 THEN recorder_cpu END) AS recorder
    FROM second
    HAVING count(*) > 0
    UNION ALL
    SELECT 'second', ts, dur, probe_ns, recorder_cpu, recorder_rss, events, ring_bytes, probe_ns AS probes,
           recorder_cpu AS recorder
    FROM second
)
SELECT what, ts, CAST(dur AS BIGINT) AS dur, CAST(coalesce(probe_ns, 0) + recorder_cpu AS BIGINT) AS cpu,
       CAST(coalesce(probes, 0) + recorder AS DOUBLE) / nullif(dur, 0) AS share,
       CAST(probes AS DOUBLE) / nullif(dur, 0) AS probe_share,
       CAST(recorder AS DOUBLE) / nullif(dur, 0) AS recorder_share,
       CAST(recorder_rss AS BIGINT) AS recorder_rss, CAST(events AS BIGINT) AS events,
       CAST(ring_bytes AS BIGINT) AS ring_bytes, CAST(probe_ns AS BIGINT) AS probe_ns,
       CAST(recorder_cpu AS BIGINT) AS recorder_cpu
FROM rows_of
ORDER BY what DESC, ts
