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
    ('LABELLED', 'FAILED'), ('PICKED_UP', 'FAILED'), ('IN_TRANSIT', 'FAILED'), ('OUT_FOR_DELIVERY', 'FAILED'),
    ('FAILED', 'IN_TRANSIT'), ('FAILED', 'RETURNED')
);

-- eventually: no_dispatch_is_pending I09
-- Every dispatch job has ended: the courier accepted or rejected the parcel.
SELECT order_id, attempts, next_attempt_time FROM dispatch;

-- copy: booking
-- The slot of each order.
SELECT order_id, slot_id, state FROM booking;

-- copy: shipment
-- The shipment of each order.
SELECT shipment_id, order_id, user_id, state, consignment_id FROM shipment;
