-- When the state of all tasks was last read; an interval of length 0 says why it was not.
SELECT max(ts + dur) AS ts
FROM coverage
WHERE stream = 'task_states' AND dur > 0 AND ts + dur >= $from AND ts + dur < $to
