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
-- Inserts payments; each is due when the lease of its first attempt expires. Not if its id has a tombstone or exists, its
-- order has a payment, or too many payments of the user or with the method were declined. Locks their ids.
INSERT INTO payment (payment_id, order_id, user_id, amount, currency, token, state, version, provider, attempts, claims,
    next_attempt_time, fingerprint, method, brand, last4)
SELECT new.payment_id, new.order_id, new.user_id, new.amount, new.currency, new.token, new.state, new.version,
    new.provider, new.attempts, new.claims, now() + new.lease, fingerprint, coalesce(m.kind, ''),
    coalesce(m.brand, ''), coalesce(m.last4, '')
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::text[], $10::int[], $11::bigint[], $12::interval[], $13::text[], $14::interval[], $15::int[], $16::int[])
    AS new (payment_id, order_id, user_id, amount, currency, token, state, version, provider, attempts, claims, lease,
        fingerprint, span, methods_per_user, payments_per_method)
LEFT JOIN known_method m USING (fingerprint)
WHERE lock_name_without_tombstone(new.payment_id)
    AND (SELECT count(DISTINCT declined.fingerprint) FROM payment declined
        WHERE declined.user_id = new.user_id AND declined.state = 'FAILED'
            AND declined.update_time > now() - new.span) < new.methods_per_user
    AND (SELECT count(*) FROM (SELECT FROM payment declined
        WHERE declined.fingerprint = new.fingerprint AND declined.state = 'FAILED'
            AND declined.update_time > now() - new.span LIMIT new.payments_per_method) AS few) < new.payments_per_method
ON CONFLICT DO NOTHING;

-- name: read_method
-- Reads what is known of a payment method, and whether too many payments of a user or with it were declined.
SELECT m.kind, m.brand, m.last4,
    (SELECT count(DISTINCT declined.fingerprint) FROM payment declined
        WHERE user_id = $1 AND state = 'FAILED' AND update_time > now() - $3::interval) >= $4
    OR (SELECT count(*) FROM (SELECT FROM payment declined WHERE declined.fingerprint = $2 AND state = 'FAILED'
        AND update_time > now() - $3::interval LIMIT $5) AS few) >= $5 AS exceeded
FROM (SELECT $2::text AS fingerprint) AS wanted LEFT JOIN known_method m USING (fingerprint);

-- name: update_payment
-- Replaces payments that are locked, or are still as they were read. Where is_scheduled, the next attempt is due after
-- due_in and not before not_before, or never.
UPDATE payment SET state = new.state, authorized = new.authorized, captured = new.captured, refunded = new.refunded,
    provider_id = new.provider_id, void_request_time = new.void_request_time, void_reason = new.void_reason,
    attempts = new.attempts, claims = new.claims, version = new.version,
    next_attempt_time = CASE WHEN NOT new.is_scheduled THEN payment.next_attempt_time
        WHEN new.due_in IS NULL THEN NULL ELSE greatest(now() + new.due_in, new.not_before) END,
    token = CASE WHEN new.needs_token THEN payment.token ELSE '' END, action_url = new.action_url,
    expire_time = new.expire_time, dispute_due_time = new.dispute_due_time,
    last_error = CASE WHEN new.is_scheduled AND new.due_in IS NULL THEN ''
        ELSE coalesce(nullif(new.error, ''), payment.last_error) END,
    update_time = CASE WHEN payment.version = new.version THEN payment.update_time ELSE now() END
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::timestamptz[], $8::text[],
    $9::int[], $10::bigint[], $11::bigint[], $12::bool[], $13::interval[], $14::text[], $15::timestamptz[], $16::bool[],
    $17::text[], $18::timestamptz[], $19::timestamptz[], $20::bigint[], $21::bigint[])
    AS new (payment_id, state, authorized, captured, refunded, provider_id, void_request_time, void_reason, attempts,
        claims, version, is_scheduled, due_in, error, not_before, needs_token, action_url, expire_time,
        dispute_due_time, read_claims, read_version)
WHERE payment.payment_id = new.payment_id AND payment.claims = new.read_claims AND payment.version = new.read_version;

-- name: insert_entries
-- Appends to the ledgers of payments.
INSERT INTO entry (payment_id, provider, operation_id, kind, outcome, amount, reference, reason)
SELECT payment_id, provider, operation_id, kind, outcome, amount, reference, reason
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[])
    WITH ORDINALITY AS new (payment_id, provider, operation_id, kind, outcome, amount, reference, reason, position)
ORDER BY position;

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
