-- name: open_return_and_order_agree
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time)
VALUES ('o', 'u', 'RETURN_REQUESTED', 'PAID', 'DELIVERED', 'THB', 100, 10, 7, 110, '', '', 'r', 'p', 1, now(), now());

-- name: no_unit_is_returned_twice
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time)
VALUES ('o', 'u', 'RETURNED', 'PAID', 'DELIVERED', 'THB', 100, 10, 7, 110, '', '', 'r', 'p', 1, now(), now());
INSERT INTO order_line (order_id, position, sku, product_id, name, quantity, unit_price, tax_rate_basis_points, tax,
    total, weight_grams)
VALUES ('o', 1, 'A', 'p', 'A', 1, 100, 0, 0, 100, 1);
INSERT INTO order_return (return_id, order_id, user_id, state, reason, message, step, refund, next_attempt_time, version,
    create_time, update_time)
VALUES ('a', 'o', 'u', 'COMPLETED', 'OTHER', '', 'refund', 60, now(), 1, now(), now()),
    ('b', 'o', 'u', 'COMPLETED', 'OTHER', '', 'refund', 60, now(), 1, now(), now());
INSERT INTO order_return_line (return_id, position, sku, quantity, restocked) VALUES ('a', 1, 'A', 1, 1), ('b', 1, 'A', 1, 1);

-- name: return_history_is_whole
INSERT INTO order_return (return_id, order_id, user_id, state, reason, message, step, next_attempt_time, version,
    create_time, update_time)
VALUES ('a', 'o', 'u', 'COMPLETED', 'OTHER', '', 'refund', now(), 1, now(), now());

-- name: no_return_is_in_progress
INSERT INTO order_return (return_id, order_id, user_id, state, reason, message, step, next_attempt_time, version,
    create_time, update_time)
VALUES ('a', 'o', 'u', 'RECEIVED', 'OTHER', '', 'refund', now(), 1, now(), now());

-- name: cancelled_amount_is_the_sum
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time,
    cancelled_amount)
VALUES ('o', 'u', 'CONFIRMED', 'PAID', 'ALLOCATED', 'THB', 100, 10, 7, 110, '', '', 'r', 'p', 1, now(), now(), 50);

-- name: no_cancellation_is_in_progress
INSERT INTO line_cancellation (cancellation_id, order_id, state, actor, message, step, amount, next_attempt_time, version,
    create_time, update_time)
VALUES ('c', 'o', 'REQUESTED', 'me', '', 'refund', 50, now(), 1, now(), now());
