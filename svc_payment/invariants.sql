-- always: amounts_are_entries I16 I18
-- The amounts of a payment are the sums of its successful entries.
SELECT payment_id, authorized, ledger_authorized, captured, ledger_captured, refunded, ledger_refunded FROM payment
LEFT JOIN (
    SELECT payment_id,
        sum(CASE kind WHEN 'AUTHORIZATION' THEN amount WHEN 'EXPIRY' THEN -amount END)
            FILTER (WHERE outcome = 'SUCCESS') AS ledger_authorized,
        sum(amount) FILTER (WHERE kind = 'CHARGE' AND outcome = 'SUCCESS') AS ledger_captured,
        sum(amount) FILTER (WHERE kind = 'REFUND' AND outcome = 'SUCCESS') AS ledger_refunded
    FROM entry GROUP BY payment_id
) AS sums USING (payment_id)
WHERE (authorized, captured, refunded)
    IS DISTINCT FROM (coalesce(ledger_authorized, 0), coalesce(ledger_captured, 0), coalesce(ledger_refunded, 0));

-- always: amounts_are_in_order I16
-- Refunded is at most captured, captured at most authorized, authorized at most the order's total.
SELECT payment_id, amount, authorized, captured, refunded FROM payment
WHERE NOT (refunded BETWEEN 0 AND captured AND captured <= authorized AND authorized <= amount);

-- always: charged_once I12
-- A payment is captured at most once, and authorized at most once more than its authorization has expired.
SELECT payment_id, count(*) FILTER (WHERE kind = 'AUTHORIZATION') AS authorized,
    count(*) FILTER (WHERE kind = 'EXPIRY') AS expired, count(*) FILTER (WHERE kind = 'CHARGE') AS captured,
    count(*) FILTER (WHERE kind = 'CANCEL') AS voided
FROM entry WHERE outcome = 'SUCCESS' GROUP BY payment_id
HAVING count(*) FILTER (WHERE kind = 'AUTHORIZATION') > 1 + count(*) FILTER (WHERE kind = 'EXPIRY')
    OR count(*) FILTER (WHERE kind = 'CHARGE') > 1 OR count(*) FILTER (WHERE kind = 'CANCEL') > 1;

-- always: one_payment_for_each_order I15
-- An order has at most one payment that is not over.
SELECT order_id, count(*) AS payments FROM payment
WHERE state NOT IN ('FAILED', 'VOIDED') AND NOT (state = 'EXPIRED' AND void_request_time IS NOT NULL)
GROUP BY order_id HAVING count(*) > 1;

-- always: state_follows_from_amounts I29
-- The state of a payment follows from its amounts.
SELECT payment_id, state, authorized, captured, refunded FROM payment
WHERE state = 'AUTHORIZED' AND NOT (authorized > 0 AND captured = 0)
    OR state = 'CAPTURED' AND NOT (captured > 0 AND refunded = 0)
    OR state = 'PARTIALLY_REFUNDED' AND NOT (refunded > 0 AND refunded < captured)
    OR state = 'REFUNDED' AND NOT (captured > 0 AND refunded = captured)
    OR state IN ('DISPUTED', 'CHARGED_BACK') AND captured = 0
    OR state IN ('PROCESSING', 'REQUIRES_ACTION', 'FAILED') AND captured > 0
    OR state = 'EXPIRED' AND (authorized > 0 OR captured > 0);

-- eventually: no_operation_is_in_flight I15
-- Every operation that was sent to the provider has ended.
SELECT payment_id, operation_id, kind, amount FROM entry AS requested
WHERE outcome = 'REQUEST' AND kind <> 'CHARGEBACK' AND NOT EXISTS (
    SELECT FROM entry AS ended WHERE ended.payment_id = requested.payment_id
        AND ended.operation_id = requested.operation_id AND ended.outcome <> 'REQUEST'
);

-- eventually: payments_end_in_time I14
-- Authorizations, the time of customers, and disputes end at their deadlines.
SELECT payment_id, state, expire_time, dispute_due_time, last_error FROM payment
WHERE state IN ('REQUIRES_ACTION', 'AUTHORIZED') AND expire_time < now() - interval '5 minutes'
    OR state = 'DISPUTED' AND dispute_due_time < now() - interval '5 minutes';

-- eventually: changes_of_the_provider_are_noticed I14
-- A payment that the provider may change by itself has a time at which its state is fetched.
SELECT payment_id, state, expire_time FROM payment
WHERE (state IN ('REQUIRES_ACTION', 'DISPUTED') OR state = 'AUTHORIZED' AND expire_time IS NOT NULL)
    AND next_attempt_time IS NULL;

-- eventually: tokens_are_forgotten
-- The token of a payment method is stored only until the provider has its authorization request.
SELECT payment_id, state FROM payment WHERE token <> '' AND state <> 'PROCESSING'
UNION ALL SELECT 'method', brand FROM method;

-- eventually: nothing_waits_for_an_operator I15
-- The provider has exactly what was requested of it, in reference, amount and currency.
SELECT payment_id, state, last_error FROM payment WHERE last_error = 'answer_mismatch' AND attempts > 0;

-- eventually: voided_payments_hold_no_funds I13
-- A failed or voided payment holds no funds.
SELECT payment_id, state, void_request_time, held FROM payment
JOIN (
    SELECT payment_id, CASE WHEN bool_or(kind = 'CHARGE')
        THEN sum(CASE WHEN kind = 'CHARGE' THEN amount WHEN kind IN ('REFUND', 'CHARGEBACK') THEN -amount ELSE 0 END)
        ELSE sum(CASE WHEN kind = 'AUTHORIZATION' THEN amount WHEN kind IN ('CANCEL', 'EXPIRY') THEN -amount ELSE 0 END)
    END AS held
    FROM entry WHERE outcome = 'SUCCESS' GROUP BY payment_id
) AS holding USING (payment_id)
WHERE held > 0 AND state <> 'DISPUTED' AND (state IN ('FAILED', 'VOIDED') OR void_request_time IS NOT NULL);

-- always: results_follow_requests I19
-- The result of an operation that was requested follows its request, of the same kind and amount.
SELECT result.payment_id, result.operation_id, result.kind, result.amount, request.kind AS requested_kind,
    request.amount AS requested
FROM entry AS result JOIN entry AS request ON request.payment_id = result.payment_id
    AND request.operation_id = result.operation_id AND request.outcome = 'REQUEST'
WHERE result.outcome <> 'REQUEST' AND (
    request.kind <> result.kind OR request.amount <> result.amount OR request.entry_id > result.entry_id);

-- always: every_version_has_one_event I21
-- Every change of a payment has one event, unless the event was purged.
SELECT payment_id, version, published FROM payment
LEFT JOIN (SELECT key AS payment_id, count(*) AS published FROM outbox GROUP BY key) AS events USING (payment_id)
WHERE version <> coalesce(published, 0) AND create_time > now() - interval '6 days';

-- copy: payment
-- The payment of each order.
SELECT payment_id, order_id, user_id, state, amount, authorized, captured, refunded, currency, provider_id,
    void_request_time IS NOT NULL AS void_requested, method = 'CONVENIENCE_STORE' AS captured_at_once FROM payment;
