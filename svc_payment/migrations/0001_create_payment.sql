CREATE TABLE payment (
    payment_id text PRIMARY KEY,
    order_id text NOT NULL UNIQUE,
    user_id text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    -- What the provider calls the customer's payment method. Never a card number: those exist nowhere here.
    token text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('PROCESSING', 'AUTHORIZED', 'CAPTURED', 'PARTIALLY_REFUNDED', 'REFUNDED', 'VOIDED', 'FAILED')),
    -- Sums over the entries that succeeded.
    authorized bigint NOT NULL DEFAULT 0,
    captured bigint NOT NULL DEFAULT 0,
    refunded bigint NOT NULL DEFAULT 0,
    provider text NOT NULL,
    provider_id text,
    give_up_time timestamptz,
    give_up_reason text NOT NULL DEFAULT '',
    attempts int NOT NULL DEFAULT 0,
    -- When the provider is asked next, by whichever process comes first; NULL when there is nothing to ask.
    next_attempt_time timestamptz,
    -- What the provider said last instead of an outcome.
    trouble text NOT NULL DEFAULT '',
    -- Counts the events of this payment.
    version bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider, provider_id),
    -- The last line: holds even if all code above it is wrong.
    CONSTRAINT never_overcharged CHECK (authorized BETWEEN 0 AND amount AND captured BETWEEN 0 AND authorized),
    CONSTRAINT never_overpaid_back CHECK (refunded BETWEEN 0 AND captured)
);
CREATE INDEX payment_due ON payment (next_attempt_time) WHERE next_attempt_time IS NOT NULL;

CREATE TABLE entry (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id text NOT NULL REFERENCES payment,
    operation_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('AUTHORIZATION', 'CHARGE', 'REFUND', 'CANCEL')),
    outcome text NOT NULL CHECK (outcome IN ('REQUEST', 'SUCCESS', 'FAILURE')),
    amount bigint NOT NULL CHECK (amount > 0),
    provider text NOT NULL,
    -- The provider's id of what it did: what is told twice is recorded once.
    reference text,
    reason text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider, reference, kind)
);
CREATE INDEX entry_payment ON entry (payment_id, entry_id);
-- An operation is asked for once, and ends once.
CREATE UNIQUE INDEX entry_asks_once ON entry (payment_id, operation_id) WHERE outcome = 'REQUEST';
CREATE UNIQUE INDEX entry_ends_once ON entry (payment_id, operation_id) WHERE outcome <> 'REQUEST';

-- What payment methods look like, as the provider said when they were validated.
CREATE TABLE method (
    token text PRIMARY KEY,
    kind text NOT NULL,
    brand text NOT NULL,
    last4 text NOT NULL CHECK (last4 ~ '^[0-9]{0,4}$')
);

-- Payments that were given up before they were begun: a request that arrives late begins them no more.
CREATE TABLE given_up (
    payment_id text PRIMARY KEY,
    reason text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);

-- The provider's webhooks, each counted once.
CREATE TABLE provider_event (
    event_id text PRIMARY KEY,
    type text NOT NULL,
    payment_id text NOT NULL,
    receive_time timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
