-- always: acknowledged_order_exists H1
-- Every order in a reply to a client exists.
SELECT op, key, operation.order_id FROM operation LEFT JOIN orders USING (order_id)
WHERE outcome = 'ok' AND operation.order_id IS NOT NULL AND orders.order_id IS NULL;

-- always: rejected_request_did_nothing H2
-- A rejected request created no order.
SELECT op, operation.key, reason FROM operation JOIN answer USING (key)
WHERE kind = 'order' AND outcome = 'fail' AND NOT rejected;

-- always: repeated_request_has_one_reply H3
-- A request repeated with its key created one order, and every reply names it.
SELECT key, count(DISTINCT order_id) AS orders FROM operation WHERE kind = 'order' AND order_id IS NOT NULL
GROUP BY key HAVING count(DISTINCT order_id) > 1;

-- always: acknowledged_final_state_is_kept H5
-- An order that a client saw cancelled or rejected still is.
SELECT op, order_id, operation.state AS seen, orders.state AS found FROM operation JOIN orders USING (order_id)
WHERE operation.state IN ('CANCELLED', 'REJECTED') AND orders.state <> operation.state;

-- always: seen_state_never_goes_back H5
-- An order that a client saw confirmed is not pending.
SELECT op, order_id, operation.state AS seen, orders.state AS found FROM operation JOIN orders USING (order_id)
WHERE kind = 'order' AND operation.state = 'CONFIRMED' AND orders.state IN ('PENDING', 'REJECTED');

-- index: stock_state sku location_id available position
-- Finds the states of a level with some available units.

-- derived: placed order_id
-- The orders of the history: when each was first requested, first acknowledged as confirmed, and last acknowledged.
SELECT order_id, min(op) AS op, min(complete) FILTER (WHERE state = 'CONFIRMED') AS confirm_time,
    max(complete) AS complete,
    min((SELECT min(invoke) FROM operation AS attempt WHERE attempt.key = operation.key)) AS invoke
FROM operation WHERE kind = 'order' AND outcome = 'ok' AND order_id IS NOT NULL GROUP BY order_id;

-- derived: reserved_by sku location_id confirm_time
-- The last movement of a level that an order acknowledged by then has caused.
SELECT sku, location_id, confirm_time, max(position) OVER (PARTITION BY sku, location_id ORDER BY confirm_time) AS last
FROM placed JOIN orders USING (order_id) JOIN stock_state USING (reservation_id)
WHERE confirm_time IS NOT NULL AND kind = 'RESERVED';

-- derived: priced_by sku complete
-- The last version of a price that was acknowledged by then.
SELECT sku, complete, max(price_change.version) OVER (PARTITION BY sku ORDER BY complete) AS last
FROM price_change JOIN operation USING (op);

-- derived: healed time
-- When the last fault of the history ended; 0 where there was none.
SELECT coalesce(max(complete), 0) AS time FROM operation WHERE kind = 'heal';

-- always: acknowledged_version_is_kept H1
-- An order has every change that a client has seen.
SELECT op, order_id, operation.version AS seen, orders.version AS found FROM operation JOIN orders USING (order_id)
WHERE operation.version > orders.version;

-- eventually: acknowledged_cancellation_is_kept H1
-- An order whose cancellation was acknowledged is cancelled.
SELECT op, order_id, orders.state FROM operation JOIN orders USING (order_id)
WHERE kind = 'cancel' AND outcome = 'ok' AND orders.state NOT IN ('CANCELLED', 'REJECTED');

-- always: acknowledged_shipment_is_kept H1
-- Every shipment in a reply exists, and one that a client saw at its end is there still.
SELECT op, shipment_id, shipment_state AS seen, shipment.state AS found FROM operation LEFT JOIN shipment USING (shipment_id)
WHERE shipment_id IS NOT NULL AND (shipment.state IS NULL
    OR shipment_state IN ('DELIVERED', 'RETURNED', 'CANCELLED') AND shipment.state <> shipment_state);

-- always: acknowledged_return_exists H1
-- Every return in a reply exists.
SELECT op, return_id FROM operation
WHERE return_id IS NOT NULL AND return_id NOT IN (SELECT return_id FROM order_return);

-- always: reply_is_the_stored_one H3
-- The reply to a request names the order that is stored under its key.
SELECT op, operation.key, operation.order_id AS seen, answer.order_id AS stored FROM operation JOIN answer USING (key)
WHERE kind = 'order' AND operation.order_id <> answer.order_id;

-- always: request_is_applied_once H3
-- Each order that the history's customers placed while it was recorded is the reply of one request.
SELECT orders.order_id, orders.user_id, create_time FROM orders
WHERE user_id IN (SELECT user_id FROM operation)
    AND create_time BETWEEN (SELECT min(invoke) FROM operation) AND (SELECT max(complete) FROM operation)
    AND create_time > (SELECT min(create_time) FROM answer)
    AND order_id NOT IN (SELECT order_id FROM answer WHERE order_id IS NOT NULL);

-- always: stock_that_was_read_existed H4
-- Units that a client read were available during the request: never a state from before an order confirmed earlier.
SELECT op, level.sku, level.location_id, level.available FROM stock_read AS level JOIN operation USING (op)
WHERE NOT EXISTS (
    SELECT 1 FROM stock_state AS was
    WHERE was.sku = level.sku AND was.location_id = level.location_id AND was.available = level.available
        AND was.create_time <= operation.complete
        AND was.position >= coalesce((
            SELECT last FROM reserved_by WHERE reserved_by.sku = level.sku AND reserved_by.location_id = level.location_id
                AND confirm_time <= operation.invoke ORDER BY confirm_time DESC LIMIT 1), 0));

-- always: reservations_are_in_real_time_order H4
-- The stock of an order was reserved after that of every order confirmed before its request.
SELECT placed.op, order_id, state.sku, state.location_id, position
FROM placed JOIN orders USING (order_id) JOIN stock_state AS state USING (reservation_id)
WHERE kind = 'RESERVED' AND position <= (
    SELECT last FROM reserved_by WHERE reserved_by.sku = state.sku AND reserved_by.location_id = state.location_id
        AND reserved_by.confirm_time <= placed.invoke ORDER BY reserved_by.confirm_time DESC LIMIT 1);

-- always: clients_bought_at_most_the_stock H4
-- The orders that clients saw confirmed, and that stand, have at most the units that ever came in.
SELECT sku, sum(quantity) AS bought, received FROM (
    SELECT DISTINCT order_id, sku, quantity FROM bought JOIN operation USING (op) WHERE state = 'CONFIRMED'
) AS line
JOIN orders USING (order_id)
JOIN (SELECT sku, sum(max(on_hand_delta, 0)) AS received FROM stock_state WHERE reservation_id = '' GROUP BY sku) AS supply
    USING (sku)
WHERE orders.state NOT IN ('CANCELLED', 'REJECTED') GROUP BY sku HAVING sum(quantity) > received;

-- always: own_order_is_found H5
-- A client finds each order that was acknowledged to it before.
SELECT op, session, order_id FROM operation AS lost
WHERE kind = 'get_order' AND outcome = 'fail' AND reason = 'ORDER_NOT_FOUND' AND EXISTS (
    SELECT 1 FROM operation AS earlier WHERE earlier.order_id = lost.order_id AND earlier.session = lost.session
        AND earlier.outcome = 'ok' AND earlier.complete <= lost.invoke);

-- always: session_sees_versions_grow H5
-- A client that reads an order never sees an older version than before.
SELECT op, session, order_id, version, last FROM (
    SELECT op, session, order_id, version, max(version) OVER (PARTITION BY session, order_id ORDER BY invoke
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last
    FROM operation WHERE outcome = 'ok' AND version IS NOT NULL AND order_id IS NOT NULL
) AS reads WHERE version < last;

-- always: prices_were_current H6
-- An order has prices that were current during its request: none that was replaced, and acknowledged so, before it.
SELECT bought.op, order_id, bought.sku, unit_price FROM bought JOIN operation USING (op) JOIN placed USING (order_id)
-- A product that is older than the stored events has prices that are not known.
WHERE EXISTS (SELECT 1 FROM price AS first WHERE first.sku = bought.sku AND first.version = 1) AND NOT EXISTS (
    SELECT 1 FROM price WHERE price.sku = bought.sku AND price.price = unit_price
        AND price.create_time <= operation.complete
        AND price.version >= coalesce((SELECT last FROM priced_by WHERE priced_by.sku = bought.sku
            AND priced_by.complete <= placed.invoke ORDER BY priced_by.complete DESC LIMIT 1), 0));

-- always: orders_are_decided_in_time H7
-- 99 of 100 orders are confirmed, rejected or cancelled within a minute of their reply or of the last fault.
SELECT op, order_id, decision_time - max(complete, time) AS seconds FROM placed JOIN decision USING (order_id), healed
WHERE decision_time - max(complete, time) > 60 AND (
    SELECT 100 * count(*) FROM placed JOIN decision USING (order_id), healed
    WHERE decision_time - max(complete, time) > 60) > (SELECT count(*) FROM placed);

-- always: errors_end_with_the_faults H7
-- Half a minute after the last fault, 99 of 100 requests have a known outcome.
SELECT op, kind, reason FROM operation, healed WHERE outcome = 'unknown' AND time > 0 AND invoke > time + 30 AND (
    SELECT 100 * count(*) FROM operation, healed WHERE outcome = 'unknown' AND invoke > time + 30)
    > (SELECT count(*) FROM operation, healed WHERE invoke > time + 30);
