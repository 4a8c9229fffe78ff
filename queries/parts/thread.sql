-- Each thread with its last known role, as a thread that exits loses it.
SELECT tid, name, role, worker, runtime_id
FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
      FROM threads)
WHERE n = 1
