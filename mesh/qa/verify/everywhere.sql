-- always: stored_reply_is_complete I28
-- The stored outcome of a request is a reply or an error, and neither only while its transaction lasts.
SELECT principal, method, key, create_time FROM idempotency WHERE (response IS NULL) = (error IS NULL);

-- eventually: outbox_is_drained I21
-- Every event in the outbox is published.
SELECT event_id, type, key, create_time FROM outbox WHERE publish_time IS NULL;

-- eventually: no_dead_letters I26
-- No event is dead-lettered.
SELECT consumer, event_id, type, key, attempts, error FROM dead_letter WHERE redrive_time IS NULL;

-- eventually: no_transaction_is_left_open I34
-- No session of the service is idle in a transaction.
SELECT pid, state, state_change, query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
    AND state_change < now() - interval '5 seconds';

-- always: audit_chain_is_intact I33
-- Each row of the audit log follows the one before it, and has the hash of its content.
SELECT audit_id, method, user_id, create_time FROM (
    SELECT audit.*, audit_hash(audit) AS expected, lag(audit_id, 1, 0::bigint) OVER chain AS last_id,
        lag(hash, 1, ''::bytea) OVER chain AS last_hash
    FROM audit WINDOW chain AS (ORDER BY audit_id)
) AS entry WHERE audit_id <> last_id + 1 OR previous_hash <> last_hash OR hash <> expected;

-- always: event_is_applied_once I23
-- A consumer has applied an event at most once, and none that it has dead-lettered and not redriven.
SELECT consumer, event_id, count(*) AS applied FROM inbox GROUP BY consumer, event_id HAVING count(*) > 1
UNION ALL
SELECT consumer, event_id, 1 FROM inbox JOIN dead_letter USING (consumer, event_id) WHERE redrive_time IS NULL;

-- always: ledgers_are_append_only I19
-- The triggers that reject changes of ledgers and histories are enabled.
SELECT name FROM unnest('{adjustment, audit, entry, line_cancellation_decision, movement, order_history, role_change,
    saga_decision, shipment_update}'::text[]) AS name
WHERE to_regclass(name) IS NOT NULL AND NOT EXISTS (
    -- 58 is the bits of a trigger before UPDATE, DELETE or TRUNCATE.
    SELECT FROM pg_trigger WHERE tgrelid = to_regclass(name) AND tgenabled IN ('O', 'A') AND tgtype & 58 = 58);

-- copy: event
-- The recent events of the outbox; older rows are purged.
SELECT event_id::text, topic, key, type, id AS position, publish_time IS NOT NULL AS published FROM outbox;

-- copy: applied
-- The events that consumers applied, with the time in microseconds, and whether their outbox row is stored for longer.
SELECT consumer, event_id::text, (extract(epoch FROM apply_time) * 1000000)::bigint AS apply_time,
    apply_time > now() - interval '6 days' AS recent FROM inbox;

-- copy: dead_lettered
-- The events that consumers dead-lettered.
SELECT consumer, event_id::text FROM dead_letter;
