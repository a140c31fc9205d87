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
