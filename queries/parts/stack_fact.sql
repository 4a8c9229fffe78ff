-- Whether the innermost task of a stack has called `block_in_place`.
SELECT stack_id, coalesce(in_place < coalesce(polled, in_place + 1), false) AS in_place
FROM (
    SELECT p.stack_id,
           min(CASE WHEN f.function LIKE '%block_in_place%' THEN p.depth END) AS in_place,
           min(CASE WHEN f.function LIKE 'tokio::runtime::task::%poll%'
                    THEN p.depth END) AS polled
    FROM (
        -- part placed
        -- end placed
    ) p
    JOIN frames f ON f.frame_id = p.frame_id
    WHERE f.origin = 'tokio'
    GROUP BY p.stack_id
)
