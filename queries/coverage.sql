-- coverage: how much of the window each stream was watched.
--
-- A row is a stream that was ever watched in the session: where it was not on, nothing can be said, so that no other
-- view takes the absence of rows for a fact. Stretches are clipped to the window and counted once where they overlap;
-- those that follow each other without a gap are one.
--
-- Parameters:
--   $from       epoch_ns  start of the window
--   $to         epoch_ns  end of the window
--
-- Columns:
--   stream      text      the table's name
--   watched     ns        how long it was on
--   share       share     part of the window
--   stretches   count     times that it was on without a break
--   longest_off ns        the longest time that it was off
--   reasons     text      why stretches began or ended, each once, in the order of the alphabet
--
-- Further columns:
--   first_ts    epoch_ns  when it was first on in the window
--   last_ts     epoch_ns  when it was last on in the window
WITH
stretch AS (
    SELECT stream, greatest(ts, $from) AS ts, least(ts + dur, $to) AS end_ts
    FROM coverage
    WHERE ts < $to AND ts + dur > $from
),
-- The gap before each stretch: from the latest end so far. The window's end is one more stretch, of no length.
gaps AS (
    SELECT stream, ts, end_ts, is_end,
           ts - greatest(max(end_ts) OVER (PARTITION BY stream ORDER BY ts, end_ts, is_end
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), $from) AS gap,
           row_number() OVER (PARTITION BY stream ORDER BY ts, end_ts, is_end) AS n
    FROM (
        SELECT stream, ts, end_ts, 0 AS is_end FROM stretch
        UNION ALL
        SELECT DISTINCT stream, CAST($to AS BIGINT), CAST($to AS BIGINT), 1 FROM coverage
    )
),
summed AS (
    SELECT stream, sum(greatest(CASE WHEN n = 1 THEN ts - $from ELSE gap END, 0)) AS off,
           max(greatest(CASE WHEN n = 1 THEN ts - $from ELSE gap END, 0)) AS longest_off,
           sum(CASE WHEN is_end = 0 AND (n = 1 OR gap > 0) THEN 1 ELSE 0 END) AS stretches,
           min(CASE WHEN is_end = 0 THEN ts END) AS first_ts, max(CASE WHEN is_end = 0 THEN end_ts END) AS last_ts
    FROM gaps
    GROUP BY stream
),
told AS (
    SELECT stream, string_agg(reason, ', ' ORDER BY reason) AS reasons
    FROM (SELECT DISTINCT stream, reason FROM coverage WHERE ts < $to AND ts + dur > $from)
    GROUP BY stream
)
SELECT s.stream, CAST($to - $from - s.off AS BIGINT) AS watched,
       CAST($to - $from - s.off AS DOUBLE) / (CAST($to AS BIGINT) - CAST($from AS BIGINT)) AS share,
       CAST(s.stretches AS BIGINT) AS stretches, CAST(s.longest_off AS BIGINT) AS longest_off, t.reasons,
       s.first_ts, s.last_ts
FROM summed s
LEFT JOIN told t ON t.stream = s.stream
ORDER BY s.stream
