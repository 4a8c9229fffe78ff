-- coverage: how much of the time range each stream was recorded.
--
-- A row is a stream that was recorded at any time in the session. While a stream is off, the absence of its rows proves
-- nothing, and no view presents it as evidence. Intervals are clipped to the time range; overlapping ones count once, and
-- adjacent ones are one.
--
-- Parameters:
--   $from       epoch_ns  start of the time range
--   $to         epoch_ns  its end, exclusive
--
-- Columns:
--   stream      text      name of the table
--   watched     ns        time for which the stream was on
--   share       share     that time as a share of the time range
--   intervals   count     number of intervals in which it was on without a break
--   longest_off ns        longest interval in which it was off
--   reasons     text      distinct reasons why intervals began or ended, in alphabetical order
--
-- Further columns:
--   first_ts    epoch_ns  when it was first on in the time range
--   last_ts     epoch_ns  when it was last on in the time range
WITH
recorded AS (
    SELECT stream, greatest(ts, $from) AS ts, least(ts + dur, $to) AS end_ts
    FROM coverage
    WHERE ts < $to AND ts + dur > $from
),
-- The gap before each interval, from the latest end so far. The end of the time range is one more interval, of length 0.
gaps AS (
    SELECT stream, ts, end_ts, is_end,
           ts - greatest(max(end_ts) OVER (PARTITION BY stream ORDER BY ts, end_ts, is_end
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), $from) AS gap,
           row_number() OVER (PARTITION BY stream ORDER BY ts, end_ts, is_end) AS n
    FROM (
        SELECT stream, ts, end_ts, 0 AS is_end FROM recorded
        UNION ALL
        SELECT DISTINCT stream, CAST($to AS BIGINT), CAST($to AS BIGINT), 1 FROM coverage
    )
),
summed AS (
    SELECT stream, sum(greatest(CASE WHEN n = 1 THEN ts - $from ELSE gap END, 0)) AS off,
           max(greatest(CASE WHEN n = 1 THEN ts - $from ELSE gap END, 0)) AS longest_off,
           sum(CASE WHEN is_end = 0 AND (n = 1 OR gap > 0) THEN 1 ELSE 0 END) AS intervals,
           min(CASE WHEN is_end = 0 THEN ts END) AS first_ts, max(CASE WHEN is_end = 0 THEN end_ts END) AS last_ts
    FROM gaps
    GROUP BY stream
),
total AS (
    SELECT stream, string_agg(reason, ', ' ORDER BY reason) AS reasons
    FROM (SELECT DISTINCT stream, reason FROM coverage WHERE ts < $to AND ts + dur > $from)
    GROUP BY stream
)
SELECT s.stream, CAST($to - $from - s.off AS BIGINT) AS watched,
       CAST($to - $from - s.off AS DOUBLE) / (CAST($to AS BIGINT) - CAST($from AS BIGINT)) AS share,
       CAST(s.intervals AS BIGINT) AS intervals, CAST(s.longest_off AS BIGINT) AS longest_off, t.reasons,
       s.first_ts, s.last_ts
FROM summed s
LEFT JOIN total t ON t.stream = s.stream
ORDER BY s.stream
