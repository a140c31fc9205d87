-- concurrently
-- A process of the release before this one delivers orders without a delivered_time.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_delivered_by_time ON orders (coalesce(delivered_time, update_time))
    WHERE state = 'DELIVERED';
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_pending_of_user ON orders (user_id) WHERE state = 'PENDING';
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_by_state ON orders (state, create_time DESC, order_id DESC);
-- 8 attempts are about 100 seconds.
CREATE INDEX CONCURRENTLY IF NOT EXISTS saga_stuck ON saga (create_time, saga_id)
    WHERE state = 'PARKED' OR attempts >= 8;
