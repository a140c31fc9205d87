-- Promised units that a count did not find. Reservations never add to it, so that the check stays the last line
-- against overselling.
ALTER TABLE stock ADD COLUMN shortfall int NOT NULL DEFAULT 0 CHECK (shortfall >= 0);
ALTER TABLE stock DROP CONSTRAINT never_oversold,
    ADD CONSTRAINT never_oversold CHECK (allocated + reserved <= on_hand + shortfall);

-- What AdjustStock did. Its id, of actor and request_id, is the idempotency key and is kept for ever.
CREATE TABLE adjustment (
    adjustment_id text PRIMARY KEY,
    -- [sku, location_id, delta] of each level, in key order.
    lines jsonb NOT NULL,
    reason text NOT NULL
        CHECK (reason IN ('RECEIVED', 'DAMAGED', 'LOST', 'RETURNED', 'CORRECTION', 'WRITTEN_OFF')),
    reference text NOT NULL,
    actor text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE TRIGGER adjustment_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON adjustment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE movement ADD COLUMN adjustment_id text NOT NULL DEFAULT '';
