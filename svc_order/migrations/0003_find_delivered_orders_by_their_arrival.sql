-- When an order arrived is in its history; its update_time moves on with every refund.
DROP INDEX orders_delivered;
CREATE INDEX orders_delivered ON orders (order_id) WHERE state = 'DELIVERED';
