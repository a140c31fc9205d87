-- Webhooks are remembered in the chassis's table.
INSERT INTO webhook (sender, webhook_id, type, receive_time)
SELECT 'payment_provider', event_id, type, receive_time FROM provider_event ON CONFLICT DO NOTHING;
DROP TABLE provider_event;

-- Grows by one with every claim of the payment: an attempt owns the schedule while the number is its own.
ALTER TABLE payment ADD COLUMN claims bigint NOT NULL DEFAULT 0;

ALTER TABLE payment RENAME COLUMN give_up_time TO void_request_time;
ALTER TABLE payment RENAME COLUMN give_up_reason TO void_reason;
ALTER TABLE payment RENAME COLUMN trouble TO last_error;
-- Payments that were voided before they were started: a request that arrives late does not start them.
ALTER TABLE given_up RENAME TO tombstone;
