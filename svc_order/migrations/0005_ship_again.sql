-- The shipments of an order that were cancelled, or returned before they were picked up; each number makes a new id.
ALTER TABLE orders ADD COLUMN ended_shipments int NOT NULL DEFAULT 0;
