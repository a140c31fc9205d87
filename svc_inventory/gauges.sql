-- name: stock_oversold_units
-- Counts the units that are promised and not on hand, by location.
SELECT location_id, sum(allocated + reserved - on_hand) FROM stock WHERE allocated + reserved > on_hand GROUP BY location_id;

-- name: stock_holds_overdue
-- Counts the holds that should have expired, up to 10,000.
SELECT count(*) FROM (
    SELECT FROM reservation WHERE state = 'HELD' AND expire_time < now() - interval '1 minute' LIMIT 10000
) AS overdue;
