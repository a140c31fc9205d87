"""PostgreSQL: transactions, named queries, migrations, idempotency, the write lane and the change feed."""
