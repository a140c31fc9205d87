"""What one order costs in SQL: the statements and the commits of each service, which are the same for every order."""

import re
from collections import Counter
from functools import partial

import asyncpg
import pytest

from chassis.testing import eventually
from shop.order.v1 import order_service_pb2 as pb
from tests.integration.svc_order.shop import buy

#: Statements and commits of one order, alone: a change that adds one says here what it costs. Without the relays and
#: the polls, which the clock and not the order causes.
BUDGET = {
    "svc_catalog": (1, 0),
    "svc_delivery": (1, 0),
    "svc_inventory": (6, 2),
    "svc_order": (10, 5),
    "svc_payment": (4, 2),
}

_BACKGROUND = re.compile(
    r"current_setting\('jit'\)|FROM outbox|UPDATE outbox|\brelay\b|pg_notify|schema_migration|typeinfo|LISTEN"
    r"|next_attempt_time <= now\(\)\s+ORDER BY|expire_time <= now\(\) ORDER BY|coalesce\(delivered_time"
)
_WRITE = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\s+(?!OF\b)\w+")


class Meter:
    """Counts the statements of every service, by the name of its database."""

    def __init__(self):
        self.statements = Counter()
        self.commits = Counter()
        #: The statements of each transaction that is open, without those of a poll.
        self._open = {}

    async def watch(self, connection):
        connection.add_query_logger(partial(self._count, connection))

    def reset(self):
        self.statements.clear()
        self.commits.clear()

    def _count(self, connection, record):
        query, database = " ".join(record.query.split()), record.conn_params.database.rpartition("_")[0]
        if record.exception or _BACKGROUND.search(query):
            return
        if query.startswith("BEGIN"):
            self._open[connection] = 0
        elif query.startswith(("COMMIT", "ROLLBACK")):
            if self._open.pop(connection, 0):  # else it was that of a poll
                self.statements[database, query] += 1
                self.commits[database] += query.startswith("COMMIT")
        else:
            self.statements[database, query] += 1
            if connection in self._open:
                self.statements[database, "BEGIN;"] += not self._open[connection]
                self._open[connection] += 1
            else:
                self.commits[database] += bool(_WRITE.search(query))

    def total(self, database):
        count = sum(found for (where, _), found in self.statements.items() if where == database)
        return count, self.commits[database]

    def __str__(self):
        return "\n".join(f"{found:4} {where}: {query[:150]}" for (where, query), found in self.statements.items())


@pytest.fixture
def meter(monkeypatch):
    """Counts what the services send through the pools that they open from now on."""
    meter = Meter()
    monkeypatch.setattr(asyncpg, "create_pool", partial(asyncpg.create_pool, init=meter.watch))
    return meter


async def test_an_order_costs_no_more_statements_than_its_budget(meter, shop, rows):
    with shop.customer():
        for orders in (1, 2):  # the first one prepares statements and fills caches
            meter.reset()
            order = await shop.orders.CreateOrder(buy(("shirt", 1)))
            assert order.state == pb.ORDER_STATE_CONFIRMED
            await eventually(
                partial(rows.fetchval, "SELECT count(*) FROM inbox"), lambda count, seen=orders: count >= seen
            )
    assert {name: meter.total(name) for name in BUDGET} == BUDGET, str(meter)
