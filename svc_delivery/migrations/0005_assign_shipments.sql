-- The user who delivers a shipment; empty while it is assigned to no courier, and then no courier sees it.
ALTER TABLE shipment ADD COLUMN courier_id text NOT NULL DEFAULT '';
CREATE INDEX shipment_of_courier ON shipment (courier_id, create_time DESC, shipment_id DESC) WHERE courier_id <> '';
