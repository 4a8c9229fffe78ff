LEFT JOIN handed h ON h.tid = o.sleeper AND h.from_ts <= o.moment AND o.moment < h.to_ts
      AND h.bucket = o.moment - (o.moment - $from)
          % greatest(1000000000, (CAST($to AS BIGINT) - CAST($from AS BIGINT)) >> 12)
LEFT JOIN stack_fact f ON f.stack_id = o.slept_at
