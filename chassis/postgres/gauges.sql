-- What is read of every service's database when its metrics are scraped. The last column is the value, the others are
-- labels. Each query reads a bounded number of index entries.

-- name: outbox_unpublished_events
-- Counts the events that are not yet published, up to 100,000.
SELECT count(*) FROM (SELECT FROM outbox WHERE publish_time IS NULL LIMIT 100000) AS unpublished;

-- name: outbox_lag_seconds
-- Reads the age of the oldest event that is not yet published.
SELECT coalesce((
    SELECT extract(epoch FROM now() - create_time) FROM outbox WHERE publish_time IS NULL ORDER BY id LIMIT 1
), 0);

-- name: dead_letters
-- Counts the events that could not be applied and were not redriven, up to 10,000.
SELECT count(*) FROM (SELECT FROM dead_letter WHERE redrive_time IS NULL LIMIT 10000) AS dead;
