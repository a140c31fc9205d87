-- Fails a statement that met a row which has changed since it was read, so that nothing of it is written.
CREATE FUNCTION reject_conflict() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row has changed since it was read' USING ERRCODE = 'serialization_failure';
END $$;
