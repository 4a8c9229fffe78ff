SELECT f.frame_id, coalesce(f.function, '<' || split_part(m.path, '/', -1) || '>', '<unknown>') AS function,
       f.file, f.line, f.origin, f.function IS NOT NULL AS is_named
FROM frames f
LEFT JOIN (SELECT module_id, min(path) AS path FROM modules GROUP BY module_id) m ON m.module_id = f.module_id
