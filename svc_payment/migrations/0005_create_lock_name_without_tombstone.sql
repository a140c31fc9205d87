-- Locks a payment's id, whether or not the payment exists, until the transaction ends; returns whether it has no
-- tombstone. A function, since its second statement sees what was committed during the first.
CREATE FUNCTION lock_name_without_tombstone(id text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(id, 0));
    RETURN NOT EXISTS (SELECT FROM tombstone WHERE payment_id = id);
END $$;
