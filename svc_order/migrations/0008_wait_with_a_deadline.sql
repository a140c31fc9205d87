-- The order must be confirmed by then; what has no outcome is undone.
ALTER TABLE saga ADD COLUMN deadline timestamptz NOT NULL DEFAULT now() + interval '15 minutes',
    -- Whether an attempt was begun whose result is not written yet.
    ADD COLUMN executing boolean NOT NULL DEFAULT false,
    -- Whether the order waits for RetryPayment after a decline.
    ADD COLUMN keep_on_decline boolean NOT NULL DEFAULT false;

-- Until when a customer or the provider can still pay for the order.
ALTER TABLE orders ADD COLUMN payment_due_time timestamptz,
    -- update_time moves on with every refund.
    ADD COLUMN delivered_time timestamptz;
UPDATE orders SET delivered_time = arrival.create_time FROM order_history AS arrival
WHERE arrival.order_id = orders.order_id AND arrival.to_state = 'DELIVERED';
