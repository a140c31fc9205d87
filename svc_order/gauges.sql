-- name: sagas
-- Counts the sagas that have not ended by state and step, up to 100,000.
SELECT state, step, count(*) FROM (
    SELECT state, step FROM saga WHERE state IN ('RUNNING', 'COMPENSATING') LIMIT 100000
) AS live GROUP BY state, step;

-- name: saga_oldest_seconds
-- Reads for how long the slowest saga has been at its step, apart from those that wait for a parcel.
SELECT state, step, max(extract(epoch FROM now() - update_time)) FROM (
    SELECT state, step, update_time FROM saga
    WHERE state IN ('RUNNING', 'COMPENSATING') AND step NOT LIKE 'await%' LIMIT 100000
) AS live GROUP BY state, step;

-- name: sagas_parked
-- Counts the parked sagas by reason, up to 10,000.
SELECT reason, count(*) FROM (SELECT reason FROM saga WHERE state = 'PARKED' LIMIT 10000) AS parked GROUP BY reason;

-- name: orders
-- Counts the orders that have not ended by state and age, up to 100,000.
SELECT state, CASE WHEN create_time > now() - interval '1 hour' THEN '1h'
    WHEN create_time > now() - interval '1 day' THEN '1d'
    WHEN create_time > now() - interval '7 days' THEN '7d' ELSE 'older' END AS age, count(*)
FROM (SELECT state, create_time FROM orders WHERE state IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'RETURN_REQUESTED')
    LIMIT 100000) AS open GROUP BY 1, 2;

-- name: orders_oldest_seconds
-- Reads the age of the oldest order in each state that ends by itself.
SELECT state, max(extract(epoch FROM now() - create_time)) FROM (
    SELECT state, create_time FROM orders WHERE state = 'PENDING' ORDER BY create_time LIMIT 100000
) AS pending GROUP BY state;
