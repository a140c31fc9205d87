-- always: one_saga_for_each_order I10
-- Every order has exactly one saga.
SELECT order_id, count(saga_id) AS sagas FROM orders LEFT JOIN saga USING (order_id)
GROUP BY order_id HAVING count(saga_id) <> 1;

-- always: transitions_are_legal I11
-- Every transition of an order is legal.
SELECT order_id, version, from_state, to_state FROM order_history
WHERE (from_state, to_state) NOT IN (
    ('', 'PENDING'), ('PENDING', 'CONFIRMED'), ('PENDING', 'REJECTED'), ('PENDING', 'CANCELLED'),
    ('CONFIRMED', 'SHIPPED'), ('CONFIRMED', 'CANCELLED'), ('SHIPPED', 'DELIVERED'), ('DELIVERED', 'COMPLETED'),
    ('DELIVERED', 'RETURN_REQUESTED'), ('SHIPPED', 'RETURN_REQUESTED'), ('RETURN_REQUESTED', 'DELIVERED'),
    ('RETURN_REQUESTED', 'RETURNED')
);

-- always: transitions_are_a_chain I11
-- Each transition of an order starts in the state where the previous one ended, and the last ends in its state.
SELECT order_id, moves.version, before, from_state, to_state, after, state FROM (
    SELECT *, lag(to_state, 1, '') OVER one AS before, lead(from_state) OVER one AS after
    FROM order_history WINDOW one AS (PARTITION BY order_id ORDER BY version)
) AS moves JOIN orders USING (order_id)
WHERE before <> from_state OR coalesce(after, state) <> to_state;

-- always: total_is_the_sum I16
-- The total of an order is the sum of its lines and its shipping fee.
SELECT order_id, subtotal, lines, total, shipping_fee FROM orders
LEFT JOIN (SELECT order_id, sum(total) AS lines FROM order_line GROUP BY order_id) AS sums USING (order_id)
WHERE subtotal IS DISTINCT FROM lines OR total <> subtotal + shipping_fee OR tax_total > total;

-- always: saga_and_order_agree I11
-- The states of an order and its saga agree.
SELECT order_id, orders.state, saga.state AS saga, step FROM orders JOIN saga USING (order_id)
WHERE saga.state = 'DONE' AND orders.state NOT IN ('SHIPPED', 'DELIVERED', 'COMPLETED', 'RETURN_REQUESTED', 'RETURNED')
    OR saga.state = 'COMPENSATED' AND orders.state NOT IN ('REJECTED', 'CANCELLED')
    OR orders.state IN ('REJECTED', 'CANCELLED') AND saga.state NOT IN ('COMPENSATED', 'COMPENSATING', 'PARKED');

-- always: done_saga_did_all_steps I12
-- A completed saga has completed each of its steps; an authorization that had to wait is completed by await_payment.
SELECT saga_id, name, saga_step.state FROM saga LEFT JOIN saga_step USING (saga_id)
WHERE saga.state = 'DONE' AND saga_step.state IS DISTINCT FROM 'DONE' AND NOT (name = 'authorize_payment' AND EXISTS (
    SELECT FROM saga_step AS paid WHERE paid.saga_id = saga.saga_id AND paid.name = 'await_payment' AND paid.state = 'DONE'));

-- always: rejections_have_a_reason I09
-- A rejected or cancelled order and a parked saga have a reason.
SELECT order_id, orders.state, saga.state AS saga FROM orders JOIN saga USING (order_id)
WHERE orders.state IN ('REJECTED', 'CANCELLED') AND state_reason = '' OR saga.state = 'PARKED' AND saga.reason = '';

-- always: payment_method_is_deleted
-- A saga that has ended stores no payment method.
SELECT saga_id, state FROM saga WHERE state IN ('DONE', 'COMPENSATED') AND payment_method_token <> '';

-- always: every_version_has_an_event I21
-- Every change of an order has an event, unless the event was purged.
SELECT order_id, version, published FROM orders
LEFT JOIN (SELECT key AS order_id, count(*) AS published FROM outbox GROUP BY key) AS events USING (order_id)
WHERE version > coalesce(published, 0) AND create_time > now() - interval '6 days';

-- always: open_return_and_order_agree I11
-- An order is RETURN_REQUESTED exactly while it has an open return.
SELECT order_id, orders.state, open FROM orders
LEFT JOIN (SELECT order_id, count(*) AS open FROM order_return
    WHERE state IN ('REQUESTED', 'APPROVED', 'RECEIVED', 'REFUND_REFUSED')
    GROUP BY order_id) AS returns USING (order_id)
WHERE (orders.state = 'RETURN_REQUESTED') <> (open IS NOT NULL);

-- always: no_unit_is_returned_twice I11
-- The completed returns of an order have at most the units that it bought, and refund at most its total.
SELECT order_id, sku, order_line.quantity, returned, orders.total, refunded FROM orders JOIN order_line USING (order_id)
JOIN (SELECT order_id, sku, sum(restocked + written_off) AS returned FROM order_return_line JOIN order_return USING (return_id)
    WHERE state = 'COMPLETED' GROUP BY order_id, sku) AS units USING (order_id, sku)
JOIN (SELECT order_id, sum(refund) AS refunded FROM order_return WHERE state = 'COMPLETED' GROUP BY order_id) AS refunds
    USING (order_id)
WHERE returned > order_line.quantity OR refunded > orders.total;

-- always: return_history_is_whole I11
-- The last entry of a return's history is its state.
SELECT return_id, order_return.state, last FROM order_return
LEFT JOIN (SELECT return_id, (array_agg(state ORDER BY version DESC))[1] AS last FROM order_return_history
    GROUP BY return_id) AS history USING (return_id)
WHERE order_return.state IS DISTINCT FROM last;

-- always: cancelled_amount_is_the_sum I16
-- The total of an order is smaller than its payment by the amounts of its cancellations.
SELECT order_id, cancelled_amount, amounts FROM orders
LEFT JOIN (SELECT order_id, sum(amount) AS amounts FROM line_cancellation GROUP BY order_id) AS sums USING (order_id)
WHERE cancelled_amount IS DISTINCT FROM amounts;

-- eventually: no_cancellation_is_in_progress I09
-- The units of every cancellation are released and, where they were captured, refunded.
SELECT cancellation_id, order_id, step, attempts, problem FROM line_cancellation WHERE state = 'REQUESTED';

-- eventually: no_return_is_in_progress I09
-- Every return that was received is restocked and refunded.
SELECT return_id, order_id, step, attempts, problem FROM order_return WHERE state = 'RECEIVED';

-- always: confirmed_orders_are_paid_for I14
-- An order that waits for its shipment has an authorized or captured payment.
SELECT order_id, payment_state, payment_id FROM orders JOIN saga USING (order_id)
WHERE saga.state = 'RUNNING' AND step = 'await_shipment' AND payment_state IN ('UNPAID', 'PENDING');

-- eventually: no_order_is_pending I09
-- No order is pending, unless its saga is parked or may still wait for the payment.
SELECT order_id, orders.create_time, saga.state AS saga, step, attempts, deadline FROM orders JOIN saga USING (order_id)
WHERE orders.state = 'PENDING' AND saga.state <> 'PARKED'
    AND NOT (saga.state = 'RUNNING' AND step IN ('await_payment', 'await_payment_method') AND deadline > now());

-- eventually: no_saga_is_running I09
-- Every saga has ended, is parked, or waits: for its payment, for ShipOrder, or for the parcel to leave, each in time.
SELECT saga_id, state, step, attempts, next_attempt_time, deadline FROM saga
WHERE state IN ('RUNNING', 'COMPENSATING') AND NOT (state = 'RUNNING' AND (
    step IN ('await_shipment', 'await_pickup') AND next_attempt_time > now()
    OR step IN ('await_payment', 'await_payment_method') AND deadline > now()));

-- eventually: parked_saga_has_no_unknown_reason I09
-- Only a refused step parks a saga: a participant that does not answer is called again.
SELECT saga_id, step, parked_from, reason FROM saga
WHERE state = 'PARKED' AND reason IN ('UNAVAILABLE', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED', 'INTERNAL', 'OVERLOADED');

-- copy: orders
-- The orders, with the columns that other services share.
SELECT order_id, user_id, orders.state, payment_state, fulfillment_state, total,
    total + coalesce(cancelled_amount, 0)::bigint AS payment_amount, EXISTS (SELECT FROM saga_decision
        WHERE saga_decision.saga_id = saga.saga_id AND action IN ('SETTLE', 'WRITE_OFF')) AS settled,
    currency, slot_id, reservation_id, payment_id, shipment_id, saga.state AS saga_state, saga.step AS saga_step,
    orders.version, extract(epoch FROM orders.create_time)::float8 AS create_time
FROM orders JOIN saga USING (order_id);

-- copy: refund
-- What each completed return, and each cancellation of lines, refunds.
SELECT return_id, order_id, CASE WHEN refunded_outside THEN 0 ELSE refund END AS refund
FROM order_return WHERE state = 'COMPLETED'
UNION ALL SELECT cancellation_id, order_id, refund FROM line_cancellation WHERE state = 'COMPLETED';

-- history copy: order_return
-- The returns.
SELECT return_id, order_id, state FROM order_return;

-- copy: line
-- The units of each order.
SELECT order_id, sku, quantity FROM order_line;

-- copy: answer
-- The stored replies of CreateOrder; rejected requests have no effect. The order's id is the reply's first field.
SELECT key, error IS NOT NULL AS rejected, extract(epoch FROM create_time)::float8 AS create_time,
    convert_from(substring(response FROM 3 FOR get_byte(response, 1)), 'UTF8') AS order_id
FROM idempotency WHERE method = '/shop.order.v1.OrderService/CreateOrder';

-- history copy: decision
-- When each order was confirmed, rejected or cancelled.
SELECT order_id, extract(epoch FROM min(create_time))::float8 AS decision_time FROM order_history
WHERE from_state = 'PENDING' GROUP BY order_id;
