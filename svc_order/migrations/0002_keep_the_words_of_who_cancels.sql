-- Reasons are codes; what people said stands beside them.
ALTER TABLE orders ADD COLUMN state_message text NOT NULL DEFAULT '';
ALTER TABLE order_history ADD COLUMN message text NOT NULL DEFAULT '';
ALTER TABLE saga ADD COLUMN message text NOT NULL DEFAULT '';
