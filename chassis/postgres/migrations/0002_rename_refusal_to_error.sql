-- The stored outcome of a request_id is a reply or an error.
ALTER TABLE idempotency RENAME COLUMN refusal TO error;
