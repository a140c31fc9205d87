"""One hot SKU, many buyers: a version check for each request, one conditional UPDATE, and the write lane, in one run.

All of them write the same reservation, allocation and movement on svc_inventory's own tables, on a PostgreSQL that is
durable. `svc_inventory` is that service's lane as it serves ReserveStock, with its rules and its outbox rows.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import uvloop

from bench.cpu import Meter, Run, drive, table
from bench.servers import durable_postgres
from chassis import Context, Database, Lane, VersionConflict, WatchPace
from chassis.cancellation import cancel_and_wait
from chassis.postgres.change_feed import CHANNEL
from shop.inventory.v1 import inventory_service_pb2 as pb
from svc_inventory.domain_reservation import Reserve
from svc_inventory.service import InventoryService

CONNECTIONS = 16
SKUS = 1_000
PLENTY = 1_000_000_000
WATCHERS = 2_000
#: As svc_inventory's settings have it.
PACE = (200.0, 0.25)

FILL = """
INSERT INTO stock (sku, location_id, on_hand, version)
SELECT 'S' || n, 'bkk', $1, 0 FROM generate_series(0, $2 - 1) n"""
#: The three rows of reservations, by ids and SKUs.
INSERT = """
WITH new AS (SELECT id, sku FROM unnest($1::text[], $2::text[]) AS new (id, sku)),
r AS (INSERT INTO reservation (reservation_id, order_id, state, expire_time, version, create_time, update_time)
    SELECT id, id, 'HELD', now() + interval '10 min', 1, now(), now() FROM new),
a AS (INSERT INTO allocation (reservation_id, sku, location_id, quantity) SELECT id, sku, 'bkk', 1 FROM new)
INSERT INTO movement (sku, location_id, kind, on_hand_delta, allocated_delta, reserved_delta, safety_stock_delta,
    reservation_id, actor) SELECT sku, 'bkk', 'RESERVED', 0, 0, 1, 0, id, 'bench' FROM new"""
READ = "SELECT sku, on_hand - allocated - reserved AS available, version FROM stock WHERE sku = ANY($1::text[])"
CHECK_AND_SET = "UPDATE stock SET reserved = reserved + 1, version = version + 1 WHERE sku = $1 AND version = $2"
CONDITIONAL = """
UPDATE stock SET reserved = reserved + 1, version = version + 1
WHERE sku = $1 AND on_hand - allocated - reserved >= 1"""
ALL_IN_ONE = """
WITH s AS (UPDATE stock SET reserved = reserved + 1, version = version + 1
    WHERE sku = $1 AND on_hand - allocated - reserved >= 1 RETURNING sku),
r AS (INSERT INTO reservation (reservation_id, order_id, state, expire_time, version, create_time, update_time)
    SELECT $2, $2, 'HELD', now() + interval '10 min', 1, now(), now() FROM s),
a AS (INSERT INTO allocation (reservation_id, sku, location_id, quantity) SELECT $2, sku, 'bkk', 1 FROM s)
INSERT INTO movement (sku, location_id, kind, on_hand_delta, allocated_delta, reserved_delta, safety_stock_delta,
    reservation_id, actor) SELECT sku, 'bkk', 'RESERVED', 0, 0, 1, 0, $2, 'bench' FROM s"""
CHECK_AND_SET_ALL = """
UPDATE stock SET reserved = stock.reserved + new.taken, version = stock.version + new.taken
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS new (sku, taken, version)
WHERE stock.sku = new.sku AND stock.version = new.version"""
#: Levels that are not the sum of their movements, or whose version does not count them.
DRIFT = """
SELECT count(*) FROM stock JOIN (SELECT sku, count(*) n, sum(reserved_delta) r FROM movement GROUP BY 1) m USING (sku)
WHERE (version, reserved) IS DISTINCT FROM (n, r)"""

Buy = Callable[[str], Awaitable[object]]


class CheckAndSet:
    """Reads, decides, and writes if nobody else wrote meanwhile; else begins again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.tries = 0

    async def __call__(self, sku: str) -> None:
        while True:
            self.tries += 1
            async with self._database.connection() as connection:
                row = await connection.fetchrow(READ, [sku])
            assert row["available"] >= 1
            async with self._database.transaction() as tx:
                if await tx.execute(CHECK_AND_SET, sku, row["version"]) == "UPDATE 1":
                    await tx.execute(INSERT, [uuid.uuid4().hex], [sku])
                    return


class Conditional:
    """Writes at once, on the condition that enough is there; waits for the row's lock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, sku: str) -> None:
        async with self._database.transaction() as tx:
            # The rows that nobody else wants come first, so that the hot one is locked for the shortest time.
            await tx.execute(INSERT, [uuid.uuid4().hex], [sku])
            assert await tx.execute(CONDITIONAL, sku) == "UPDATE 1"


class OneStatement:
    """The same in one statement and one trip, which is as little as one request can cost."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, sku: str) -> None:
        async with self._database.connection() as connection:
            assert await connection.execute(ALL_IN_ONE, sku, uuid.uuid4().hex) == "INSERT 0 1"


class BareLane:
    """chassis.Lane with the least that can be applied."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lane: Lane[str, None] = Lane(self._apply)

    async def __call__(self, sku: str) -> None:
        await self._lane.submit(sku)

    async def _apply(self, skus: Sequence[str]) -> Sequence[None]:
        async with self._database.transaction() as tx:
            wanted = Counter(skus)
            rows = await tx.fetch(READ, sorted(wanted))
            assert all(row["available"] >= wanted[row["sku"]] for row in rows)
            names = [row["sku"] for row in rows]
            written = await tx.execute(
                CHECK_AND_SET_ALL, names, [wanted[name] for name in names], [row["version"] for row in rows]
            )
            if written != f"UPDATE {len(rows)}":
                raise VersionConflict
            await tx.execute(INSERT, [uuid.uuid4().hex for _ in skus], list(skus))
        return [None] * len(skus)


class ServiceLane:
    """svc_inventory's lane."""

    def __init__(self, database: Database) -> None:
        self._lane = InventoryService(database, hold=timedelta(minutes=10), pace=WatchPace(*PACE)).lane

    async def __call__(self, sku: str) -> None:
        key = uuid.uuid4().hex
        await self._lane.submit(Reserve(reservation_id=key, order_id=key, lines=((sku, 1),), ttl=timedelta(minutes=10)))


WAYS: dict[str, Callable[[Database], Buy]] = {
    "version check": CheckAndSet,
    "conditional UPDATE": Conditional,
    "one statement": OneStatement,
    "lane, bare": BareLane,
    "lane, svc_inventory": ServiceLane,
}


async def main(options: argparse.Namespace) -> None:
    async with durable_postgres("svc_inventory") as (url, pid), Database.open(url, CONNECTIONS) as database:
        outcomes = await measure(database, pid, options)
        share = await share_beside_watchers(database, WATCHERS, max(options.seconds, 3.0), options.rounds)
    print(table(HEAD, [outcome.row() for outcome in outcomes]))
    print(f"\n{WATCHERS} watchers: the lane keeps {share:.0%} -> {'as promised' if share >= 0.9 else 'PROMISE BROKEN'}")
    judge({outcome.way: outcome.per_second for outcome in outcomes if (outcome.skus, outcome.waiting) == (1, 64)})


async def share_beside_watchers(database: Database, watchers: int, seconds: float, rounds: int) -> float:
    """Return the share of its rate that the lane keeps while so many watch the hot SKU; the rounds take turns."""
    service = InventoryService(database, hold=timedelta(minutes=10), pace=WatchPace(*PACE))
    buy = ServiceLane(database)
    speeds: dict[int, list[float]] = {0: [], watchers: []}
    feeding = [asyncio.create_task(database.change_feed.listen(database.pool)), asyncio.create_task(notify(database))]
    for count in list(speeds) * rounds:
        watching = [asyncio.create_task(watch(service)) for _ in range(count)]
        await drive(lambda: buy("S0"), waiting=64, seconds=seconds)  # all have their first message
        speeds[count].append((await drive(lambda: buy("S0"), waiting=64, seconds=seconds)).per_second)
        await cancel_and_wait(*watching)
        await settle(database)
    await cancel_and_wait(*feeding)
    return statistics.median(speeds[watchers]) / statistics.median(speeds[0])


async def watch(service: InventoryService) -> None:
    """Watch the hot SKU, and write its messages as a server does."""
    async for message in service.WatchAvailability(pb.WatchAvailabilityRequest(skus=["S0"]), cast("Context", None)):
        message.SerializeToString()


async def notify(database: Database) -> None:
    """Notify the change feed as often as the relay of a busy outbox does."""
    while True:
        await database.pool.execute("SELECT pg_notify($1, 'S0')", CHANNEL)
        await asyncio.sleep(0.01)


HEAD = ("SKUs", "waiting", "way", "a second", "tries", "p50 ms", "p99 ms", "CPU us: postgres", "our side")


@dataclass
class Outcome:
    """One way under one load, over all its turns."""

    skus: int
    waiting: int
    way: str
    meter: Meter
    run: Run = field(default_factory=Run)
    speeds: list[float] = field(default_factory=list)
    tries: int = 0

    @property
    def per_second(self) -> float:
        """The median of the turns."""
        return statistics.median(self.speeds)

    def row(self) -> tuple[object, ...]:
        run, cost = self.run, self.meter.per_request(self.run.requests)
        tries = f"{self.tries / run.requests:.1f}" if self.tries else "-"
        times = (f"{run.percentile(50):.1f}", f"{run.percentile(99):.1f}")
        return (self.skus, self.waiting, self.way, self.per_second, tries, *times, cost["postgres"], cost["load"])


async def measure(database: Database, pid: int, options: argparse.Namespace) -> list[Outcome]:
    settings = [await database.pool.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
    assert settings == ["on", "on"], settings
    await database.pool.execute(FILL, PLENTY, SKUS)
    outcomes = []
    for skus, waiting in itertools.product((1, SKUS), options.waiting):
        turns = [Outcome(skus, waiting, way, Meter({"postgres": pid})) for way in WAYS]
        # They take turns, so that a busy moment of the machine falls on all.
        for turn in turns * options.rounds:
            await take(turn, database, options.seconds)
        outcomes += turns
    return outcomes


async def take(turn: Outcome, database: Database, seconds: float) -> None:
    buy = WAYS[turn.way](database)
    with turn.meter:
        run = await drive(lambda: buy(f"S{random.randrange(turn.skus)}"), waiting=turn.waiting, seconds=seconds)
    turn.speeds.append(run.per_second)
    turn.run += run
    turn.tries += getattr(buy, "tries", 0)
    await settle(database)


async def settle(database: Database) -> None:
    """Check that nothing was lost, and leave nothing behind that would slow the next."""
    assert await database.pool.fetchval(DRIFT) == 0, "counters are not the sum of their movements"
    await database.pool.execute("TRUNCATE allocation, reservation, outbox")
    await database.pool.execute("ALTER TABLE movement DISABLE TRIGGER movement_append_only")
    await database.pool.execute("TRUNCATE movement")
    await database.pool.execute("ALTER TABLE movement ENABLE TRIGGER movement_append_only")
    await database.pool.execute("UPDATE stock SET reserved = 0, version = 0 WHERE version > 0")
    await database.pool.execute("VACUUM stock")


def judge(per_second: dict[str, float]) -> None:
    """The promise: at 64 waiting for one SKU, 20 times the version check and 5 times the conditional UPDATE."""
    if not per_second:
        return
    print()
    for way in ("lane, bare", "lane, svc_inventory"):
        over = {other: per_second[way] / per_second[other] for other in WAYS}
        kept = over["version check"] >= 20 and over["conditional UPDATE"] >= 5
        told = ", ".join(f"{over[other]:.1f} x {other}" for other in list(WAYS)[:3])
        print(f"{way}: {told} -> {'as promised' if kept else 'PROMISE BROKEN'}")


def run(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench.hot_sku", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--waiting", type=int, nargs="+", default=[64, 256])
    uvloop.run(main(parser.parse_args(words)))


if __name__ == "__main__":
    run(sys.argv[1:])
