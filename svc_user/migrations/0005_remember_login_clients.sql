-- Addresses and devices that an email address has signed in from: digests of both together.
CREATE TABLE login_client (
    client_digest bytea PRIMARY KEY CHECK (octet_length(client_digest) = 32),
    login_time timestamptz NOT NULL
);
CREATE INDEX login_client_age ON login_client (login_time);
