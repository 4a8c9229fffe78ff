-- What each thread was polling at its last observation in the window, if that was certainly one poll.
SELECT tid, task_id, lasted
FROM (SELECT tid, task_id, lasted, ended, estimated, row_number() OVER (PARTITION BY tid ORDER BY ts DESC) AS n
      FROM in_progress
      WHERE ts >= $from AND ts < $to)
WHERE n = 1 AND NOT ended AND NOT estimated
