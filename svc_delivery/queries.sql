-- name: time_zone_exists
-- Reads whether a time zone is one of the IANA's.
SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1);

-- name: insert_zone
-- Inserts a zone that does not exist yet; returns whether it did not.
INSERT INTO zone (zone_id, name, country_code, currency_code, base_fee, fee_per_kg, tax_rate_basis_points, time_zone)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING true;

-- name: insert_prefixes
-- Inserts the prefixes of a zone that no zone has yet; returns how many.
WITH inserted AS (
    INSERT INTO zone_prefix (country_code, prefix, zone_id)
    SELECT $2, prefix, $1 FROM unnest($3::text[]) AS prefix ORDER BY prefix
    ON CONFLICT DO NOTHING RETURNING 1
) SELECT count(*) FROM inserted;

-- name: read_prefix_of_another_zone
-- Reads the first of some prefixes that another zone has.
SELECT prefix, zone_id FROM zone_prefix WHERE country_code = $2 AND prefix = ANY($3::text[]) AND zone_id <> $1
ORDER BY prefix LIMIT 1;

-- name: insert_rule
-- Inserts one slot rule of a zone.
INSERT INTO slot_rule (zone_id, position, weekdays, start_time, end_time, lead_time, capacity)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: list_zones
-- Lists zones after an id, by id.
SELECT * FROM zone WHERE zone_id > $1 ORDER BY zone_id LIMIT $2;

-- name: list_zone_ids
-- Lists the ids of zones after an id, by id.
SELECT zone_id FROM zone WHERE zone_id > $1 ORDER BY zone_id LIMIT $2;

-- name: read_zone
-- Reads one zone.
SELECT * FROM zone WHERE zone_id = $1;

-- name: read_prefixes
-- Reads the prefixes of some zones.
SELECT * FROM zone_prefix WHERE zone_id = ANY($1::text[]) ORDER BY zone_id, prefix;

-- name: read_rules
-- Reads the slot rules of some zones.
SELECT * FROM slot_rule WHERE zone_id = ANY($1::text[]) ORDER BY zone_id, position;

-- name: find_zones
-- Finds the zones of some postal codes, each by the longest prefix that matches; numbers the codes in their order.
SELECT destination.number, zone.zone_id
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS destination (country_code, code, number)
CROSS JOIN LATERAL (
    SELECT zone_id FROM zone_prefix
    WHERE zone_prefix.country_code = destination.country_code
        AND prefix = ANY (ARRAY(SELECT left(destination.code, length) FROM generate_series(0, length(destination.code)) AS length))
    ORDER BY length(prefix) DESC LIMIT 1
) AS zone;

-- name: find_tariff
-- Finds the zone of a postal code, by the longest prefix that matches.
SELECT zone.* FROM zone_prefix JOIN zone USING (zone_id)
WHERE zone_prefix.country_code = $1
    AND prefix = ANY (ARRAY(SELECT left($2, length) FROM generate_series(0, length($2)) AS length))
ORDER BY length(prefix) DESC LIMIT 1;

-- name: insert_slot
-- Inserts a slot, unless its zone has one of the same span.
INSERT INTO slot (zone_id, start_time, end_time, cutoff_time, capacity) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING *;

-- name: insert_slots_by_rule
-- Inserts the slots of some zones' rules from a time to some days later that are missing and can still be booked.
INSERT INTO slot (zone_id, start_time, end_time, cutoff_time, capacity)
SELECT zone_id, starts, ends, starts - lead_time, capacity
FROM slot_rule JOIN zone USING (zone_id)
CROSS JOIN LATERAL (
    SELECT ($1::timestamptz AT TIME ZONE time_zone)::date + ahead AS day FROM generate_series(0, $2::int) AS ahead
) AS calendar
CROSS JOIN LATERAL (
    SELECT (day + slot_rule.start_time) AT TIME ZONE time_zone AS starts,
        (day + slot_rule.end_time) AT TIME ZONE time_zone AS ends
) AS span
-- Where clocks are put forward, the hour that is skipped has no slot.
WHERE extract(isodow FROM day) = ANY(weekdays) AND starts < ends AND starts - lead_time > $1
    AND zone_id = ANY($3::text[])
ORDER BY zone_id, starts, position
ON CONFLICT DO NOTHING;

-- name: list_slots
-- Lists the slots of a zone that can still be booked and start in a span of time, after a start time and id.
SELECT * FROM slot
WHERE zone_id = $1 AND start_time >= $2 AND start_time < $3 AND (start_time, slot_id) > ($4, $5)
    AND cutoff_time > now() AND booked < capacity
ORDER BY start_time, slot_id LIMIT $6;

-- name: read_slots
-- Reads slots.
SELECT * FROM slot WHERE slot_id = ANY($1::text[]);

-- name: lock_slots
-- Reads slots, locked in key order against every other change.
SELECT * FROM slot WHERE slot_id = ANY($1::text[]) ORDER BY slot_id FOR NO KEY UPDATE;

-- name: update_slots
-- Replaces the counters of slots whose version is still the one that was read, locked in key order.
WITH new AS MATERIALIZED (
    SELECT one.* FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[])
        AS one (id, booked, version, read_version)
    JOIN slot ON slot_id = one.id AND slot.version = one.read_version
    ORDER BY slot_id FOR NO KEY UPDATE OF slot
)
UPDATE slot SET booked = new.booked, version = new.version
FROM new
WHERE slot_id = new.id AND slot.version = new.read_version;

-- name: read_bookings
-- Reads the bookings of some orders, with the span of their slots.
SELECT booking.*, slot.start_time, slot.end_time FROM booking LEFT JOIN slot USING (slot_id)
WHERE order_id = ANY($1::text[]);

-- name: insert_bookings
-- Inserts the bookings of orders that have none yet.
INSERT INTO booking (order_id, slot_id, state, version, create_time, update_time)
SELECT id, slot_id, state, version, now, now
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[]) AS new (id, slot_id, state, version, now)
ON CONFLICT DO NOTHING;

-- name: update_bookings
-- Replaces the state of bookings whose version is still the one that was read.
UPDATE booking SET state = new.state, version = new.version, update_time = new.now
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::bigint[])
    AS new (id, state, version, now, read_version)
WHERE order_id = new.id AND booking.version = new.read_version;

-- name: insert_claimed_dispatch
-- Inserts the job of a shipment, claimed, unless its order has one; returns whether it had none.
INSERT INTO dispatch (order_id, traceparent, attempts, next_attempt_time, in_progress)
VALUES ($1, $2, 1, now() + $3::interval, true) ON CONFLICT DO NOTHING RETURNING true;

-- name: list_due_dispatches
-- Lists the orders whose jobs are due, the most overdue first, and locks the jobs, without those that are locked.
SELECT order_id FROM dispatch WHERE next_attempt_time <= now() ORDER BY next_attempt_time LIMIT $1
FOR NO KEY UPDATE SKIP LOCKED;

-- name: claim_dispatch
-- Claims a job that is due for the length of a lease; returns it with its shipment.
UPDATE dispatch SET attempts = attempts + 1, next_attempt_time = now() + $2::interval, in_progress = true
FROM shipment
WHERE dispatch.order_id = $1 AND next_attempt_time <= now() AND shipment.order_id = dispatch.order_id
    AND shipment.state NOT IN ('CANCELLED', 'RETURNED')
RETURNING shipment.*, attempts, traceparent;

-- name: renew_dispatch
-- Extends a claim, unless it was lost.
UPDATE dispatch SET next_attempt_time = now() + $3::interval WHERE order_id = $1 AND attempts = $2;

-- name: postpone_dispatch
-- Ends a claim, unless it was lost, and sets when the next attempt is due.
UPDATE dispatch SET next_attempt_time = now() + $3::interval, in_progress = false
WHERE order_id = $1 AND attempts = $2;

-- name: make_dispatch_due
-- Makes a job due now, unless an attempt is in progress.
UPDATE dispatch SET next_attempt_time = now() WHERE order_id = $1 AND NOT in_progress;

-- name: delete_claimed_dispatch
-- Deletes a job, unless its claim was lost; returns whether it did.
DELETE FROM dispatch WHERE order_id = $1 AND attempts = $2 RETURNING true;

-- name: delete_dispatch
-- Deletes the job of an order.
DELETE FROM dispatch WHERE order_id = $1;

-- name: insert_shipment
-- Inserts the shipment of an order that has none, or only cancelled and returned ones; returns whether it did.
INSERT INTO shipment (shipment_id, order_id, user_id, state, shipping_address, slot_id, weight_grams, version,
    create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT DO NOTHING RETURNING true;

-- name: read_shipments
-- Reads shipments.
SELECT * FROM shipment WHERE shipment_id = ANY($1::text[]);

-- name: read_shipment_of
-- Reads the shipment of one order that has this id.
SELECT * FROM shipment WHERE order_id = $1 AND shipment_id = $2;

-- name: lock_shipment
-- Locks one shipment for a change.
SELECT * FROM shipment WHERE shipment_id = $1 FOR NO KEY UPDATE;

-- name: update_shipment
-- Replaces the mutable columns of a shipment that this transaction has locked.
UPDATE shipment SET state = $2, consignment_id = $3, tracking_number = $4, courier_version = $5, version = $6,
    update_time = $7, picked_up = $8, cancel_actor = $9, cancel_reason = $10, courier_id = $11
WHERE shipment_id = $1;

-- name: insert_updates
-- Appends to the history of a shipment.
INSERT INTO shipment_update (shipment_id, version, state, reason, actor, create_time)
SELECT $1, version, state, reason, $5, $6::timestamptz
FROM unnest($2::bigint[], $3::text[], $4::text[]) AS revision (version, state, reason);

-- name: read_updates
-- Reads the histories of some shipments, oldest first.
SELECT * FROM shipment_update WHERE shipment_id = ANY($1::text[]) ORDER BY shipment_id, version;

-- name: list_shipments
-- Lists shipments before a create time and id, newest first; an empty user, order or state stands for any.
SELECT * FROM shipment
WHERE ($1 = '' OR user_id = $1 OR courier_id = $1) AND ($2 = '' OR order_id = $2) AND ($3 = '' OR state = $3)
    AND (create_time, shipment_id) < ($4, $5)
ORDER BY create_time DESC, shipment_id DESC LIMIT $6;
