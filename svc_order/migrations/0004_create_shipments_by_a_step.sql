-- The member of staff who had the order shipped; recorded in the history of its shipment.
ALTER TABLE saga ADD COLUMN shipment_actor text NOT NULL DEFAULT '';

-- An order that was assigned a shipment before this migration may have none yet. CreateShipment returns one that exists.
UPDATE saga SET step = 'create_shipment', attempts = 0, next_attempt_time = now(), version = saga.version + 1,
    shipment_actor = 'svc_order'
FROM orders
WHERE orders.order_id = saga.order_id AND saga.state = 'RUNNING' AND saga.step = 'await_shipment' AND shipment_id <> '';
