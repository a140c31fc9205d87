CREATE TABLE account (
    user_id text PRIMARY KEY,
    email text NOT NULL UNIQUE CHECK (email = lower(email)),
    password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
    registration_id text NOT NULL,
    display_name text NOT NULL,
    phone text NOT NULL,
    roles text[] NOT NULL CHECK (
        roles <@ ARRAY['customer', 'courier', 'staff', 'admin'] AND cardinality(roles) > 0
    ),
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX account_admin ON account (user_id) WHERE 'admin' = ANY (roles);

-- Who gave and took roles. Kept for as long as the shop is.
CREATE TABLE role_change (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL REFERENCES account,
    actor text NOT NULL,
    roles_before text[] NOT NULL,
    roles_after text[] NOT NULL,
    traceparent text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX role_change_user ON role_change (user_id, change_id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER role_change_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON role_change
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row for an email address that somebody tries to sign in with, whether an account has it or not.
CREATE TABLE login_throttle (
    email_digest bytea PRIMARY KEY CHECK (octet_length(email_digest) = 32),
    failures int NOT NULL CHECK (failures >= 0),
    retry_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX login_throttle_age ON login_throttle (update_time);
