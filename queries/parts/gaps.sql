-- Intervals in which polls were not recorded, from the latest end so far to the next start; one row per bucket of time.
SELECT from_ts, to_ts,
       unnest(generate_series(
           from_ts - (from_ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
           to_ts - 1, greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
FROM (
    SELECT ts AS to_ts, max(end_ts) OVER (ORDER BY ts, end_ts
                                          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS from_ts
    FROM (
        SELECT CAST($from AS BIGINT) AS ts, CAST($from AS BIGINT) AS end_ts
        UNION ALL
        SELECT ts, ts + dur FROM coverage
        WHERE stream = 'polls' AND dur > 0 AND ts < $to AND ts + dur > $from
        UNION ALL
        SELECT CAST($to AS BIGINT), CAST($to AS BIGINT)
    )
)
WHERE from_ts < to_ts
