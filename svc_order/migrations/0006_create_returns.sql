-- Goods that come back. Its row is also the job that restocks and refunds them.
CREATE TABLE order_return (
    return_id text PRIMARY KEY,
    order_id text NOT NULL REFERENCES orders,
    user_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('REQUESTED', 'APPROVED', 'REJECTED', 'RECEIVED', 'COMPLETED', 'CANCELLED')),
    reason text NOT NULL,
    message text NOT NULL,
    step text NOT NULL,
    -- Integer minor units of the order's currency.
    refund bigint NOT NULL DEFAULT 0 CHECK (refund >= 0),
    problem text NOT NULL DEFAULT '',
    attempts int NOT NULL DEFAULT 0,
    receipts int NOT NULL DEFAULT 0,
    next_attempt_time timestamptz NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE UNIQUE INDEX order_return_open ON order_return (order_id) WHERE state IN ('REQUESTED', 'APPROVED', 'RECEIVED');
CREATE INDEX order_return_of_order ON order_return (order_id);
CREATE INDEX order_return_of_user ON order_return (user_id, create_time DESC, return_id DESC);
CREATE INDEX order_return_by_time ON order_return (create_time DESC, return_id DESC);
CREATE INDEX order_return_due ON order_return (next_attempt_time) WHERE state = 'RECEIVED';

CREATE TABLE order_return_line (
    return_id text NOT NULL REFERENCES order_return,
    position int NOT NULL,
    sku text NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    restocked int NOT NULL DEFAULT 0 CHECK (restocked >= 0),
    written_off int NOT NULL DEFAULT 0 CHECK (written_off >= 0),
    location_id text NOT NULL DEFAULT '',
    PRIMARY KEY (return_id, sku),
    CHECK (restocked + written_off <= quantity)
);

CREATE TABLE order_return_history (
    return_id text NOT NULL REFERENCES order_return,
    version bigint NOT NULL,
    state text NOT NULL,
    actor text NOT NULL,
    message text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (return_id, version)
);
