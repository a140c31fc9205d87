CREATE TABLE orders (
    order_id text PRIMARY KEY,
    user_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'COMPLETED', 'REJECTED',
        'CANCELLED', 'RETURN_REQUESTED', 'RETURNED')),
    state_reason text NOT NULL DEFAULT '',
    payment_state text NOT NULL,
    fulfillment_state text NOT NULL,
    currency char(3) NOT NULL,
    -- Integer minor units, here and in order_line.
    subtotal bigint NOT NULL CHECK (subtotal >= 0),
    shipping_fee bigint NOT NULL CHECK (shipping_fee >= 0),
    tax_total bigint NOT NULL CHECK (tax_total >= 0),
    total bigint NOT NULL CHECK (total > 0 AND total = subtotal + shipping_fee),
    shipping_address bytea NOT NULL,
    slot_id text NOT NULL,
    reservation_id text NOT NULL UNIQUE,
    payment_id text NOT NULL UNIQUE,
    shipment_id text NOT NULL DEFAULT '',
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX orders_of_user ON orders (user_id, create_time DESC, order_id DESC);
CREATE INDEX orders_by_time ON orders (create_time DESC, order_id DESC);
CREATE INDEX orders_delivered ON orders (update_time) WHERE state = 'DELIVERED';

CREATE TABLE order_line (
    order_id text NOT NULL REFERENCES orders,
    position int NOT NULL,
    sku text NOT NULL,
    product_id text NOT NULL,
    name text NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    unit_price bigint NOT NULL CHECK (unit_price >= 0),
    tax_rate_basis_points int NOT NULL,
    tax bigint NOT NULL CHECK (tax >= 0),
    total bigint NOT NULL CHECK (total = unit_price * quantity),
    weight_grams int NOT NULL,
    PRIMARY KEY (order_id, position),
    UNIQUE (order_id, sku)
);

CREATE TABLE order_history (
    order_id text NOT NULL REFERENCES orders,
    version bigint NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    reason text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (order_id, version)
);

CREATE TABLE saga (
    saga_id text PRIMARY KEY,
    order_id text NOT NULL UNIQUE REFERENCES orders,
    state text NOT NULL CHECK (state IN ('RUNNING', 'DONE', 'COMPENSATING', 'COMPENSATED', 'PARKED')),
    step text NOT NULL,
    attempts int NOT NULL,
    -- How often a person set it going again.
    retries int NOT NULL DEFAULT 0,
    next_attempt_time timestamptz NOT NULL,
    reason text NOT NULL DEFAULT '',
    cancel_reason text NOT NULL DEFAULT '',
    parked_from text,
    version bigint NOT NULL,
    traceparent text NOT NULL DEFAULT '',
    -- The provider's token for the customer's payment method; forgotten when the saga ends.
    payment_method_token text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX saga_due ON saga (next_attempt_time) WHERE state IN ('RUNNING', 'COMPENSATING');
CREATE INDEX saga_by_time ON saga (create_time, saga_id);

CREATE TABLE saga_step (
    saga_id text NOT NULL REFERENCES saga,
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('RUNNING', 'DONE', 'REFUSED', 'UNKNOWN', 'COMPENSATED')),
    attempts int NOT NULL,
    reason text NOT NULL DEFAULT '',
    start_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    end_time timestamptz,
    PRIMARY KEY (saga_id, name)
);
