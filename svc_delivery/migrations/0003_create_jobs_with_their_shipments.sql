-- svc_order requests shipments. A job whose order has no shipment was not acknowledged, or is requested again by the saga.
DELETE FROM dispatch WHERE NOT EXISTS (SELECT FROM shipment WHERE shipment.order_id = dispatch.order_id);
ALTER TABLE dispatch DROP COLUMN actor;
