-- The privileged changes, each chained to the one before it by a hash.
CREATE TABLE audit (
    audit_id bigint PRIMARY KEY,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    method text NOT NULL,
    user_id text NOT NULL,
    caller text NOT NULL,
    trace_id text NOT NULL,
    -- OK, or the reason of the error that was stored as the result.
    outcome text NOT NULL,
    -- Without the fields that the contract calls sensitive.
    request jsonb NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL
);

CREATE FUNCTION audit_hash(entry audit) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(entry.previous_hash || convert_to(jsonb_build_array(entry.audit_id,
        extract(epoch FROM entry.create_time), entry.method, entry.user_id, entry.caller, entry.trace_id,
        entry.outcome, entry.request)::text, 'UTF8'))
$$;

CREATE FUNCTION chain_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last audit;
BEGIN
    -- One at a time, until the end of the transaction: the next row must see this one.
    PERFORM pg_advisory_xact_lock(1635083369);
    SELECT * INTO last FROM audit ORDER BY audit_id DESC LIMIT 1;
    NEW.audit_id := coalesce(last.audit_id, 0) + 1;
    NEW.previous_hash := coalesce(last.hash, '');
    NEW.hash := audit_hash(NEW);
    RETURN NEW;
END $$;
CREATE TRIGGER audit_chain BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION chain_audit();

CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
