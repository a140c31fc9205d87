-- What operators decided about a saga, and why. Append-only.
CREATE TABLE saga_decision (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    saga_id text NOT NULL REFERENCES saga,
    action text NOT NULL CHECK (action IN ('RETRY', 'COMPENSATE')),
    actor text NOT NULL,
    reason text NOT NULL,
    step text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX saga_decision_of_saga ON saga_decision (saga_id, decision_id);

CREATE TRIGGER saga_decision_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON saga_decision
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
