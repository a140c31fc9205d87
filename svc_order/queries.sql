-- name: insert_order
-- Inserts new orders, each unless its user has so many pending ones. Until this transaction ends no other one counts them.
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time)
SELECT order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee, tax_total, total,
    shipping_address, slot_id, reservation_id, payment_id, version, create_time, create_time
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bytea[], $12::text[], $13::text[], $14::text[], $15::bigint[],
    $16::timestamptz[], $17::int[])
    AS new (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee, tax_total,
        total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, most_pending)
WHERE lock_and_count_pending(user_id, most_pending) < most_pending;

-- name: insert_lines
-- Inserts the lines of new orders.
INSERT INTO order_line (order_id, position, sku, product_id, name, quantity, unit_price, tax_rate_basis_points, tax,
    total, weight_grams)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::int[],
    $9::bigint[], $10::bigint[], $11::int[]);

-- name: read_orders
-- Reads some orders with their lines.
SELECT orders.*, line.sku, line.product_id, line.name, line.quantity, line.unit_price, line.tax_rate_basis_points,
    line.tax, line.total AS line_total, line.weight_grams
FROM orders LEFT JOIN order_line AS line USING (order_id)
WHERE order_id = ANY($1::text[]) ORDER BY order_id, line.position;

-- name: lock_order
-- Locks one order.
SELECT * FROM orders WHERE order_id = $1 FOR NO KEY UPDATE;

-- name: read_lines
-- Reads the lines of some orders.
SELECT * FROM order_line WHERE order_id = ANY($1::text[]) ORDER BY order_id, position;

-- name: list_orders
-- Lists orders from a position on, newest first. One query for each set of filters: each has an index, whatever the plan.
SELECT * FROM orders WHERE (create_time, order_id) < ($1, $2) ORDER BY create_time DESC, order_id DESC LIMIT $3;

-- name: list_orders_of_user
-- Lists the orders of a user from a position on, newest first.
SELECT * FROM orders WHERE user_id = $1 AND (create_time, order_id) < ($2, $3)
ORDER BY create_time DESC, order_id DESC LIMIT $4;

-- name: list_orders_in_state
-- Lists the orders in a state from a position on, newest first.
SELECT * FROM orders WHERE state = $1 AND (create_time, order_id) < ($2, $3)
ORDER BY create_time DESC, order_id DESC LIMIT $4;

-- name: list_orders_of_user_in_state
-- Lists the orders of a user in a state from a position on, newest first.
SELECT * FROM orders WHERE user_id = $1 AND state = $2 AND (create_time, order_id) < ($3, $4)
ORDER BY create_time DESC, order_id DESC LIMIT $5;

-- name: count_pending
-- Counts the pending orders of a user, up to a limit. Until this transaction ends no other one counts them.
SELECT lock_and_count_pending($1, $2);

-- name: update_order
-- Replaces the mutable columns of orders whose version is still the one that was read.
UPDATE orders SET state = new.state, state_reason = new.state_reason, payment_state = new.payment_state,
    fulfillment_state = new.fulfillment_state, shipment_id = new.shipment_id, version = new.version,
    update_time = new.update_time, state_message = new.state_message, payment_id = new.payment_id,
    payment_due_time = new.payment_due_time, ended_shipments = new.ended_shipments,
    delivered_time = coalesce(orders.delivered_time, CASE WHEN new.state = 'DELIVERED' THEN new.update_time END)
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::timestamptz[],
    $9::text[], $10::text[], $11::timestamptz[], $12::int[])
    AS new (order_id, state, state_reason, payment_state, fulfillment_state, shipment_id, version, update_time,
        state_message, payment_id, payment_due_time, ended_shipments)
WHERE orders.order_id = new.order_id AND orders.version = new.version - 1;

-- name: insert_history
-- Appends transitions to the histories of orders.
INSERT INTO order_history (order_id, version, from_state, to_state, reason, create_time, message)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[]);

-- name: list_history
-- Lists the transitions of an order, oldest first.
SELECT * FROM order_history WHERE order_id = $1 ORDER BY version;

-- name: list_past_return_window
-- Lists delivered orders that can no longer be returned.
SELECT order_id FROM orders WHERE state = 'DELIVERED' AND coalesce(delivered_time, update_time) < now() - $1::interval
ORDER BY coalesce(delivered_time, update_time) LIMIT $2;

-- name: insert_saga
-- Inserts the sagas of new orders.
INSERT INTO saga (saga_id, order_id, state, step, attempts, next_attempt_time, version, traceparent,
    payment_method_token, create_time, update_time, deadline, keep_on_decline, executing)
SELECT saga_id, order_id, state, step, attempts, next_attempt_time, version, traceparent, payment_method_token,
    create_time, create_time, deadline, keep_on_decline, executing
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::timestamptz[], $7::bigint[], $8::text[],
    $9::text[], $10::timestamptz[], $11::timestamptz[], $12::bool[], $13::bool[])
    AS new (saga_id, order_id, state, step, attempts, next_attempt_time, version, traceparent, payment_method_token,
        create_time, deadline, keep_on_decline, executing);

-- name: read_saga
-- Reads one saga.
SELECT * FROM saga WHERE saga_id = $1;

-- name: lock_saga
-- Locks one saga, and reads the time.
SELECT *, now() AS now FROM saga WHERE saga_id = $1 FOR NO KEY UPDATE;

-- name: lock_due_saga
-- Locks one saga that is due, and reads the time. Waits for a transaction that has it locked, which may only apply an event.
SELECT *, now() AS now FROM saga
WHERE saga_id = $1 AND state IN ('RUNNING', 'COMPENSATING') AND next_attempt_time <= now()
FOR NO KEY UPDATE;

-- name: list_due_sagas
-- Lists sagas that are due, the most overdue first, and locks them, without those that a transaction has locked.
SELECT saga_id FROM saga
WHERE state IN ('RUNNING', 'COMPENSATING') AND next_attempt_time <= now()
ORDER BY next_attempt_time LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED;

-- name: update_saga
-- Replaces the mutable columns of sagas that are locked, or are still as they were read; one that has ended loses its
-- payment method.
UPDATE saga SET state = new.state, step = new.step, attempts = new.attempts, next_attempt_time = new.next_attempt_time,
    reason = new.reason, cancel_reason = new.cancel_reason, parked_from = new.parked_from, version = new.version,
    retries = new.retries, message = new.message, shipment_actor = new.shipment_actor, executing = new.executing,
    deadline = new.deadline, update_time = now(),
    payment_method_token = CASE WHEN new.state IN ('DONE', 'COMPENSATED') THEN '' ELSE saga.payment_method_token END
FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
    $9::bigint[], $10::int[], $11::text[], $12::text[], $13::bool[], $14::timestamptz[], $15::bigint[], $16::text[])
    AS new (saga_id, state, step, attempts, next_attempt_time, reason, cancel_reason, parked_from, version, retries,
        message, shipment_actor, executing, deadline, read_version, read_cancel_reason)
WHERE saga.saga_id = new.saga_id AND (new.read_version IS NULL
    OR (saga.version = new.read_version AND saga.cancel_reason = new.read_cancel_reason));

-- name: update_payment_method
-- Replaces the payment method of an order.
UPDATE saga SET payment_method_token = $2 WHERE saga_id = $1;

-- name: renew_saga
-- Extends the lease of a saga, unless another process has claimed it since.
UPDATE saga SET next_attempt_time = now() + $3::interval WHERE saga_id = $1 AND version = $2;

-- name: list_sagas
-- Lists sagas from a position on, oldest first.
SELECT * FROM saga WHERE (create_time, saga_id) > ($1, $2) ORDER BY create_time, saga_id LIMIT $3;

-- name: list_parked_sagas
-- Lists parked sagas from a position on, oldest first.
SELECT * FROM saga WHERE state = 'PARKED' AND (create_time, saga_id) > ($1, $2) ORDER BY create_time, saga_id LIMIT $3;

-- name: list_stuck_sagas
-- Lists sagas that need attention from a position on, oldest first: parked, or with many attempts of the current step.
SELECT * FROM saga
WHERE (state = 'PARKED' OR attempts >= 8) AND state IN ('PARKED', 'RUNNING', 'COMPENSATING') AND step <> 'await_payment'
    AND (create_time, saga_id) > ($1, $2)
ORDER BY create_time, saga_id LIMIT $3;

-- name: list_active_sagas
-- Lists sagas in one of the states with a step to execute from a position on, oldest first.
SELECT * FROM saga
WHERE state = $1 AND state IN ('RUNNING', 'COMPENSATING') AND (create_time, saga_id) > ($2, $3)
ORDER BY create_time, saga_id LIMIT $4;

-- name: list_ended_sagas
-- Lists sagas in a state that many have from a position on, oldest first.
SELECT * FROM saga WHERE state = $1 AND (create_time, saga_id) > ($2, $3) ORDER BY create_time, saga_id LIMIT $4;

-- name: filter_parked_sagas
-- Lists parked sagas by reason, step and time, oldest first; an empty text means any.
SELECT saga_id FROM saga
WHERE state = 'PARKED' AND ($1 = '' OR reason = $1) AND ($2 = '' OR step = $2) AND create_time >= $3 AND create_time < $4
ORDER BY create_time, saga_id LIMIT $5;

-- name: insert_decision
-- Records what an operator decided about a saga.
INSERT INTO saga_decision (saga_id, action, actor, reason, step) VALUES ($1, $2, $3, $4, $5);

-- name: list_decisions
-- Lists what operators decided about a saga, oldest first.
SELECT * FROM saga_decision WHERE saga_id = $1 ORDER BY decision_id;

-- name: write_steps
-- Records the results of steps of sagas.
INSERT INTO saga_step (saga_id, name, state, attempts, reason, start_time, update_time, end_time)
SELECT saga_id, name, state, attempts, reason, clock_timestamp(), clock_timestamp(),
    CASE WHEN state IN ('RUNNING', 'UNKNOWN') THEN NULL ELSE clock_timestamp() END
FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[]) AS new (saga_id, name, state, attempts, reason)
ON CONFLICT (saga_id, name) DO UPDATE SET state = excluded.state, attempts = excluded.attempts,
    reason = excluded.reason, update_time = excluded.update_time, end_time = excluded.end_time;

-- name: list_steps
-- Lists the steps of a saga in the order of their last attempts.
SELECT * FROM saga_step WHERE saga_id = $1 ORDER BY update_time;

-- name: insert_return
-- Inserts a return.
INSERT INTO order_return (return_id, order_id, user_id, state, reason, message, step, next_attempt_time, version,
    create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10);

-- name: insert_return_lines
-- Inserts the lines of a return.
INSERT INTO order_return_line (return_id, position, sku, quantity)
SELECT $1, position, sku, quantity
FROM unnest($2::text[], $3::int[]) WITH ORDINALITY AS line (sku, quantity, position);

-- name: insert_return_history
-- Appends a transition to the history of a return.
INSERT INTO order_return_history (return_id, version, state, actor, message, create_time)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: read_return_order
-- Reads which order a return belongs to.
SELECT order_id FROM order_return WHERE return_id = $1;

-- name: read_returns
-- Reads some returns.
SELECT * FROM order_return WHERE return_id = ANY($1::text[]);

-- name: read_returns_of
-- Reads the returns of an order, oldest first.
SELECT * FROM order_return WHERE order_id = $1 ORDER BY create_time, return_id;

-- name: read_return_lines
-- Reads the lines of some returns.
SELECT * FROM order_return_line WHERE return_id = ANY($1::text[]) ORDER BY return_id, position;

-- name: read_return_history
-- Reads the histories of some returns, oldest first.
SELECT * FROM order_return_history WHERE return_id = ANY($1::text[]) ORDER BY return_id, version;

-- name: list_returns
-- Lists returns before a create time and id, newest first; an empty user, order or state stands for any.
SELECT * FROM order_return
WHERE ($1 = '' OR user_id = $1) AND ($2 = '' OR order_id = $2) AND ($3 = '' OR state = $3)
    AND (create_time, return_id) < ($4, $5)
ORDER BY create_time DESC, return_id DESC LIMIT $6;

-- name: update_return
-- Replaces the mutable columns of a return whose order this transaction has locked.
UPDATE order_return SET state = $2, step = $3, refund = $4, problem = $5, attempts = $6, receipts = $7,
    next_attempt_time = $8, version = $9, update_time = $10, retries = $11, refunded_outside = $12
WHERE return_id = $1;

-- name: update_return_lines
-- Replaces what was received of the lines of a return.
UPDATE order_return_line SET restocked = new.restocked, written_off = new.written_off, location_id = new.location_id
FROM unnest($2::text[], $3::int[], $4::int[], $5::text[]) AS new (sku, restocked, written_off, location_id)
WHERE return_id = $1 AND order_return_line.sku = new.sku;

-- name: list_due_returns
-- Lists the received returns whose next attempt is due, the most overdue first, and locks them, unless they are locked.
SELECT return_id FROM order_return WHERE state = 'RECEIVED' AND next_attempt_time <= now()
ORDER BY next_attempt_time LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED;

-- name: lock_due_return
-- Locks a received return whose next attempt is due.
SELECT return_id FROM order_return WHERE return_id = $1 AND state = 'RECEIVED' AND next_attempt_time <= now()
FOR NO KEY UPDATE;

-- name: renew_return
-- Extends the lease of a return, unless another process has claimed it since.
UPDATE order_return SET next_attempt_time = now() + $3::interval WHERE return_id = $1 AND version = $2;

-- name: read_delivery_time
-- Reads when an order was first delivered.
SELECT min(create_time) FROM order_history WHERE order_id = $1 AND to_state = 'DELIVERED';

-- name: insert_cancellation
-- Inserts a cancellation of lines.
INSERT INTO line_cancellation (cancellation_id, order_id, state, actor, message, step, amount, next_attempt_time, version,
    create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10);

-- name: insert_cancellation_lines
-- Inserts the units of a cancellation.
INSERT INTO line_cancellation_line (cancellation_id, position, sku, name, quantity, unit_price)
SELECT $1, position, sku, name, quantity, unit_price
FROM unnest($2::text[], $3::text[], $4::int[], $5::bigint[]) WITH ORDINALITY
    AS line (sku, name, quantity, unit_price, position);

-- name: update_totals
-- Replaces the amounts of an order that this transaction has locked.
UPDATE orders SET subtotal = $2, shipping_fee = $3, tax_total = $4, total = $5, cancelled_amount = $6 WHERE order_id = $1;

-- name: update_lines
-- Replaces the quantities and amounts of the lines of a locked order.
UPDATE order_line SET quantity = new.quantity, tax = new.tax, total = new.total
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS new (sku, quantity, tax, total)
WHERE order_id = $1 AND order_line.sku = new.sku AND order_line.quantity <> new.quantity;

-- name: delete_other_lines
-- Deletes the lines of a locked order but those of some SKUs.
DELETE FROM order_line WHERE order_id = $1 AND sku <> ALL($2::text[]);

-- name: read_cancellation_order
-- Reads which order a cancellation belongs to.
SELECT order_id FROM line_cancellation WHERE cancellation_id = $1;

-- name: read_cancellation
-- Reads one cancellation.
SELECT * FROM line_cancellation WHERE cancellation_id = $1;

-- name: read_cancellations_of
-- Reads the cancellations of an order, oldest first.
SELECT * FROM line_cancellation WHERE order_id = $1 ORDER BY create_time, cancellation_id;

-- name: read_cancellation_lines
-- Reads the units of some cancellations.
SELECT * FROM line_cancellation_line WHERE cancellation_id = ANY($1::text[]) ORDER BY cancellation_id, position;

-- name: update_cancellation
-- Replaces the mutable columns of a cancellation that this transaction has locked.
UPDATE line_cancellation SET state = $2, step = $3, refund = $4, problem = $5, attempts = $6, next_attempt_time = $7,
    version = $8, update_time = $9, retries = $10
WHERE cancellation_id = $1;

-- name: list_due_cancellations
-- Lists the cancellations whose next attempt is due, the most overdue first.
SELECT cancellation_id FROM line_cancellation WHERE state = 'REQUESTED' AND next_attempt_time <= now()
ORDER BY next_attempt_time LIMIT $1;

-- name: lock_due_cancellation
-- Locks a cancellation whose next attempt is due.
SELECT cancellation_id FROM line_cancellation
WHERE cancellation_id = $1 AND state = 'REQUESTED' AND next_attempt_time <= now() FOR NO KEY UPDATE;

-- name: renew_cancellation
-- Extends the lease of a cancellation, unless another process has claimed it since.
UPDATE line_cancellation SET next_attempt_time = now() + $3::interval WHERE cancellation_id = $1 AND version = $2;

-- name: insert_cancellation_decision
-- Records what an operator decided about a cancellation.
INSERT INTO line_cancellation_decision (cancellation_id, decision, actor, reason) VALUES ($1, $2, $3, $4);

-- name: list_cancellation_decisions
-- Lists what operators decided about a cancellation, oldest first.
SELECT * FROM line_cancellation_decision WHERE cancellation_id = $1 ORDER BY decision_id;
