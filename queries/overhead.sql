-- overhead: what hud itself cost, in sum and each second.
--
-- The first row is the sum of the window, the others are its seconds, as they were told. Shares are of one CPU: 0.02 is
-- 2 % of one. A second's length is the time since the row before it; the session's first row has none, so no shares,
-- and does not count in those of the sum.
--
-- Parameters:
--   $from           epoch_ns  seconds that were told from then on
--   $to             epoch_ns  and before
--
-- Columns:
--   what            text      'sum' or 'second'
--   ts              epoch_ns  when it was told; null of the sum
--   dur             ns        how long it covers; null where not known
--   cpu             ns        kernel programs and recorder together
--   share           share     part of one CPU
--   probe_share     share     part of one CPU that the kernel programs took; null where the kernel does not tell
--   recorder_share  share     part of one CPU that the recorder took
--   recorder_rss    bytes     memory of the recorder; of the sum, the most
--   events          count     events read
--   ring_bytes      bytes     bytes read from the ring
--
-- Further columns:
--   probe_ns        ns        run time of the kernel programs; null where the kernel does not tell
--   recorder_cpu    ns        CPU time of the recorder
WITH
told AS (
    SELECT *
    FROM (SELECT *, ts - lag(ts) OVER (ORDER BY ts) AS dur FROM overhead)
    WHERE ts >= $from AND ts < $to
),
rows_of AS (
    SELECT 'sum' AS what, CAST(NULL AS BIGINT) AS ts, sum(dur) AS dur, sum(probe_ns) AS probe_ns,
           sum(recorder_cpu) AS recorder_cpu, max(recorder_rss) AS recorder_rss, sum(events) AS events,
           sum(ring_bytes) AS ring_bytes, sum(CASE WHEN dur > 0 THEN probe_ns END) AS probes,
           sum(CASE WHEN dur > 0 THEN recorder_cpu END) AS recorder
    FROM told
    HAVING count(*) > 0
    UNION ALL
    SELECT 'second', ts, dur, probe_ns, recorder_cpu, recorder_rss, events, ring_bytes, probe_ns AS probes,
           recorder_cpu AS recorder
    FROM told
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
