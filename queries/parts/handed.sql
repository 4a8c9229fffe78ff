-- Intervals in which a thread of `worker` was no worker, as `block_in_place` had moved its core to another thread; one row
-- per bucket of time, so that they are joined by equality. The window has at most 4,097 buckets.
SELECT tid, from_ts, to_ts,
       unnest(generate_series(
           from_ts - (from_ts - $from) % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12),
           to_ts - 1, greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12))) AS bucket
FROM (
    SELECT tid, greatest(ts, $from) AS from_ts, least(coalesce(next_ts, $to), $to) AS to_ts
    FROM (
        SELECT tid, ts, role, lead(ts) OVER (PARTITION BY tid ORDER BY ts) AS next_ts
        FROM (
            SELECT tid, ts, min(role) AS role
            FROM threads
            WHERE role <> 'other' AND tid IN (SELECT tid FROM worker)
            GROUP BY tid, ts
        )
    )
    WHERE role = 'blocking'
)
WHERE from_ts < to_ts
