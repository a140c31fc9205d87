-- The part that all refresh tokens of a session share, as a digest; NULL for sessions of before.
ALTER TABLE session ADD COLUMN family_digest bytea CHECK (octet_length(family_digest) = 32);
CREATE UNIQUE INDEX session_family ON session (family_digest) WHERE family_digest IS NOT NULL;
