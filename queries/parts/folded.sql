-- Stacks as text, without the separators of the format in names.
frame AS (
    SELECT f.frame_id,
           replace(replace(coalesce(f.function, '<' || split_part(m.path, '/', -1) || '>', '<unknown>'), ';', ','),
                   chr(10), ' ') AS function
    FROM frames f
    LEFT JOIN (SELECT module_id, min(path) AS path FROM modules GROUP BY module_id) m ON m.module_id = f.module_id
),
folded AS (
    SELECT p.stack_id, string_agg(coalesce(f.function, '<unknown>'), ';' ORDER BY p.depth DESC) AS stack,
           count(*) AS frames
    FROM (
        -- part placed
        -- end placed
    ) p
    LEFT JOIN frame f ON f.frame_id = p.frame_id
    GROUP BY p.stack_id
),
