-- Polls that `polls` does not have and that were on their CPU when they were observed, clipped to the window. A recorded poll
-- that was observed has at least the 100 ms after which it is.
poll_in_progress AS MATERIALIZED (
    SELECT p.tid, p.task_id, p.type_id, coalesce(p.ts, 0) AS ts, coalesce(p.end_ts, 0) AS end_ts, p.lasted,
           coalesce(greatest(p.end_ts - p.ts - CAST(coalesce(sum(CASE WHEN o.tid IS NOT NULL
                                                                      THEN least(o.back, p.end_ts) - greatest(o.ts, p.ts) END),
                                                             0) AS BIGINT), 0), 0) AS busy
    FROM (
        SELECT tid, task_id, begin_ts, max(type_id) AS type_id, greatest(begin_ts, CAST($from AS BIGINT)) AS ts,
               least(max(ts), CAST($to AS BIGINT)) AS end_ts, max(lasted) AS lasted
        FROM (
            SELECT *, max(event_end) OVER (PARTITION BY tid, task_id ORDER BY ts, place
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS back
            FROM (
                SELECT tid, task_id, ts, 0 AS place, ts + dur AS event_end, CAST(NULL AS BIGINT) AS type_id,
                       CAST(NULL AS BIGINT) AS begin_ts, CAST(NULL AS BIGINT) AS lasted, CAST(NULL AS VARCHAR) AS state
                FROM polls
                WHERE ts < least($to, 9000000000000000000) + 2000000000 AND ts + dur > $from AND dur >= 100000000
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, task_id, ts, 1, NULL, type_id, begin_ts, lasted, state
                FROM progress
            )
        )
        WHERE place = 1 AND coalesce(back < ts, true)
        GROUP BY tid, task_id, begin_ts
        HAVING max(CASE WHEN state <> 'blocked' THEN 1 ELSE 0 END) = 1
    ) p
    LEFT JOIN (
        SELECT tid, ts, ts + dur AS back
        FROM off_cpu
        WHERE ts < $to AND ts + dur > $from AND tid IN (SELECT tid FROM progress)
        UNION ALL
        SELECT tid, ts, ts + dur FROM sleep_in_progress
    ) o ON o.tid = p.tid AND o.ts < p.end_ts AND o.back > p.ts
    GROUP BY p.tid, p.task_id, p.begin_ts, p.type_id, p.ts, p.end_ts, p.lasted
),
