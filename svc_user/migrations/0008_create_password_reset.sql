-- The last request for a new password of an email address, whether an account has it or not, and the job that sends its
-- message. The address and the code are stored as digests; sealed ones until the message is sent.
CREATE TABLE password_reset (
    email_digest bytea PRIMARY KEY CHECK (octet_length(email_digest) = 32),
    requests int NOT NULL CHECK (requests > 0),
    request_time timestamptz NOT NULL,
    sealed_email bytea,
    user_id text,
    code_digest bytea CHECK (octet_length(code_digest) = 32),
    sealed_code bytea,
    expire_time timestamptz,
    tries int NOT NULL DEFAULT 0 CHECK (tries >= 0),
    traceparent text NOT NULL,
    attempts int NOT NULL DEFAULT 0,
    next_attempt_time timestamptz,
    CHECK ((code_digest IS NULL) = (user_id IS NULL)),
    CHECK ((code_digest IS NULL) = (expire_time IS NULL)),
    CHECK ((next_attempt_time IS NULL) = (sealed_email IS NULL))
);
CREATE INDEX password_reset_due ON password_reset (next_attempt_time) WHERE next_attempt_time IS NOT NULL;
CREATE INDEX password_reset_age ON password_reset (request_time);
