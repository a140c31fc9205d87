-- always: everything_belongs_to_an_order I15
-- Every reservation, payment, booking and shipment belongs to an existing order.
SELECT 'reservation' AS what, reservation_id AS id, order_id FROM reservation
WHERE NOT EXISTS (SELECT 1 FROM orders WHERE orders.reservation_id = reservation.reservation_id
    AND orders.order_id = reservation.order_id)
UNION ALL
SELECT 'payment', payment_id, order_id FROM payment
WHERE NOT EXISTS (SELECT 1 FROM orders WHERE orders.order_id = payment.order_id AND orders.user_id = payment.user_id
    AND (orders.payment_id = payment.payment_id OR payment.state IN ('FAILED', 'EXPIRED', 'VOIDED')))
UNION ALL
SELECT 'booking', slot_id, order_id FROM booking
WHERE NOT EXISTS (SELECT 1 FROM orders WHERE orders.order_id = booking.order_id)
UNION ALL
SELECT 'shipment', shipment_id, order_id FROM shipment
WHERE NOT EXISTS (SELECT 1 FROM orders WHERE orders.order_id = shipment.order_id);

-- eventually: ordered_units_are_allocated I08
-- The lines of a confirmed order equal what its reservation holds or has shipped, for each SKU.
SELECT order_id, sku, sum(bought) AS bought, sum(allocated) AS allocated FROM (
    SELECT order_id, sku, quantity AS bought, 0 AS allocated FROM line JOIN orders USING (order_id)
    WHERE state IN ('CONFIRMED', 'SHIPPED', 'DELIVERED', 'COMPLETED', 'RETURN_REQUESTED', 'RETURNED')
    UNION ALL
    SELECT order_id, sku, 0, quantity FROM allocation JOIN reservation USING (reservation_id)
    WHERE state IN ('CONFIRMED', 'FULFILLED')
) GROUP BY order_id, sku HAVING sum(bought) <> sum(allocated);

-- eventually: cancelled_order_holds_nothing I13
-- A rejected or cancelled order holds no stock, no funds and no slot, and no parcel of it is under way.
SELECT orders.order_id, orders.state, saga_state, reservation.state AS reservation, payment.state AS payment,
    booking.state AS booking, shipment.state AS shipment
FROM orders
LEFT JOIN reservation USING (reservation_id)
LEFT JOIN payment USING (payment_id)
LEFT JOIN booking ON booking.order_id = orders.order_id
LEFT JOIN shipment ON shipment.order_id = orders.order_id AND shipment.state NOT IN ('CANCELLED', 'RETURNED')
WHERE orders.state IN ('REJECTED', 'CANCELLED') AND NOT settled AND (
    reservation.state IN ('HELD', 'CONFIRMED', 'FULFILLED')
    OR payment.state IN ('PROCESSING', 'REQUIRES_ACTION', 'AUTHORIZED', 'CAPTURED', 'PARTIALLY_REFUNDED')
    OR booking.state = 'BOOKED' OR shipment.shipment_id IS NOT NULL
);

-- eventually: confirmed_order_has_everything I14
-- A confirmed order has its stock, its full amount authorized or captured, and the slot that it requested.
SELECT orders.order_id, orders.state, payment_amount, orders.currency, reservation.state AS reservation, payment.state AS payment,
    amount, authorized, captured, booking.state AS booking
FROM orders
LEFT JOIN reservation USING (reservation_id)
LEFT JOIN payment USING (payment_id)
LEFT JOIN booking ON booking.order_id = orders.order_id
WHERE orders.state IN ('CONFIRMED', 'SHIPPED', 'DELIVERED', 'COMPLETED') AND NOT settled AND (
    reservation.state IS NULL OR reservation.state NOT IN ('CONFIRMED', 'FULFILLED')
    OR payment.state IS NULL OR payment.amount <> payment_amount OR payment.currency <> orders.currency
    OR payment.authorized <> payment_amount OR payment.void_requested
    OR orders.slot_id <> '' AND (booking.state IS NOT 'BOOKED' OR booking.slot_id <> orders.slot_id)
);

-- eventually: shipped_order_is_paid I14
-- The payment is captured when the parcel leaves, or earlier and without cancelled lines if it is a paid slip; the
-- reservation is fulfilled then too.
SELECT orders.order_id, orders.state, saga_state, payment.state AS payment, captured, total, reservation.state AS reservation
FROM orders LEFT JOIN payment USING (payment_id) LEFT JOIN reservation USING (reservation_id)
WHERE NOT settled AND (orders.state IN ('SHIPPED', 'DELIVERED', 'COMPLETED')
        AND payment.captured IS NOT (CASE WHEN captured_at_once THEN payment_amount ELSE total END)
    OR orders.state = 'CONFIRMED' AND saga_state = 'RUNNING' AND payment.captured > 0 AND NOT captured_at_once
    OR saga_state = 'DONE' AND reservation.state IS NOT 'FULFILLED');

-- eventually: shipment_and_order_agree I14 I25
-- A shipped order has a shipment in the same state, and no other one is under way; no order is SHIPPED whose parcel is back.
SELECT orders.order_id, orders.state, fulfillment_state, orders.shipment_id, shipment.shipment_id AS found,
    shipment.state AS shipment
FROM orders LEFT JOIN shipment USING (shipment_id)
WHERE orders.shipment_id <> '' AND shipment.order_id IS NOT orders.order_id
    OR EXISTS (SELECT 1 FROM shipment AS other WHERE other.order_id = orders.order_id
        AND other.shipment_id <> orders.shipment_id AND other.state NOT IN ('CANCELLED', 'RETURNED'))
    OR orders.state IN ('SHIPPED', 'DELIVERED', 'COMPLETED') AND shipment.order_id IS NULL
    OR orders.state IN ('DELIVERED', 'COMPLETED') AND shipment.state <> 'DELIVERED'
    OR orders.state = 'SHIPPED' AND shipment.state IN ('DELIVERED', 'RETURNED', 'CANCELLED')
    OR orders.state = 'CONFIRMED' AND saga_state = 'RUNNING'
        AND shipment.state NOT IN ('CREATED', 'LABELLED', 'FAILED');

-- eventually: payment_state_agrees I15 I25
-- The payment state of an order agrees with its payment.
SELECT orders.order_id, payment_state, payment.state AS payment FROM orders LEFT JOIN payment USING (payment_id)
WHERE saga_state <> 'PARKED' AND NOT settled AND orders.state <> 'PENDING' AND payment_state IS NOT (CASE payment.state
    WHEN 'AUTHORIZED' THEN 'AUTHORIZED' WHEN 'CAPTURED' THEN 'PAID'
    WHEN 'DISPUTED' THEN 'DISPUTED' WHEN 'CHARGED_BACK' THEN 'CHARGED_BACK'
    WHEN 'PARTIALLY_REFUNDED' THEN 'PARTIALLY_REFUNDED' WHEN 'REFUNDED' THEN 'REFUNDED' ELSE 'UNPAID' END);

-- eventually: returns_are_refunded I15
-- A payment has refunded at least what the completed returns and cancellations of its order refund.
SELECT refund.order_id, sum(refund) AS owed, refunded FROM refund JOIN payment ON payment.order_id = refund.order_id
GROUP BY refund.order_id HAVING sum(refund) > max(refunded);

-- eventually: payments_and_provider_agree I15 I17
-- The amounts of a payment equal those of the provider's ledger, to the minor unit.
SELECT reference, state, authorized, their_authorized, captured, their_captured, refunded, their_refunded, their_voided
FROM (
    SELECT reference,
        coalesce(sum(amount) FILTER (WHERE kind IN ('authorized', 'reauthorized')), 0)
            - coalesce(sum(amount) FILTER (WHERE kind = 'expired'), 0) AS their_authorized,
        coalesce(sum(amount) FILTER (WHERE kind = 'captured'), 0) AS their_captured,
        coalesce(sum(amount) FILTER (WHERE kind = 'refunded'), 0) AS their_refunded,
        coalesce(sum(amount) FILTER (WHERE kind = 'voided'), 0) AS their_voided
    FROM charge GROUP BY reference
) AS ledger LEFT JOIN payment ON payment.payment_id = reference
WHERE payment.payment_id IS NULL OR captured <> their_captured OR refunded <> their_refunded
    -- An authorization that is not what was requested is voided at the provider and recorded as failed.
    OR (authorized <> their_authorized OR their_voided > 0 AND state <> 'VOIDED')
        AND NOT (state = 'FAILED' AND authorized = 0 AND their_voided = their_authorized);

-- eventually: currencies_agree I15
-- The provider charges payments in their own currency.
SELECT reference, charge.currency AS theirs, payment.currency FROM charge JOIN payment ON payment_id = reference
WHERE charge.currency <> payment.currency AND payment.state <> 'FAILED';

-- eventually: provider_knows_our_payments I15
-- Every authorized or captured payment is in the provider's ledger.
SELECT payment_id, state, authorized, captured FROM payment
WHERE authorized > 0
    AND NOT EXISTS (SELECT 1 FROM charge WHERE reference = payment_id AND kind IN ('authorized', 'reauthorized'));

-- always: no_order_is_paid_twice I15
-- The provider authorized and voided each payment at most once, and captured at most one payment for each order.
SELECT reference, kind, count(*) AS times FROM charge
WHERE kind IN ('authorized', 'voided') GROUP BY reference, kind HAVING count(*) > 1
UNION ALL
SELECT order_id, kind, count(*) FROM charge JOIN payment ON payment_id = reference
WHERE kind = 'captured' GROUP BY order_id, kind HAVING count(*) > 1;

-- eventually: courier_and_shipments_agree I15
-- The courier has exactly the parcels of our shipments.
SELECT shipment_id, state, shipment.consignment_id, parcel.consignment_id AS found FROM shipment
LEFT JOIN parcel ON reference = shipment_id
WHERE shipment.consignment_id <> '' AND parcel.consignment_id IS NOT shipment.consignment_id
UNION ALL
SELECT reference, status, '', parcel.consignment_id FROM parcel
WHERE NOT EXISTS (SELECT 1 FROM shipment WHERE shipment_id = reference);

-- eventually: orders_applied_every_event I24
-- Every event of delivery and payment about an order was applied by svc_order or dead-lettered.
SELECT event_id, type, key FROM event
WHERE type IN ('shop.delivery.v1.ShipmentStatusChanged', 'shop.payment.v1.PaymentAuthorized',
        'shop.payment.v1.PaymentCaptured', 'shop.payment.v1.PaymentRefunded', 'shop.payment.v1.PaymentVoided',
        'shop.payment.v1.PaymentFailed', 'shop.payment.v1.PaymentExpired', 'shop.payment.v1.PaymentDisputed',
        'shop.payment.v1.PaymentDisputeClosed')
    AND event_id NOT IN (SELECT event_id FROM applied WHERE consumer = 'svc_order')
    AND event_id NOT IN (SELECT event_id FROM dead_lettered WHERE consumer = 'svc_order');

-- always: events_are_applied_in_order I25
-- A consumer applied the events of an aggregate in the order of their outbox, but for those that were redriven.
SELECT consumer, topic, key, event_id, type, position FROM (
    SELECT consumer, topic, key, event_id, type, position, apply_time, max(apply_time) OVER (
        PARTITION BY consumer, topic, key ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last
    FROM applied JOIN event USING (event_id) WHERE NOT EXISTS (
        SELECT 1 FROM dead_lettered WHERE dead_lettered.event_id = applied.event_id
            AND dead_lettered.consumer = applied.consumer)
) AS effects WHERE apply_time < last;

-- eventually: applied_events_were_committed I22
-- Every event that a consumer applied is in the outbox of a service: its change was committed.
SELECT consumer, event_id FROM applied WHERE recent AND event_id NOT IN (SELECT event_id FROM event);

-- eventually: published_events_are_on_the_bus I22
-- Every event that is marked as published is on the bus, but for those before the first that the bus still has.
SELECT event_id, event.topic, event.key, type, position FROM event
JOIN (SELECT event.topic, min(position) AS first FROM event JOIN published USING (event_id) GROUP BY event.topic) AS stored
    ON stored.topic = event.topic
WHERE event.published AND position >= first AND event_id NOT IN (SELECT event_id FROM published);

-- always: bus_has_only_committed_events I22
-- Every event on the bus is in the outbox of a service: nothing was published before its commit.
SELECT event_id, topic, key FROM published WHERE expected AND event_id NOT IN (SELECT event_id FROM event);

-- always: published_stock_is_the_level I02
-- The last published available units of a SKU are those on hand without the allocated, reserved and safety ones.
SELECT sku, location_id, level.version, level.available, stock_changed.available AS published
FROM stock_changed JOIN level USING (sku, location_id, version) WHERE level.available <> stock_changed.available;
