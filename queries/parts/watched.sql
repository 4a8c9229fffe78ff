-- Whether polls were recorded in the window.
SELECT count(*) > 0 AS polls FROM coverage WHERE stream = 'polls' AND ts < $to AND ts + dur > $from
