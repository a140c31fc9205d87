-- States of payments that wait for the customer, expire, or are disputed.
ALTER TABLE payment DROP CONSTRAINT payment_state_check;
ALTER TABLE payment ADD CONSTRAINT payment_state_check CHECK (state IN (
    'PROCESSING', 'REQUIRES_ACTION', 'AUTHORIZED', 'CAPTURED', 'PARTIALLY_REFUNDED', 'REFUNDED', 'VOIDED', 'FAILED',
    'EXPIRED', 'DISPUTED', 'CHARGED_BACK')) NOT VALID;
ALTER TABLE payment VALIDATE CONSTRAINT payment_state_check;
ALTER TABLE entry DROP CONSTRAINT entry_kind_check;
ALTER TABLE entry ADD CONSTRAINT entry_kind_check CHECK (kind IN (
    'AUTHORIZATION', 'CHARGE', 'REFUND', 'CANCEL', 'CHARGEBACK', 'EXPIRY')) NOT VALID;
ALTER TABLE entry VALIDATE CONSTRAINT entry_kind_check;
ALTER TABLE entry DROP CONSTRAINT entry_outcome_check;
ALTER TABLE entry ADD CONSTRAINT entry_outcome_check CHECK (outcome IN (
    'REQUEST', 'ACTION_REQUIRED', 'SUCCESS', 'FAILURE')) NOT VALID;
ALTER TABLE entry VALIDATE CONSTRAINT entry_outcome_check;

-- A payment method is known by the fingerprint of its token, and a payment keeps what its method looks like: the token
-- itself is only stored until the authorization was sent.
ALTER TABLE payment
    ADD COLUMN fingerprint text NOT NULL DEFAULT '',
    ADD COLUMN method text NOT NULL DEFAULT '',
    ADD COLUMN brand text NOT NULL DEFAULT '',
    ADD COLUMN last4 text NOT NULL DEFAULT '',
    ADD COLUMN action_url text NOT NULL DEFAULT '',
    -- When it expires unless the customer acts, or it is captured.
    ADD COLUMN expire_time timestamptz,
    ADD COLUMN dispute_due_time timestamptz;
CREATE TABLE known_method (
    fingerprint text PRIMARY KEY,
    kind text NOT NULL,
    brand text NOT NULL,
    last4 text NOT NULL CHECK (last4 ~ '^[0-9]{0,4}$')
);
INSERT INTO known_method (fingerprint, kind, brand, last4)
SELECT encode(sha256(token::bytea), 'hex'), kind, brand, last4 FROM method;
UPDATE payment SET fingerprint = encode(sha256(token::bytea), 'hex');
UPDATE payment SET method = m.kind, brand = m.brand, last4 = m.last4 FROM known_method m
WHERE m.fingerprint = payment.fingerprint;
UPDATE payment SET token = '' WHERE state <> 'PROCESSING';
-- Its tokens are forgotten; the table itself goes when no process of the release before writes it any more.
DELETE FROM method;
