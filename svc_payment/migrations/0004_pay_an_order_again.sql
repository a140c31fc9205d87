-- An order has one payment at a time: a further one is possible when the former is over without funds.
ALTER TABLE payment DROP CONSTRAINT payment_order_id_key;
CREATE UNIQUE INDEX payment_of_order ON payment (order_id)
WHERE state NOT IN ('FAILED', 'VOIDED') AND NOT (state = 'EXPIRED' AND void_request_time IS NOT NULL);
CREATE INDEX payments_of_order ON payment (order_id, create_time);
-- Declined payments of a user, and of a payment method.
CREATE INDEX payment_declined_by_user ON payment (user_id, update_time) WHERE state = 'FAILED';
CREATE INDEX payment_declined_by_method ON payment (fingerprint, update_time) WHERE state = 'FAILED';
-- A request that waits for the customer has not ended.
DROP INDEX entry_ends_once;
CREATE UNIQUE INDEX entry_ends_once ON entry (payment_id, operation_id) WHERE outcome IN ('SUCCESS', 'FAILURE');
