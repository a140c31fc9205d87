-- name: read_now
-- Reads the database's clock.
SELECT now();

-- name: lock_name
-- Keeps a payment's id, taken or not, from everyone else until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0));

-- name: lock_payment
-- Locks one payment against every other change.
SELECT true FROM payment WHERE payment_id = $1 FOR NO KEY UPDATE;

-- name: read_payment
-- Reads one payment with its method, as far as that is known, and its record, oldest entry first.
SELECT p.*, m.kind AS method, m.brand, m.last4,
    e.entry_id, e.operation_id, e.kind, e.outcome, e.amount AS entry_amount, e.reference, e.reason,
    e.create_time AS entry_time
FROM payment p JOIN entry e USING (payment_id) LEFT JOIN method m USING (token)
WHERE payment_id = $1 ORDER BY e.entry_id;

-- name: find_payment
-- Finds the one payment of an order.
SELECT payment_id FROM payment WHERE order_id = $1;

-- name: insert_payment
-- Inserts a payment and its first entry, unless it was given up, its id is taken or its order has one; it is due when its
-- first attempt must have ended.
WITH fresh AS (
    INSERT INTO payment (payment_id, order_id, user_id, amount, currency, token, state, version, provider, attempts,
        next_attempt_time)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + $11::interval
    WHERE NOT EXISTS (SELECT FROM given_up WHERE payment_id = $1)
    ON CONFLICT DO NOTHING RETURNING payment_id, provider
)
INSERT INTO entry (payment_id, provider, operation_id, kind, outcome, amount)
SELECT payment_id, provider, $12, $13, $14, $15 FROM fresh RETURNING true;

-- name: update_payment
-- Replaces a payment that this transaction has locked; it is due after the given time, or never.
UPDATE payment SET state = $2, authorized = $3, captured = $4, refunded = $5, provider_id = $6, give_up_time = $7,
    give_up_reason = $8, attempts = $9, version = $10, next_attempt_time = now() + $11::interval,
    trouble = CASE WHEN $11 IS NULL THEN '' ELSE trouble END,
    update_time = CASE WHEN version = $10 THEN update_time ELSE now() END
WHERE payment_id = $1;

-- name: insert_entries
-- Appends to the record of a payment.
INSERT INTO entry (payment_id, provider, operation_id, kind, outcome, amount, reference, reason)
SELECT $1, $2, operation_id, kind, outcome, amount, reference, reason
FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[])
    WITH ORDINALITY AS new (operation_id, kind, outcome, amount, reference, reason, position) ORDER BY position;

-- name: write_method
-- Remembers what a payment method looks like, where that is news.
INSERT INTO method (token, kind, brand, last4) VALUES ($1, $2, $3, $4)
ON CONFLICT (token) DO UPDATE SET kind = $2, brand = $3, last4 = $4
WHERE (method.kind, method.brand, method.last4) IS DISTINCT FROM ($2, $3, $4);

-- name: claim_due
-- Takes payments that are due, the longest due first, and puts them off for as long as an attempt may take.
UPDATE payment SET next_attempt_time = now() + $2::interval
WHERE payment_id IN (
    SELECT payment_id FROM payment WHERE next_attempt_time <= now()
    ORDER BY next_attempt_time LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
) RETURNING payment_id;

-- name: postpone
-- Puts the next attempt off, unless the payment was settled meanwhile, and keeps why.
UPDATE payment SET next_attempt_time = now() + $2::interval, trouble = $3
WHERE payment_id = $1 AND next_attempt_time IS NOT NULL;

-- name: make_due
-- Has a payment asked about at once, what the provider has before anything else.
UPDATE payment SET next_attempt_time = now(), attempts = greatest(attempts, 1) WHERE payment_id = $1;

-- name: insert_given_up
-- Remembers that a payment which was not begun must not begin.
INSERT INTO given_up (payment_id, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: is_given_up
-- Tells whether a payment was given up before it was begun.
SELECT true FROM given_up WHERE payment_id = $1;

-- name: insert_provider_event
-- Remembers a webhook; returns nothing when it came before.
INSERT INTO provider_event (event_id, type, payment_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true;
