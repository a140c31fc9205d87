"""The plans of the queries of jobs and operators, on a database with a million orders."""

import json

import asyncpg

from svc_order.store import sql

ORDERS, SAGAS = 1_000_000, 300_000
#: Blocks of 8 kB that a query may read, whatever the number of orders: those of a page or a batch.
_MOST_BLOCKS = 400
_EMPTY = """
ALTER TABLE saga DROP CONSTRAINT saga_order_id_fkey, DROP CONSTRAINT saga_order_id_key;
ALTER TABLE orders DROP CONSTRAINT orders_reservation_id_key, DROP CONSTRAINT orders_payment_id_key;
"""
_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('orders', 'saga') AND indexname NOT LIKE '%pkey'"""
#: One order in 2,000 is not completed; user-1 has a third of all.
_FILL_ORDERS = f"""
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time,
    delivered_time)
SELECT n, 'user-' || least(n % 3, 1) * n,
    CASE n % 2000 WHEN 0 THEN 'PENDING' WHEN 1 THEN 'DELIVERED' ELSE 'COMPLETED' END,
    '', '', 'THB', 1, 0, 0, 1, '', '', '', '', 1, now() - n * interval '1 second', now(),
    CASE n % 2000 WHEN 1 THEN now() - n * interval '1 second' END
FROM generate_series(1, {ORDERS}) AS n;
"""
_FILL_SAGAS = f"""
INSERT INTO saga (saga_id, order_id, state, step, attempts, next_attempt_time, version, payment_method_token, reason,
    create_time, update_time)
SELECT n, n, CASE n % 10000 WHEN 0 THEN 'PARKED' WHEN 1 THEN 'RUNNING' ELSE 'DONE' END, 'capture_payment', 1,
    now() + (n % 20000) * interval '1 hour', 1, '', 'PAYMENT_DECLINED', now() - n * interval '1 second', now()
FROM generate_series(1, {SAGAS}) AS n;
"""
_NOW = "now(), ''"
_QUERIES = {
    "list_orders": f"{_NOW}, 50",
    "list_orders_of_user": f"'user-0', {_NOW}, 50",
    "list_orders_in_state": f"'PENDING', {_NOW}, 50",
    "list_orders_of_user_in_state": f"'user-2', 'PENDING', {_NOW}, 50",
    "count_pending": "'user-0', 20",
    "list_past_return_window": "'14 hours', 100",
    "list_due_sagas": "32",
    "list_sagas": "'-infinity', '', 50",
    "list_parked_sagas": "'-infinity', '', 50",
    "list_stuck_sagas": "'-infinity', '', 50",
    "list_active_sagas": "'RUNNING', '-infinity', '', 50",
    "filter_parked_sagas": "'PAYMENT_DECLINED', '', '-infinity', 'infinity', 100",
}


async def test_queries_of_jobs_and_operators_read_a_bounded_number_of_blocks(fresh_database):
    """Also with the plan that PostgreSQL keeps for all parameters."""
    async with fresh_database("svc_order") as url:
        rows = await asyncpg.connect(url)
        try:
            await rows.execute(_EMPTY)
            indexes = await rows.fetch(_INDEXES)  # built faster after the rows
            for index in indexes:
                await rows.execute(f"DROP INDEX {index['indexname']}")
            await rows.execute(_FILL_ORDERS + _FILL_SAGAS)
            for index in indexes:
                await rows.execute(index["indexdef"])
            await rows.execute("VACUUM ANALYZE orders")
            await rows.execute("VACUUM ANALYZE saga")
            await rows.execute("SET plan_cache_mode = force_generic_plan")
            blocks = {}
            for name, arguments in _QUERIES.items():
                await rows.execute(f"PREPARE {name} AS {getattr(sql, name)}")
                plan = await rows.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name} ({arguments})")
                root = json.loads(plan)[0]["Plan"]
                blocks[name] = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
                assert "Seq Scan" not in plan, name
            assert {name: read for name, read in blocks.items() if read > _MOST_BLOCKS} == {}
        finally:
            await rows.close()
