-- name: read_now
-- Reads the database's clock, by which everything here expires.
SELECT now();

-- name: insert_account
-- Inserts an account unless the email address has one.
INSERT INTO account (user_id, email, password_hash, registration_id, display_name, phone, roles, version,
    create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (email) DO NOTHING RETURNING *;

-- name: find_account
-- Finds the account of an email address.
SELECT * FROM account WHERE email = $1;

-- name: read_account
-- Reads an account.
SELECT * FROM account WHERE user_id = $1;

-- name: read_signed_in
-- Reads the account of a session that lives.
SELECT account.* FROM account JOIN session USING (user_id)
WHERE session_id = $1 AND user_id = $2 AND end_time IS NULL AND expire_time > now();

-- name: lock_account
-- Locks an account, and with it the user's address book.
SELECT * FROM account WHERE user_id = $1 FOR NO KEY UPDATE;

-- name: lock_account_and_admins
-- Locks an account and those of all admins, in one order, so that two admins cannot lose the role by each other at once.
SELECT * FROM account WHERE user_id = $1 OR 'admin' = ANY (roles) ORDER BY user_id FOR NO KEY UPDATE;

-- name: update_account
-- Replaces what may change of an account that this transaction has locked.
UPDATE account SET display_name = $2, phone = $3, roles = $4, version = $5, update_time = $6 WHERE user_id = $1;

-- name: update_password_hash
-- Replaces a password's hash by another of the same password.
UPDATE account SET password_hash = $2 WHERE user_id = $1;

-- name: insert_role_change
-- Appends to the record of role changes.
INSERT INTO role_change (user_id, actor, roles_before, roles_after, traceparent) VALUES ($1, $2, $3, $4, $5);

-- name: lock_throttle
-- Locks the count of attempts with an email address, which it begins where there is none.
INSERT INTO login_throttle (email_digest, failures, retry_time, update_time) VALUES ($1, 0, now(), now())
ON CONFLICT (email_digest) DO UPDATE SET update_time = now() RETURNING *;

-- name: update_throttle
-- Writes a count that this transaction has locked.
UPDATE login_throttle SET failures = $2, retry_time = $3 WHERE email_digest = $1;

-- name: delete_throttle
-- Forgets the attempts with an email address.
DELETE FROM login_throttle WHERE email_digest = $1;

-- name: insert_session
-- Begins a session.
INSERT INTO session (session_id, user_id, create_time, expire_time) VALUES ($1, $2, $3, $4);

-- name: lock_session_of_token
-- Locks the session that a refresh token belongs to.
SELECT session.* FROM session JOIN refresh_token USING (session_id) WHERE token_digest = $1 FOR UPDATE OF session;

-- name: extend_session
-- Puts off when a session expires.
UPDATE session SET expire_time = $2 WHERE session_id = $1;

-- name: end_session
-- Ends a session.
UPDATE session SET end_time = now(), end_reason = $2 WHERE session_id = $1 AND end_time IS NULL;

-- name: end_sessions
-- Ends all sessions of a user.
UPDATE session SET end_time = now(), end_reason = $2 WHERE user_id = $1 AND end_time IS NULL;

-- name: read_token
-- Reads a refresh token, and whether its successor was exchanged too.
SELECT token.rotate_time, token.sealed_successor, successor.rotate_time IS NOT NULL AS successor_rotated
FROM refresh_token token LEFT JOIN refresh_token successor ON successor.token_digest = token.successor_digest
WHERE token.token_digest = $1;

-- name: insert_token
-- Inserts the live token of a session.
INSERT INTO refresh_token (token_digest, session_id, create_time) VALUES ($1, $2, now());

-- name: rotate_token
-- Ends a token's time in favour of its successor.
UPDATE refresh_token SET rotate_time = now(), successor_digest = $2, sealed_successor = $3 WHERE token_digest = $1;

-- name: wipe_successors
-- Wipes sealed successors whose time of grace is over: nothing opens them any more.
UPDATE refresh_token SET sealed_successor = NULL WHERE sealed_successor IS NOT NULL AND rotate_time < now() - $1::interval;

-- name: delete_sessions
-- Deletes sessions that expired some time ago, with their tokens.
DELETE FROM session WHERE expire_time < now() - interval '7 days';

-- name: delete_throttles
-- Forgets attempts that nobody followed up for a day.
DELETE FROM login_throttle WHERE update_time < now() - interval '1 day';

-- name: lock_keys
-- Lets one process at a time make and retire signing keys.
SELECT pg_advisory_xact_lock(hashtext('svc_user.signing_key'));

-- name: list_keys
-- Lists all signing keys in the order in which they sign.
SELECT * FROM signing_key ORDER BY use_time;

-- name: insert_key
-- Inserts a signing key.
INSERT INTO signing_key (key_id, public_key, sealed_private_key, use_time) VALUES ($1, $2, $3, $4);

-- name: delete_keys
-- Deletes signing keys none of whose tokens can still be valid.
DELETE FROM signing_key WHERE key_id = ANY ($1::text[]);

-- name: list_addresses
-- Lists the address book of a user, the oldest first.
SELECT * FROM address WHERE user_id = $1 ORDER BY position;

-- name: insert_address
-- Adds an entry to an address book.
INSERT INTO address (address_id, user_id, label, recipient, phone, line1, line2, city, region, postal_code,
    country_code, is_default, version, create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: update_address
-- Replaces an entry of an address book.
UPDATE address SET label = $3, recipient = $4, phone = $5, line1 = $6, line2 = $7, city = $8, region = $9,
    postal_code = $10, country_code = $11, is_default = $12, version = $13, create_time = $14, update_time = $15
WHERE address_id = $1 AND user_id = $2;

-- name: delete_addresses
-- Deletes entries of an address book.
DELETE FROM address WHERE user_id = $1 AND address_id = ANY ($2::text[]);
