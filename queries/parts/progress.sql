-- Observations of polls in progress, each certainly of one poll. The last that concerns the window comes up to 2 s after it.
progress AS MATERIALIZED (
    SELECT tid, task_id, type_id, ts, ts - lasted AS begin_ts, lasted, state, stack_id
    FROM in_progress
    WHERE NOT ended AND NOT estimated AND ts > $from AND ts < least($to, 9000000000000000000) + 2000000000
      AND ts - lasted < $to
),
-- Sleeps inside polls that `off_cpu` does not have, as they began before the recording or have not ended: from the thread's
-- last event to the last observation of the sleep, clipped to the window. (`coalesce(…, 0)`: never null, as in the tables
-- that it is united with.)
sleep_in_progress AS MATERIALIZED (
    SELECT tid, task_id, max(type_id) AS type_id, max(stack_id) AS stack_id, coalesce(from_ts, 0) AS ts,
           coalesce(least(max(ts), CAST($to AS BIGINT)) - from_ts, 0) AS dur, max(lasted) AS lasted
    FROM (
        SELECT tid, task_id, type_id, stack_id, begin_ts, lasted, ts,
               greatest(begin_ts, coalesce(back, begin_ts), CAST($from AS BIGINT)) AS from_ts
        FROM (
            SELECT *, max(event_end) OVER (PARTITION BY tid ORDER BY ts, place
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS back
            FROM (
                SELECT tid, ts, 0 AS place, ts + dur AS event_end, CAST(NULL AS BIGINT) AS task_id,
                       CAST(NULL AS BIGINT) AS type_id, CAST(NULL AS BIGINT) AS stack_id,
                       CAST(NULL AS BIGINT) AS begin_ts, CAST(NULL AS BIGINT) AS lasted
                FROM off_cpu
                WHERE ts < least($to, 9000000000000000000) + 2000000000 AND ts + dur > $from
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, ts, 0, ts AS event_end, NULL, NULL, NULL, NULL, NULL
                FROM samples
                WHERE ts >= $from AND ts < least($to, 9000000000000000000) + 2000000000
                  AND tid IN (SELECT tid FROM progress)
                UNION ALL
                SELECT tid, ts, 1, NULL, task_id, type_id, stack_id, begin_ts, lasted
                FROM progress
                WHERE state = 'blocked'
            )
        )
        WHERE place = 1 AND coalesce(back < ts, true)
    )
    WHERE from_ts < $to
    GROUP BY tid, task_id, begin_ts, from_ts
),
