-- always: never_oversold I01
-- Reserved and allocated units do not exceed the units on hand, but by the shortfall that a count has left.
SELECT sku, location_id, on_hand, allocated, reserved, shortfall FROM stock
WHERE on_hand < 0 OR allocated < 0 OR reserved < 0 OR safety_stock < 0
    OR shortfall <> greatest(0, allocated + reserved - on_hand);

-- always: shortfall_comes_from_a_count I01
-- A level has a shortfall only after a count or an adjustment removed units.
SELECT sku, location_id, shortfall FROM stock
WHERE shortfall > 0 AND NOT EXISTS (
    SELECT FROM movement WHERE movement.sku = stock.sku AND movement.location_id = stock.location_id
        AND reservation_id = '' AND on_hand_delta < 0);

-- always: adjustments_are_movements I04
-- Each line of an adjustment is one movement, and each movement of an adjustment is one of its lines.
SELECT adjustment_id, sku, location_id, line.delta, moved.on_hand_delta FROM (
    SELECT adjustment_id, part ->> 0 AS sku, part ->> 1 AS location_id, (part ->> 2)::int AS delta
    FROM adjustment, jsonb_array_elements(lines) AS part
) AS line FULL JOIN (
    SELECT adjustment_id, sku, location_id, on_hand_delta FROM movement WHERE adjustment_id <> ''
) AS moved USING (adjustment_id, sku, location_id)
WHERE line.delta IS DISTINCT FROM moved.on_hand_delta;

-- always: counters_are_reservations I03
-- Reserved and allocated units are the sum of the reservations.
SELECT sku, location_id, reserved, held, allocated, confirmed FROM stock
LEFT JOIN (
    SELECT sku, location_id,
        sum(quantity) FILTER (WHERE state = 'HELD') AS held,
        sum(quantity) FILTER (WHERE state = 'CONFIRMED') AS confirmed
    FROM allocation JOIN reservation USING (reservation_id) GROUP BY sku, location_id
) AS claims USING (sku, location_id)
WHERE reserved <> coalesce(held, 0) OR allocated <> coalesce(confirmed, 0);

-- always: counters_are_movements I04 I18
-- Every counter is the sum of its movements.
SELECT sku, location_id, on_hand, moved_on_hand, allocated, moved_allocated, reserved, moved_reserved FROM stock
LEFT JOIN (
    SELECT sku, location_id, sum(on_hand_delta) AS moved_on_hand, sum(allocated_delta) AS moved_allocated,
        sum(reserved_delta) AS moved_reserved, sum(safety_stock_delta) AS moved_safety_stock
    FROM movement GROUP BY sku, location_id
) AS moved USING (sku, location_id)
WHERE (on_hand, allocated, reserved, safety_stock)
    IS DISTINCT FROM (moved_on_hand, moved_allocated, moved_reserved, moved_safety_stock);

-- always: version_counts_movements I05
-- The version of a stock level counts its movements: no update was lost.
SELECT sku, location_id, version, movements FROM stock
LEFT JOIN (SELECT sku, location_id, count(*) AS movements FROM movement GROUP BY sku, location_id) AS moved
    USING (sku, location_id)
WHERE version IS DISTINCT FROM movements;

-- always: reservation_ends_once I06
-- A reservation reserves once, allocates at most once, and ends at most once; one that expired may be confirmed once more.
SELECT reservation_id, sku, location_id, reserved, allocated, expired, ended FROM (
    SELECT reservation_id, sku, location_id,
        count(*) FILTER (WHERE kind = 'RESERVED') AS reserved,
        count(*) FILTER (WHERE kind = 'ALLOCATED') AS allocated,
        count(*) FILTER (WHERE kind = 'EXPIRED') AS expired,
        count(*) FILTER (WHERE kind IN ('UNRESERVED', 'RELEASED', 'SHIPPED')) AS ended
    FROM movement WHERE reservation_id <> '' GROUP BY reservation_id, sku, location_id
) AS counts WHERE reserved <> 1 OR allocated > 1 OR expired > 1 OR ended > 1 OR ended > 0 AND expired > allocated;

-- always: reservation_holds_what_it_kept I06
-- A reservation has the units that it reserved, without those by which it was reduced.
SELECT reservation_id, sku, location_id, left_units, quantity FROM (
    SELECT reservation_id, sku, location_id, sum(reserved_delta + allocated_delta) AS left_units
    FROM movement WHERE kind IN ('RESERVED', 'REDUCED') AND reservation_id <> ''
    GROUP BY reservation_id, sku, location_id
) AS moved LEFT JOIN allocation USING (reservation_id, sku, location_id)
WHERE left_units <> coalesce(quantity, 0);

-- always: movements_agree_with_the_state I06
-- The movements of a reservation agree with its state.
SELECT reservation_id, state, kinds FROM reservation
JOIN (
    SELECT reservation_id, array_agg(DISTINCT kind ORDER BY kind) AS kinds
    FROM movement WHERE reservation_id <> '' AND kind <> 'REDUCED' GROUP BY reservation_id
) AS moved USING (reservation_id)
WHERE kinds NOT IN (
    SELECT way.kinds::text[] FROM (VALUES
        ('HELD', '{RESERVED}'),
        ('CONFIRMED', '{ALLOCATED,RESERVED}'),
        ('FULFILLED', '{ALLOCATED,RESERVED,SHIPPED}'),
        ('RELEASED', '{RESERVED,UNRESERVED}'),
        ('RELEASED', '{ALLOCATED,RELEASED,RESERVED}'),
        ('EXPIRED', '{EXPIRED,RESERVED}'),
        ('CONFIRMED', '{ALLOCATED,EXPIRED,RESERVED}'),
        ('FULFILLED', '{ALLOCATED,EXPIRED,RESERVED,SHIPPED}'),
        ('RELEASED', '{EXPIRED,RESERVED}'),
        ('RELEASED', '{ALLOCATED,EXPIRED,RELEASED,RESERVED}')
    ) AS way (state, kinds) WHERE way.state = reservation.state
);

-- always: reservation_holds_something
-- A reservation has a line, unless it was released before it was made.
SELECT reservation_id, state FROM reservation
WHERE NOT EXISTS (SELECT FROM allocation WHERE allocation.reservation_id = reservation.reservation_id)
    AND (state <> 'RELEASED' OR order_id <> '' OR version <> 1);

-- eventually: expired_holds_are_released I07
-- A hold that has expired by the database's clock is released.
SELECT reservation_id, expire_time FROM reservation
WHERE state = 'HELD' AND expire_time < now() - interval '30 seconds';

-- copy: reservation
-- The reservation of each order; one that was released before it was made names none.
SELECT reservation_id, order_id, state FROM reservation WHERE order_id <> '';

-- copy: allocation
-- The units of each reservation.
SELECT reservation_id, sku, quantity FROM allocation;

-- copy: level
-- The available units of each level.
SELECT sku, location_id, version, greatest(0, on_hand - allocated - reserved - safety_stock) AS available FROM stock;

-- decode: stock_changed shop.inventory.v1.StockChanged
-- The last events of each SKU.
SELECT DISTINCT ON (key) payload FROM outbox WHERE type = 'shop.inventory.v1.StockChanged' ORDER BY key, id DESC;

-- history copy: stock_state
-- The available units of each level after each of its movements, which are numbered in the order of their commits.
SELECT sku, location_id, row_number() OVER changes AS position, kind, on_hand_delta, reservation_id,
    greatest(0, sum(on_hand_delta - allocated_delta - reserved_delta - safety_stock_delta) OVER changes) AS available,
    extract(epoch FROM create_time)::float8 AS create_time
FROM movement WINDOW changes AS (PARTITION BY sku, location_id ORDER BY movement_id);
