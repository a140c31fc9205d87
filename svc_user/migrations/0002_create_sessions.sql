CREATE TABLE session (
    session_id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES account,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    end_time timestamptz,
    end_reason text CHECK (end_reason IN ('SIGNED_OUT', 'TOKEN_REUSED', 'ROLE_LOST')),
    CHECK ((end_time IS NULL) = (end_reason IS NULL))
);
CREATE INDEX session_live ON session (user_id) WHERE end_time IS NULL;
CREATE INDEX session_expiry ON session (expire_time);

CREATE TABLE refresh_token (
    token_digest bytea PRIMARY KEY CHECK (octet_length(token_digest) = 32),
    session_id text NOT NULL REFERENCES session ON DELETE CASCADE,
    create_time timestamptz NOT NULL,
    -- All three once it was exchanged; the sealed successor is wiped when its time of grace is over.
    rotate_time timestamptz,
    successor_digest bytea,
    sealed_successor bytea,
    CHECK ((rotate_time IS NULL) = (successor_digest IS NULL)),
    CHECK (sealed_successor IS NULL OR rotate_time IS NOT NULL)
);
-- Whatever happens, a session has one live token at most.
CREATE UNIQUE INDEX refresh_token_live ON refresh_token (session_id) WHERE rotate_time IS NULL;
CREATE INDEX refresh_token_session ON refresh_token (session_id);
CREATE INDEX refresh_token_sealed ON refresh_token (rotate_time) WHERE sealed_successor IS NOT NULL;

CREATE TABLE signing_key (
    key_id text PRIMARY KEY,
    public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
    sealed_private_key bytea NOT NULL,
    use_time timestamptz NOT NULL UNIQUE
);
