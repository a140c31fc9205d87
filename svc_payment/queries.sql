-- name: lock_name
-- Locks a payment's id, whether or not the payment exists, until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0));

-- name: lock_payment
-- Locks one payment against every other change, and returns whether its next attempt is due.
SELECT coalesce(next_attempt_time <= now(), false) FROM payment WHERE payment_id = $1 FOR NO KEY UPDATE;

-- name: lock_due_payment
-- Locks one payment if its next attempt is due and no other transaction has locked it.
SELECT true FROM payment WHERE payment_id = $1 AND next_attempt_time <= now() FOR NO KEY UPDATE SKIP LOCKED;

-- name: read_payment
-- Reads a payment with its ledger, oldest entry first. By equality: of an array PostgreSQL plans each execution anew.
SELECT p.*, e.entry_id, e.operation_id, e.kind, e.outcome, e.amount AS entry_amount, e.reference, e.reason,
    e.create_time AS entry_time
FROM payment p JOIN entry e USING (payment_id) WHERE payment_id = $1 ORDER BY e.entry_id;

-- name: read_payments
-- Reads payments with their ledgers, oldest entry first.
SELECT p.*, e.entry_id, e.operation_id, e.kind, e.outcome, e.amount AS entry_amount, e.reference, e.reason,
    e.create_time AS entry_time
FROM payment p JOIN entry e USING (payment_id) WHERE payment_id = ANY($1::text[]) ORDER BY payment_id, e.entry_id;

-- name: find_payment
-- Finds the latest payment of an order.
SELECT payment_id FROM payment WHERE order_id = $1 ORDER BY create_time DESC LIMIT 1;

-- name: insert_payment
-- Inserts a payment and its first entry; it is due when the lease of its first attempt expires. Not if its id has a
-- tombstone or exists, its order has a payment, or too many payments of the user or with the method were declined.
WITH fresh AS (
    INSERT INTO payment (payment_id, order_id, user_id, amount, currency, token, state, version, provider, attempts,
        claims, next_attempt_time, fingerprint, method, brand, last4)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now() + $12::interval, $17, coalesce(m.kind, ''),
        coalesce(m.brand, ''), coalesce(m.last4, '')
    FROM (SELECT $17::text AS fingerprint) AS paid_with LEFT JOIN known_method m USING (fingerprint)
    WHERE NOT EXISTS (SELECT FROM tombstone WHERE payment_id = $1)
        AND (SELECT count(DISTINCT declined.fingerprint) FROM payment declined
            WHERE user_id = $3 AND state = 'FAILED' AND update_time > now() - $18::interval) < $19
        AND (SELECT count(*) FROM (SELECT FROM payment declined WHERE declined.fingerprint = $17 AND state = 'FAILED'
            AND update_time > now() - $18::interval LIMIT $20) AS few) < $20
    ON CONFLICT DO NOTHING RETURNING payment_id, provider
)
INSERT INTO entry (payment_id, provider, operation_id, kind, outcome, amount)
SELECT payment_id, provider, $13, $14, $15, $16 FROM fresh RETURNING true;

-- name: read_method
-- Reads what is known of a payment method, and whether too many payments of a user or with it were declined.
SELECT m.kind, m.brand, m.last4,
    (SELECT count(DISTINCT declined.fingerprint) FROM payment declined
        WHERE user_id = $1 AND state = 'FAILED' AND update_time > now() - $3::interval) >= $4
    OR (SELECT count(*) FROM (SELECT FROM payment declined WHERE declined.fingerprint = $2 AND state = 'FAILED'
        AND update_time > now() - $3::interval LIMIT $5) AS few) >= $5 AS exceeded
FROM (SELECT $2::text AS fingerprint) AS wanted LEFT JOIN known_method m USING (fingerprint);

-- name: update_payment
-- Replaces a payment that this transaction has locked. Where $12 is set, the next attempt is due after $13 and not before
-- $15, or never.
UPDATE payment SET state = $2, authorized = $3, captured = $4, refunded = $5, provider_id = $6, void_request_time = $7,
    void_reason = $8, attempts = $9, claims = $10, version = $11,
    next_attempt_time = CASE WHEN NOT $12 THEN next_attempt_time
        WHEN $13::interval IS NULL THEN NULL ELSE greatest(now() + $13::interval, $15::timestamptz) END,
    token = CASE WHEN $16 THEN token ELSE '' END, action_url = $17, expire_time = $18, dispute_due_time = $19,
    last_error = CASE WHEN $12 AND $13 IS NULL THEN '' ELSE coalesce(nullif($14, ''), last_error) END,
    update_time = CASE WHEN version = $11 THEN update_time ELSE now() END
WHERE payment_id = $1;

-- name: insert_entries
-- Appends to the ledger of a payment.
INSERT INTO entry (payment_id, provider, operation_id, kind, outcome, amount, reference, reason)
SELECT $1, $2, operation_id, kind, outcome, amount, reference, reason
FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[])
    WITH ORDINALITY AS new (operation_id, kind, outcome, amount, reference, reason, position) ORDER BY position;

-- name: write_method
-- Writes what a payment method looks like.
INSERT INTO known_method (fingerprint, kind, brand, last4) VALUES ($1, $2, $3, $4)
ON CONFLICT (fingerprint) DO UPDATE SET kind = $2, brand = $3, last4 = $4;

-- name: list_due
-- Lists payments whose next attempt is due, the most overdue first, without those that a transaction has locked.
SELECT payment_id FROM payment WHERE next_attempt_time <= now()
ORDER BY next_attempt_time LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED;

-- name: renew_claim
-- Extends a claim by another lease, unless it was lost.
UPDATE payment SET next_attempt_time = now() + $3::interval WHERE payment_id = $1 AND claims = $2;

-- name: make_due
-- Makes an attempt due now that fetches the provider's state, and takes the claim from one that may have fetched before.
UPDATE payment SET next_attempt_time = now(), attempts = greatest(attempts, 1), claims = claims + 1
WHERE payment_id = $1;

-- name: make_disputed_due
-- Makes an attempt due now for those of the payments whose dispute is not recorded.
UPDATE payment SET next_attempt_time = now(), attempts = greatest(attempts, 1), claims = claims + 1
WHERE payment_id = ANY($1::text[]) AND state IN ('CAPTURED', 'PARTIALLY_REFUNDED') RETURNING payment_id;

-- name: insert_tombstone
-- Keeps a payment that does not exist from being started.
INSERT INTO tombstone (payment_id, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: has_tombstone
-- Returns whether a payment was voided before it was started.
SELECT true FROM tombstone WHERE payment_id = $1;
