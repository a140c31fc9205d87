-- Counts a user's pending orders, up to a limit, after all transactions that place orders of the user have ended; until
-- this one ends, no other counts them. A function, since its second statement sees what was committed during the first.
CREATE FUNCTION lock_and_count_pending(owner text, most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('place_order:' || owner, 0));
    RETURN (SELECT count(*) FROM (SELECT FROM orders WHERE user_id = owner AND state = 'PENDING' LIMIT most) AS pending);
END $$;
