-- The webhooks that were received, so that each is applied once.
CREATE TABLE webhook (
    sender text NOT NULL,
    webhook_id text NOT NULL,
    type text NOT NULL,
    receive_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sender, webhook_id)
);
CREATE INDEX webhook_age ON webhook (receive_time);
