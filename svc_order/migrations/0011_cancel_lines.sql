-- By how much cancelled lines have reduced the total, in minor units: the payment is authorized for the sum of both.
-- NULL for an order with all its lines.
ALTER TABLE orders ADD COLUMN cancelled_amount bigint;

-- Cancelled units of an order. Its row is also the job that releases their stock and refunds them.
CREATE TABLE line_cancellation (
    cancellation_id text PRIMARY KEY,
    order_id text NOT NULL REFERENCES orders,
    state text NOT NULL CHECK (state IN ('REQUESTED', 'COMPLETED')),
    actor text NOT NULL,
    message text NOT NULL,
    step text NOT NULL,
    -- Integer minor units of the order's currency, here and in its lines.
    amount bigint NOT NULL CHECK (amount >= 0),
    refund bigint NOT NULL DEFAULT 0 CHECK (refund IN (0, amount)),
    problem text NOT NULL DEFAULT '',
    attempts int NOT NULL DEFAULT 0,
    next_attempt_time timestamptz NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX line_cancellation_of_order ON line_cancellation (order_id, create_time);
CREATE INDEX line_cancellation_due ON line_cancellation (next_attempt_time) WHERE state = 'REQUESTED';

CREATE TABLE line_cancellation_line (
    cancellation_id text NOT NULL REFERENCES line_cancellation,
    position int NOT NULL,
    sku text NOT NULL,
    name text NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    unit_price bigint NOT NULL CHECK (unit_price >= 0),
    PRIMARY KEY (cancellation_id, sku)
);
