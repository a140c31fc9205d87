CREATE TRIGGER shipment_update_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON shipment_update
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
