-- always: never_overbooked I27
-- The booked count of a slot is at most its capacity and equals its bookings.
SELECT slot_id, capacity, booked, bookings FROM slot
LEFT JOIN (SELECT slot_id, count(*) AS bookings FROM booking WHERE state = 'BOOKED' GROUP BY slot_id) AS sums
    USING (slot_id)
WHERE booked NOT BETWEEN 0 AND capacity OR booked <> coalesce(bookings, 0);

-- always: slot_changes_are_counted I05
-- The version of a slot counts its bookings and cancellations: no update was lost.
SELECT slot_id, version, changes FROM slot
LEFT JOIN (SELECT slot_id, sum(version) AS changes FROM booking GROUP BY slot_id) AS sums USING (slot_id)
WHERE version <> 1 + coalesce(changes, 0);

-- always: shipment_history_is_whole I11
-- A shipment has a history of all its versions, and the last one is its state.
SELECT shipment_id, version, updates, state, last FROM shipment
LEFT JOIN (
    SELECT shipment_id, count(*) AS updates, max(version) AS newest,
        (array_agg(state ORDER BY version DESC))[1] AS last
    FROM shipment_update GROUP BY shipment_id
) AS history USING (shipment_id)
WHERE version IS DISTINCT FROM updates OR version IS DISTINCT FROM newest OR state IS DISTINCT FROM last;

-- always: shipment_transitions_are_legal I11
-- Every transition of a shipment is legal.
SELECT shipment_id, version, before, state FROM (
    SELECT *, lag(state, 1, '') OVER (PARTITION BY shipment_id ORDER BY version) AS before FROM shipment_update
) AS transitions
WHERE (before, state) NOT IN (
    ('', 'CREATED'), ('CREATED', 'LABELLED'), ('LABELLED', 'PICKED_UP'), ('PICKED_UP', 'IN_TRANSIT'),
    ('IN_TRANSIT', 'OUT_FOR_DELIVERY'), ('OUT_FOR_DELIVERY', 'DELIVERED'), ('CREATED', 'FAILED'),
    ('CREATED', 'CANCELLED'), ('LABELLED', 'CANCELLED'), ('FAILED', 'CANCELLED'), ('LABELLED', 'FAILED'), ('PICKED_UP', 'FAILED'), ('IN_TRANSIT', 'FAILED'), ('OUT_FOR_DELIVERY', 'FAILED'),
    ('FAILED', 'IN_TRANSIT'), ('FAILED', 'RETURNED')
);

-- always: cancelled_shipment_was_never_picked_up I11
-- The courier never had the parcel of a cancelled shipment.
SELECT shipment_id, state FROM shipment
WHERE state = 'CANCELLED' AND (picked_up OR EXISTS (
    SELECT FROM shipment_update AS earlier WHERE earlier.shipment_id = shipment.shipment_id
        AND earlier.state IN ('PICKED_UP', 'IN_TRANSIT', 'OUT_FOR_DELIVERY', 'DELIVERED')
));

-- always: order_has_one_parcel_under_way I11
-- Of the shipments of an order, at most one is neither cancelled nor returned.
SELECT order_id, count(*) AS shipments FROM shipment WHERE state NOT IN ('CANCELLED', 'RETURNED')
GROUP BY order_id HAVING count(*) > 1;

-- eventually: no_dispatch_is_pending I09
-- Every dispatch job has ended: the courier accepted, rejected or cancelled the parcel.
SELECT order_id, attempts, next_attempt_time FROM dispatch;

-- copy: booking
-- The slot of each order.
SELECT order_id, slot_id, state FROM booking;

-- copy: shipment
-- The shipments of the orders.
SELECT shipment_id, order_id, user_id, state, consignment_id FROM shipment;
