-- name: read_levels
-- Reads all levels of some SKUs, in key order.
SELECT * FROM stock WHERE sku = ANY($1::text[]) ORDER BY sku, location_id;

-- name: lock_levels
-- Reads all levels of some SKUs, locked in key order against every other change.
SELECT * FROM stock WHERE sku = ANY($1::text[]) ORDER BY sku, location_id FOR NO KEY UPDATE;

-- name: list_levels
-- Lists the levels of one SKU after a location, by location.
SELECT * FROM stock WHERE sku = $1 AND location_id > $2 ORDER BY location_id LIMIT $3;

-- name: lock_level
-- Locks one level for an absolute change.
SELECT * FROM stock WHERE sku = $1 AND location_id = $2 FOR NO KEY UPDATE;

-- name: insert_level
-- Inserts a level that does not exist yet.
INSERT INTO stock (sku, location_id, on_hand, allocated, reserved, safety_stock, shortfall, version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING *;

-- name: update_level
-- Replaces a level that this transaction has locked.
UPDATE stock SET on_hand = $3, allocated = $4, reserved = $5, safety_stock = $6, shortfall = $7, version = $8,
    update_time = now()
WHERE sku = $1 AND location_id = $2 RETURNING *;

-- name: update_levels
-- Replaces levels whose version is still the one that was read, locked in key order.
WITH new AS MATERIALIZED (
    SELECT one.* FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::int[], $6::int[], $7::bigint[], $8::bigint[])
        AS one (sku, location_id, on_hand, allocated, reserved, shortfall, version, read_version)
    JOIN stock ON stock.sku = one.sku AND stock.location_id = one.location_id AND stock.version = one.read_version
    ORDER BY stock.sku, stock.location_id FOR NO KEY UPDATE OF stock
)
UPDATE stock SET on_hand = new.on_hand, allocated = new.allocated, reserved = new.reserved,
    shortfall = new.shortfall, version = new.version, update_time = now()
FROM new
WHERE stock.sku = new.sku AND stock.location_id = new.location_id AND stock.version = new.read_version;

-- name: read_reservations
-- Reads reservations with their allocations.
SELECT r.*, a.sku, a.location_id, a.quantity
FROM reservation r LEFT JOIN allocation a USING (reservation_id)
WHERE reservation_id = ANY($1::text[]) ORDER BY reservation_id, a.sku, a.location_id;

-- name: insert_reservations
-- Inserts reservations that do not exist yet.
INSERT INTO reservation (reservation_id, order_id, state, expire_time, version, create_time, update_time)
SELECT id, order_id, state, expire_time, version, now, now
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::timestamptz[])
    AS new (id, order_id, state, expire_time, version, now)
ON CONFLICT DO NOTHING;

-- name: insert_allocations
-- Inserts the allocations of new reservations.
INSERT INTO allocation (reservation_id, sku, location_id, quantity)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[]);

-- name: update_reservations
-- Replaces reservations whose version is still the one that was read, locked in key order.
WITH new AS MATERIALIZED (
    SELECT one.* FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::timestamptz[], $6::bigint[])
        AS one (id, state, expire_time, version, now, read_version)
    JOIN reservation ON reservation_id = one.id AND reservation.version = one.read_version
    ORDER BY reservation_id FOR NO KEY UPDATE OF reservation
)
UPDATE reservation SET state = new.state, expire_time = new.expire_time, version = new.version,
    update_time = new.now
FROM new WHERE reservation_id = new.id AND reservation.version = new.read_version;

-- name: reduce_allocations
-- Replaces the allocations of reservations that this transaction has updated by what they keep.
WITH kept AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::int[]) AS one (id, sku, location_id, quantity)
), emptied AS (
    DELETE FROM allocation WHERE reservation_id = ANY($1::text[])
        AND (reservation_id, sku, location_id) NOT IN (SELECT id, sku, location_id FROM kept)
)
UPDATE allocation SET quantity = kept.quantity FROM kept
WHERE reservation_id = kept.id AND allocation.sku = kept.sku AND allocation.location_id = kept.location_id;

-- name: read_adjustments
-- Reads adjustments.
SELECT * FROM adjustment WHERE adjustment_id = ANY($1::text[]);

-- name: insert_adjustments
-- Inserts adjustments that do not exist yet.
INSERT INTO adjustment (adjustment_id, lines, reason, reference, actor, create_time)
SELECT id, lines::jsonb, reason, reference, actor, now
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
    AS new (id, lines, reason, reference, actor, now)
ON CONFLICT DO NOTHING;

-- name: insert_movements
-- Appends to the ledger of movements.
INSERT INTO movement (sku, location_id, kind, on_hand_delta, allocated_delta, reserved_delta, safety_stock_delta,
    reservation_id, adjustment_id, reason, actor)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::int[],
    $8::text[], $9::text[], $10::text[], $11::text[]);

-- name: list_expired_holds
-- Lists holds past their expire time, the oldest first.
SELECT reservation_id FROM reservation WHERE state = 'HELD' AND expire_time <= now() ORDER BY expire_time LIMIT $1;

-- name: list_expired_holds_of
-- Lists holds past their expire time on some SKUs, whose units a buyer may have.
SELECT DISTINCT reservation_id FROM reservation JOIN allocation USING (reservation_id)
WHERE state = 'HELD' AND expire_time <= now() AND sku = ANY($1::text[]) LIMIT $2;

-- name: list_movements
-- Lists the movements of one SKU before one of them, newest first, with the reason and reference of adjustments.
SELECT movement.*, coalesce(adjustment.reason, '') AS adjustment_reason, coalesce(reference, '') AS reference
FROM movement LEFT JOIN adjustment USING (adjustment_id)
WHERE sku = $1 AND movement_id < $2 ORDER BY movement_id DESC LIMIT $3;
