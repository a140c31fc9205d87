-- The jobs that submit shipments to the courier, one for each order, until the courier has the parcel or rejects it.
ALTER TABLE dispatch
    -- Whether a process has claimed an attempt and not settled it; one that died leaves it true until its lease expires.
    ADD COLUMN in_progress boolean NOT NULL DEFAULT false,
    -- The trace of the request that created the job.
    ADD COLUMN traceparent text NOT NULL DEFAULT '';

-- Webhooks are kept in the chassis's table.
INSERT INTO webhook (sender, webhook_id, type, receive_time)
SELECT 'courier', webhook_id, 'consignment.status_changed', receive_time FROM courier_event;
DROP TABLE courier_event;

ALTER TABLE shipment_update RENAME COLUMN note TO reason;
