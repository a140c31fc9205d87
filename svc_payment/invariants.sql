-- always: amounts_are_entries I16
-- The amounts of a payment are the sums of its successful entries.
SELECT payment_id, authorized, ledger_authorized, captured, ledger_captured, refunded, ledger_refunded FROM payment
LEFT JOIN (
    SELECT payment_id,
        sum(amount) FILTER (WHERE kind = 'AUTHORIZATION' AND outcome = 'SUCCESS') AS ledger_authorized,
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
-- A payment is authorized and captured at most once.
SELECT payment_id, kind, count(*) AS times FROM entry
WHERE outcome = 'SUCCESS' AND kind IN ('AUTHORIZATION', 'CHARGE', 'CANCEL')
GROUP BY payment_id, kind HAVING count(*) > 1;

-- always: one_payment_for_each_order I15
-- An order has at most one payment.
SELECT order_id, count(*) AS payments FROM payment GROUP BY order_id HAVING count(*) > 1;

-- always: state_follows_from_amounts I29
-- The state of a payment follows from its amounts.
SELECT payment_id, state, authorized, captured, refunded FROM payment
WHERE state = 'AUTHORIZED' AND NOT (authorized > 0 AND captured = 0)
    OR state = 'CAPTURED' AND NOT (captured > 0 AND refunded = 0)
    OR state = 'PARTIALLY_REFUNDED' AND NOT (refunded > 0 AND refunded < captured)
    OR state = 'REFUNDED' AND NOT (captured > 0 AND refunded = captured)
    OR state IN ('PROCESSING', 'FAILED') AND captured > 0;

-- eventually: no_operation_is_in_flight I15
-- Every operation that was sent to the provider has ended.
SELECT payment_id, operation_id, kind, amount FROM entry AS requested
WHERE outcome = 'REQUEST' AND NOT EXISTS (
    SELECT FROM entry AS ended WHERE ended.payment_id = requested.payment_id
        AND ended.operation_id = requested.operation_id AND ended.outcome <> 'REQUEST'
);

-- eventually: voided_payments_hold_no_funds I13
-- A failed or voided payment holds no funds.
SELECT payment_id, state, void_request_time, held FROM payment
JOIN (
    SELECT payment_id, CASE WHEN bool_or(kind = 'CHARGE')
        THEN sum(CASE kind WHEN 'CHARGE' THEN amount WHEN 'REFUND' THEN -amount ELSE 0 END)
        ELSE sum(CASE kind WHEN 'AUTHORIZATION' THEN amount WHEN 'CANCEL' THEN -amount ELSE 0 END)
    END AS held
    FROM entry WHERE outcome = 'SUCCESS' GROUP BY payment_id
) AS holding USING (payment_id)
WHERE held > 0 AND (state IN ('FAILED', 'VOIDED') OR void_request_time IS NOT NULL);

-- copy: payment
-- The payment of each order.
SELECT payment_id, order_id, user_id, state, amount, authorized, captured, refunded, currency, provider_id,
    void_request_time IS NOT NULL AS void_requested FROM payment;
