-- always: answer_is_whole I28
-- The stored outcome of a request is a reply or an error, and neither only while its transaction lasts.
SELECT principal, method, key, create_time FROM idempotency WHERE (response IS NULL) = (error IS NULL);

-- soon: outbox_is_drained I21
-- What was told in a transaction is published.
SELECT event_id, type, key, create_time FROM outbox WHERE publish_time IS NULL;

-- soon: no_dead_letters I26
-- No event was given up.
SELECT consumer, event_id, type, key, attempts, error FROM dead_letter WHERE redrive_time IS NULL;

-- soon: no_transaction_is_left_open I34
-- No session of the service sits in a transaction and does nothing.
SELECT pid, state, state_change, query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
    AND state_change < now() - interval '5 seconds';

-- copy: event
-- What was told of late; older rows are forgotten.
SELECT event_id::text, topic, key, type FROM outbox;

-- copy: applied
-- What was heard and applied.
SELECT consumer, event_id::text FROM inbox;

-- copy: buried
-- What was heard and given up.
SELECT consumer, event_id::text FROM dead_letter;
