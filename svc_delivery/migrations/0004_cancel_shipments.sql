-- A shipment can be cancelled until the courier picks it up, and its order may then have another one.
ALTER TABLE shipment
    -- Whether the courier has ever had the parcel.
    ADD COLUMN picked_up boolean NOT NULL DEFAULT false,
    -- Who requested the cancellation; empty when no one did.
    ADD COLUMN cancel_actor text NOT NULL DEFAULT '',
    ADD COLUMN cancel_reason text NOT NULL DEFAULT '',
    DROP CONSTRAINT shipment_state_check,
    ADD CONSTRAINT shipment_state_check CHECK (state IN ('CREATED', 'LABELLED', 'PICKED_UP', 'IN_TRANSIT',
        'OUT_FOR_DELIVERY', 'DELIVERED', 'FAILED', 'RETURNED', 'CANCELLED')) NOT VALID,
    DROP CONSTRAINT shipment_order_id_key;
CREATE UNIQUE INDEX shipment_under_way ON shipment (order_id) WHERE state NOT IN ('CANCELLED', 'RETURNED');
CREATE INDEX shipment_of_order ON shipment (order_id);

UPDATE shipment SET picked_up = true
WHERE EXISTS (
    SELECT FROM shipment_update WHERE shipment_update.shipment_id = shipment.shipment_id
        AND shipment_update.state IN ('PICKED_UP', 'IN_TRANSIT', 'OUT_FOR_DELIVERY', 'DELIVERED')
);
