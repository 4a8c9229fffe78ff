-- drops: events known to be lost, by stream and stage, most first.
--
-- A row is a stream and the stage at which its events were lost. An interval with losses counts in full if it touches the
-- time range, as it is not known when in the interval they were lost.
--
-- Parameters:
--   $from       epoch_ns  start of the time range
--   $to         epoch_ns  its end, exclusive
--
-- Columns:
--   stream      text      name of the table; 'all' if unknown
--   stage       text      'ring', 'untracked', 'decode', 'disk', 'capacity' or 'writer'
--   lost        count     number of events
--   intervals   count     number of intervals with losses
--   dur         ns        total length of these intervals
--   first_ts    epoch_ns  start of the first interval
--   last_ts     epoch_ns  end of the last interval
SELECT stream, stage, CAST(sum(lost) AS BIGINT) AS lost, count(*) AS intervals, CAST(sum(dur) AS BIGINT) AS dur,
       min(ts) AS first_ts, max(ts + dur) AS last_ts
FROM drops
WHERE ts < $to AND ts + dur >= $from
GROUP BY stream, stage
ORDER BY lost DESC, stream, stage
