-- The innermost own function; without one that of a dependency, else the outermost.
SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, d.last)] AS frame_id
FROM stacks s
JOIN (
    SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
           min(CASE WHEN f.origin = 'dependency' THEN p.depth END) AS near, max(p.depth) AS last
    FROM placed p
    JOIN frames f ON f.frame_id = p.frame_id
    WHERE f.function IS NOT NULL
    GROUP BY p.stack_id
) d ON d.stack_id = s.stack_id
