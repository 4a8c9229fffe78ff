SELECT stack_id, unnest(frame_ids) AS frame_id,
       unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
FROM stacks
