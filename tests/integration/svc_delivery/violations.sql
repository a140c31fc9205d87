-- name: cancelled_shipment_was_never_picked_up
INSERT INTO shipment (shipment_id, order_id, user_id, state, shipping_address, slot_id, weight_grams, version,
    create_time, update_time, picked_up)
VALUES ('s', 'o', 'u', 'CANCELLED', '', '', 1, 3, now(), now(), true);

-- name: order_has_one_parcel_under_way
DROP INDEX shipment_under_way;
INSERT INTO shipment (shipment_id, order_id, user_id, state, shipping_address, slot_id, weight_grams, version,
    create_time, update_time)
VALUES ('s', 'o', 'u', 'LABELLED', '', '', 1, 2, now(), now()), ('t', 'o', 'u', 'FAILED', '', '', 1, 2, now(), now());
