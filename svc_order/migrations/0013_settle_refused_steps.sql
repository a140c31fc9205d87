-- An operator decides about a step, or a refund, that a participant refuses for good.
ALTER TABLE saga_decision DROP CONSTRAINT saga_decision_action_check,
    ADD CONSTRAINT saga_decision_action_check CHECK (action IN ('RETRY', 'COMPENSATE', 'SETTLE', 'WRITE_OFF'));

ALTER TABLE order_return DROP CONSTRAINT order_return_state_check, ADD CONSTRAINT order_return_state_check
    CHECK (state IN ('REQUESTED', 'APPROVED', 'REJECTED', 'RECEIVED', 'COMPLETED', 'CANCELLED', 'REFUND_REFUSED'));
ALTER TABLE order_return
    -- How often a refused refund was requested once more: each request has a key of its own.
    ADD COLUMN retries int NOT NULL DEFAULT 0,
    ADD COLUMN refunded_outside boolean NOT NULL DEFAULT false;

ALTER TABLE line_cancellation DROP CONSTRAINT line_cancellation_state_check, ADD CONSTRAINT line_cancellation_state_check
    CHECK (state IN ('REQUESTED', 'COMPLETED', 'REFUND_REFUSED'));
ALTER TABLE line_cancellation ADD COLUMN retries int NOT NULL DEFAULT 0;

-- What operators decided about the refund of cancelled lines, and why. Append-only.
CREATE TABLE line_cancellation_decision (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cancellation_id text NOT NULL REFERENCES line_cancellation,
    decision text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX line_cancellation_decision_of ON line_cancellation_decision (cancellation_id, decision_id);

CREATE TRIGGER line_cancellation_decision_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON line_cancellation_decision
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
