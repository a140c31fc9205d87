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

-- name: read_account_of_session
-- Reads the account of a session that has neither ended nor expired.
SELECT account.* FROM account JOIN session USING (user_id)
WHERE session_id = $1 AND user_id = $2 AND end_time IS NULL AND expire_time > now();

-- name: lock_account
-- Locks an account, and with it the user's address book.
SELECT * FROM account WHERE user_id = $1 FOR NO KEY UPDATE;

-- name: lock_account_and_admins
-- Locks an account and all admins, in key order: two admins cannot demote each other at the same time.
SELECT * FROM account WHERE user_id = $1 OR 'admin' = ANY (roles) ORDER BY user_id FOR NO KEY UPDATE;

-- name: update_account
-- Replaces the mutable columns of an account that this transaction has locked.
UPDATE account SET display_name = $2, phone = $3, roles = $4, version = $5, update_time = $6 WHERE user_id = $1;

-- name: update_password_hash
-- Replaces the hash of a password.
UPDATE account SET password_hash = $2 WHERE user_id = $1;

-- name: insert_role_change
-- Appends to the log of role changes.
INSERT INTO role_change (user_id, actor, roles_before, roles_after, traceparent) VALUES ($1, $2, $3, $4, $5);

-- name: lock_throttles
-- Locks throttles in key order, and inserts those that there are not.
INSERT INTO login_throttle (email_digest, failures, retry_time, update_time)
SELECT digest, 0, now(), now() FROM unnest($1::bytea[]) AS digest ORDER BY digest
ON CONFLICT (email_digest) DO UPDATE SET update_time = now() RETURNING *;

-- name: update_throttle
-- Replaces a throttle that this transaction has locked.
UPDATE login_throttle SET failures = $2, retry_time = $3 WHERE email_digest = $1;

-- name: delete_throttles
-- Deletes throttles.
DELETE FROM login_throttle WHERE email_digest = ANY ($1::bytea[]);

-- name: list_login_clients
-- Lists which of these clients have signed in before.
SELECT client_digest FROM login_client WHERE client_digest = ANY ($1::bytea[]);

-- name: insert_login_clients
-- Remembers the clients of a login.
INSERT INTO login_client (client_digest, login_time)
SELECT digest, now() FROM unnest($1::bytea[]) AS digest ORDER BY digest
ON CONFLICT (client_digest) DO UPDATE SET login_time = now();

-- name: insert_session
-- Inserts a session.
INSERT INTO session (session_id, user_id, create_time, expire_time, family_digest) VALUES ($1, $2, $3, $4, $5);

-- name: lock_session_of_token
-- Locks the session of a refresh token.
SELECT session.* FROM session JOIN refresh_token USING (session_id) WHERE token_digest = $1 FOR UPDATE OF session;

-- name: lock_session_of_family
-- Locks the session whose refresh tokens share a part with this digest.
SELECT * FROM session WHERE family_digest = $1 FOR UPDATE;

-- name: delete_older_tokens
-- Deletes the refresh tokens of a session but the live one and its predecessor, if a digest of the session finds the rest.
DELETE FROM refresh_token WHERE session_id = $1 AND token_digest <> ALL ($2::bytea[])
    AND EXISTS (SELECT FROM session WHERE session_id = $1 AND family_digest IS NOT NULL);

-- name: extend_session
-- Extends a session to a new expire time.
UPDATE session SET expire_time = $2 WHERE session_id = $1;

-- name: end_session
-- Ends a session that has not ended yet, and notifies the streams of revocations.
WITH ended AS (
    UPDATE session SET end_time = now(), end_reason = $2 WHERE session_id = $1 AND end_time IS NULL RETURNING session_id)
SELECT pg_notify($3, $4) FROM ended;

-- name: end_sessions
-- Ends all sessions of a user that have not ended yet, and notifies the streams of revocations.
WITH ended AS (
    UPDATE session SET end_time = now(), end_reason = $2 WHERE user_id = $1 AND end_time IS NULL RETURNING session_id)
SELECT pg_notify($3, $4) FROM ended;

-- name: end_other_sessions
-- Ends all sessions of a user but one, and notifies the streams of revocations.
WITH ended AS (UPDATE session SET end_time = now(), end_reason = $3
    WHERE user_id = $1 AND session_id <> $2 AND end_time IS NULL RETURNING session_id)
SELECT pg_notify($4, $5) FROM ended;

-- name: list_ended_sessions
-- Lists the sessions that ended within an interval.
SELECT session_id, end_time FROM session WHERE end_time > now() - $1::interval;

-- name: read_token
-- Reads a refresh token, and whether its successor was rotated too.
SELECT token.rotate_time, token.sealed_successor, successor.rotate_time IS NOT NULL AS successor_rotated
FROM refresh_token token LEFT JOIN refresh_token successor ON successor.token_digest = token.successor_digest
WHERE token.token_digest = $1;

-- name: insert_token
-- Inserts the live token of a session.
INSERT INTO refresh_token (token_digest, session_id, create_time) VALUES ($1, $2, now());

-- name: rotate_token
-- Marks a refresh token as rotated, with its encrypted successor.
UPDATE refresh_token SET rotate_time = now(), successor_digest = $2, sealed_successor = $3 WHERE token_digest = $1;

-- name: erase_successors
-- Erases some encrypted successors whose grace period is over.
UPDATE refresh_token SET sealed_successor = NULL WHERE ctid = ANY (ARRAY(SELECT ctid FROM refresh_token
    WHERE sealed_successor IS NOT NULL AND rotate_time < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED));

-- name: lock_keys
-- Locks the generation and deletion of signing keys to one process at a time.
SELECT pg_advisory_xact_lock(hashtext('svc_user.signing_key'));

-- name: list_keys
-- Lists all signing keys, the oldest first.
SELECT * FROM signing_key ORDER BY use_time;

-- name: insert_key
-- Inserts a signing key.
INSERT INTO signing_key (key_id, public_key, sealed_private_key, use_time) VALUES ($1, $2, $3, $4);

-- name: delete_keys
-- Deletes signing keys.
DELETE FROM signing_key WHERE key_id = ANY ($1::text[]);

-- name: read_book
-- Reads the whole address book of a user, the oldest entry first; its size is limited.
SELECT * FROM address WHERE user_id = $1 ORDER BY position;

-- name: read_address
-- Reads one entry of a user's address book.
SELECT * FROM address WHERE user_id = $1 AND address_id = $2;

-- name: list_addresses
-- Lists a user's address book after a (rank, position): the default first, then the oldest.
SELECT *, (NOT is_default)::int AS rank FROM address
WHERE user_id = $1 AND ((NOT is_default)::int, position) > ($2, $3)
ORDER BY (NOT is_default)::int, position LIMIT $4;

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

-- name: lock_reset
-- Locks the last request for a new password of an email address.
SELECT * FROM password_reset WHERE email_digest = $1 FOR UPDATE;

-- name: save_reset_request
-- Replaces the last request of an email address by one whose message is due.
INSERT INTO password_reset (email_digest, sealed_email, traceparent, requests, request_time, next_attempt_time)
VALUES ($1, $2, $3, 1, now(), now())
ON CONFLICT (email_digest) DO UPDATE SET sealed_email = $2, traceparent = $3, requests = password_reset.requests + 1,
    request_time = now(), next_attempt_time = now(), attempts = password_reset.attempts + 1, tries = 0,
    user_id = NULL, code_digest = NULL, sealed_code = NULL, expire_time = NULL;

-- name: count_reset_try
-- Counts a try of a code.
UPDATE password_reset SET tries = tries + 1 WHERE email_digest = $1 RETURNING *;

-- name: delete_reset
-- Deletes the request with this code; returns whether there was one.
DELETE FROM password_reset WHERE email_digest = $1 AND code_digest = $2 RETURNING true;

-- name: list_due_resets
-- Lists the requests whose messages are due, the most overdue first, and locks them, without those that are locked.
SELECT email_digest FROM password_reset WHERE next_attempt_time <= now() ORDER BY next_attempt_time LIMIT $1
FOR NO KEY UPDATE SKIP LOCKED;

-- name: claim_reset
-- Claims the message of a request that is due for the length of a lease.
UPDATE password_reset SET attempts = attempts + 1, next_attempt_time = now() + $2::interval
WHERE email_digest = $1 AND next_attempt_time <= now() RETURNING *;

-- name: save_reset_code
-- Writes the code of a request.
UPDATE password_reset SET user_id = $2, code_digest = $3, sealed_code = $4, expire_time = $5 WHERE email_digest = $1;

-- name: renew_reset
-- Extends a claim, unless it was lost.
UPDATE password_reset SET next_attempt_time = now() + $3::interval
WHERE email_digest = $1 AND attempts = $2 AND next_attempt_time IS NOT NULL;

-- name: finish_reset
-- Ends the job of a request, unless its claim was lost.
UPDATE password_reset SET next_attempt_time = NULL, sealed_email = NULL, sealed_code = NULL
WHERE email_digest = $1 AND attempts = $2;
