SELECT tid, name
FROM (SELECT tid, name, row_number() OVER (PARTITION BY tid ORDER BY ts DESC, name) AS n FROM threads)
WHERE n = 1
