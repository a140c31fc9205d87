"""What one order costs, counted: SQL statements by name, commits, WAL, commands to Redis, and CPU by process.

`python -m bench.order [ORDERS]` starts a stack of its own. One customer places one order after the other; PostgreSQL
logs every statement during a first half, whose counts are deterministic, and CPU is measured during the second half.
"""

import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
from redis.asyncio import Redis, from_url

from bench.stack import cpu_seconds, customer, order, shopmesh
from mesh.services import SERVICES
from mesh.stack.servers import redis as redis_server
from mesh.stack.servers.postgres import Postgres
from mesh.stack.state import State

ROOT = Path(__file__).parents[1]
#: PostgreSQL writes a prefix that the parser splits at: the database and the session's process.
_PREFIX = "%d %p\x1f"
_STATEMENT = re.compile(
    r"(\w*) (\d+)\x1fLOG:  (?:execute [^:]+|statement): (.*?)(?=^\w* \d+\x1f|\Z)", re.DOTALL | re.MULTILINE
)
#: What chassis.postgres.writes composes, and its parts.
_COMPOSED = "WITH w0 AS ("
_PART = re.compile(r"w\d+ AS \((.*?) RETURNING 1\)(?=, w\d| SELECT)")
_PARAMETER = re.compile(r"\$\d+")
_WRITE = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM) (?!OF\b)\w+")
_UNPUBLISHED = "SELECT count(*) FROM outbox WHERE publish_time IS NULL"
_NAME = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name:|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counts:
    """What some orders cost in all."""

    #: By database and name of the query; a query of the chassis is named by its first words.
    statements: Counter[tuple[str, str]]
    commits: int
    wal_bytes: int
    redis_commands: int


def main() -> None:
    orders = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory(prefix="shopmesh-bench-") as folder:
        Path(folder).chmod(0o711)  # or PostgreSQL, as another user, would have to keep its data elsewhere
        try:
            edge = shopmesh(folder, "up", "--detach", "--json", "--port-base", "0")["edge"]
            with httpx.Client(base_url=edge, timeout=30) as shop:
                skus = customer(shop)

                def place(count: int) -> None:
                    for number in range(count):
                        order(shop, skus[number % len(skus)])

                place(30)  # statements are prepared, and plans are made
                show_counts(asyncio.run(count(State(Path(folder)), place, orders)), orders)
                show_cpu(folder, place, orders)
        finally:
            shopmesh(folder, "down")


async def count(state: State, place: Callable[[int], None], orders: int) -> Counts:
    """Count what placing some orders costs, the publishing of their events included."""
    record = state.read()
    assert record is not None, "the stack is not running"
    url = Postgres(state.folder / "postgres", Path(record.run) / "postgres").url
    admin = await asyncpg.connect(url)
    servers = [
        redis_server.Redis(state.folder / name, Path(record.run), name=name) for name in ("redis", "redis_cache")
    ]
    redis = [from_url(server.url) for server in servers]
    try:
        await log_statements(admin, on=True)
        await asyncio.to_thread(place, 1)  # not counted: each session reads the configuration before its next statement
        await published(admin, url)
        start, wal, commands = state.log("postgres").stat().st_size, await position(admin), await executed(*redis)
        await asyncio.to_thread(place, orders)
        await published(admin, url)
        wal, commands = await position(admin) - wal, await executed(*redis) - commands
        await log_statements(admin, on=False)
        with state.log("postgres").open(errors="replace") as log:
            log.seek(start)
            parsed = list(parse(log.read()))
    finally:
        await admin.close()
        for one in redis:
            await one.aclose()
    statements = Counter((database, name) for database, name, _ in parsed)
    return Counts(statements, sum(commits for *_, commits in parsed), wal, commands)


async def log_statements(admin: asyncpg.Connection, *, on: bool) -> None:
    for setting, value in (("log_statement", "all"), ("log_line_prefix", _PREFIX)):
        await admin.execute(f"ALTER SYSTEM SET {setting} = '{value}'" if on else f"ALTER SYSTEM RESET {setting}")
    await admin.execute("SELECT pg_reload_conf()")
    while (await admin.fetchval("SHOW log_statement") == "all") is not on:  # noqa: ASYNC110  PostgreSQL sends no notification
        await asyncio.sleep(0.02)


async def published(admin: asyncpg.Connection, url: str) -> None:
    """Wait until every event is published."""
    names = [row[0] for row in await admin.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'shop_%'")]
    for name in names:
        connection = await asyncpg.connect(url, database=name)
        try:
            while await connection.fetchval(_UNPUBLISHED):  # noqa: ASYNC110  the relay sends none
                await asyncio.sleep(0.05)
        finally:
            await connection.close()


async def position(admin: asyncpg.Connection) -> int:
    return int(await admin.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


async def executed(*redis: Redis) -> int:
    return sum([int((await one.info("stats"))["total_commands_processed"]) for one in redis])


def parse(log: str) -> Iterable[tuple[str, str, bool]]:
    """Yield the database and name of each statement in a log of PostgreSQL, and whether it commits what was written."""
    names, open_sessions = {_PARAMETER.sub("$", sql): name for sql, name in queries()}, set()
    for found in _STATEMENT.finditer(log):
        database, session, sql = found[1], found[2], " ".join(found[3].split()).rstrip(";")
        if not database.startswith("shop_") or sql == _UNPUBLISHED:
            continue
        if sql.startswith("BEGIN"):
            open_sessions.add(session)
        commits = sql == "COMMIT" or (session not in open_sessions and _WRITE.search(sql) is not None)
        if sql in ("COMMIT", "ROLLBACK"):
            open_sessions.discard(session)
        yield database, _named(sql, names), commits


def _named(sql: str, names: Mapping[str, str]) -> str:
    if sql.startswith(_COMPOSED):
        return " + ".join(_named(part, names) for part in _PART.findall(sql))
    return names.get(_PARAMETER.sub("$", sql)) or " ".join(sql.split()[:4])


def queries() -> Iterable[tuple[str, str]]:
    """Yield SQL and name of every query of the services."""
    for service in SERVICES:
        for found in _NAME.finditer((ROOT / service / "queries.sql").read_text()):
            yield " ".join(found[2].split()).rstrip(";"), found[1]


def show_counts(counts: Counts, orders: int) -> None:
    total = sum(counts.statements.values())
    print(f"SQL statements {total / orders:8.1f} an order, commits {counts.commits / orders:.1f}")
    print(f"WAL            {counts.wal_bytes / orders / 1000:8.1f} kB an order")
    print(f"Redis commands {counts.redis_commands / orders:8.1f} an order")
    for database in sorted({database for database, _ in counts.statements}):
        own = Counter({name: found for (where, name), found in counts.statements.items() if where == database})
        print(f"\n{database} {own.total() / orders:.1f}")
        for name, found in own.most_common():
            print(f"  {found / orders:6.2f}  {name}")


def show_cpu(folder: str, place: Callable[[int], None], orders: int) -> None:
    processes = shopmesh(folder, "status", "--json")["processes"]
    before, began = cpu_seconds(processes), time.perf_counter()
    place(orders)
    took, after = time.perf_counter() - began, cpu_seconds(processes)
    print(f"\nCPU, {took / orders * 1000:.1f} ms an order by the clock")
    for name in after:
        print(f"  {(after[name] - before[name]) / orders * 1e3:6.2f} ms  {name}")
    print(f"  {(sum(after.values()) - sum(before.values())) / orders * 1e3:6.2f} ms  in all")


if __name__ == "__main__":
    main()
