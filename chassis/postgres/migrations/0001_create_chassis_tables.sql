-- What every service keeps beside its own tables.

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    topic text NOT NULL,
    key text NOT NULL,
    type text NOT NULL,
    payload bytea NOT NULL,
    traceparent text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    publish_time timestamptz
);
CREATE INDEX outbox_unpublished ON outbox (id) WHERE publish_time IS NULL;
CREATE INDEX outbox_published ON outbox (publish_time) WHERE publish_time IS NOT NULL;

CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    apply_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_age ON inbox (apply_time);

CREATE TABLE dead_letter (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    key text NOT NULL,
    type text NOT NULL,
    payload bytea NOT NULL,
    traceparent text NOT NULL DEFAULT '',
    attempts int NOT NULL,
    error text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    redrive_time timestamptz,
    PRIMARY KEY (consumer, event_id)
);

CREATE TABLE idempotency (
    principal text NOT NULL,
    method text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    -- Exactly one of the two once the transaction that claimed the key has committed.
    response bytea,
    refusal bytea,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, method, key),
    CHECK (response IS NULL OR refusal IS NULL)
);
CREATE INDEX idempotency_age ON idempotency (create_time);
