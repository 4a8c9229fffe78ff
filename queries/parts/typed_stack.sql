SELECT CASE WHEN y.kind <> 'worker' THEN y.name END AS task_type, c.stack_id,
       sum(c.n) AS n, sum(c.weight) AS weight
FROM counted c
LEFT JOIN type_of o ON o.task_id = c.task_id
LEFT JOIN task_types y ON y.type_id = o.type_id
GROUP BY CASE WHEN y.kind <> 'worker' THEN y.name END, c.stack_id
