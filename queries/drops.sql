-- drops: events known to be lost, by stream and stage, the most first.
--
-- A row is a stream and the place where its events were lost. A stretch in which some were lost counts where it touches
-- the window, with all of its loss: when exactly in it they were lost is not known.
--
-- Parameters:
--   $from       epoch_ns  start of the window
--   $to         epoch_ns  end of the window
--
-- Columns:
--   stream      text      the table's name; 'all' where it is not known
--   stage       text      where: 'ring', 'untracked', 'decode', 'disk', 'capacity', 'writer'
--   lost        count     events
--   stretches   count     stretches in which some were lost
--   dur         ns        their length, together
--   first_ts    epoch_ns  start of the first
--   last_ts     epoch_ns  end of the last
SELECT stream, stage, CAST(sum(lost) AS BIGINT) AS lost, count(*) AS stretches, CAST(sum(dur) AS BIGINT) AS dur,
       min(ts) AS first_ts, max(ts + dur) AS last_ts
FROM drops
WHERE ts < $to AND ts + dur >= $from
GROUP BY stream, stage
ORDER BY lost DESC, stream, stage
