-- The state of the outbox's relay, in one row: which process leads, and how far it is.
CREATE TABLE relay (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    -- The process that leads until its lease expires; '' after one that left in order.
    holder text NOT NULL DEFAULT '',
    lease_expire_time timestamptz NOT NULL DEFAULT '-infinity',
    -- The places on the bus of the last events that were published before position_time; NULL before the first.
    positions jsonb,
    position_time timestamptz,
    -- Every group has acknowledged what was published before; NULL while that is not known.
    acknowledge_time timestamptz
);
