"""For tests: a service on a real server with a database of its own, and users with real tokens."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from chassis.app import App, build
from chassis.context import Call, current_call, enter_call
from chassis.postgres.migrate import migrate
from chassis.rpc.client import Clients
from chassis.settings import Settings
from chassis.telemetry import new_traceparent

S = TypeVar("S", bound=Settings)
Stub = TypeVar("Stub")


class Issuer:
    """Issues access tokens as svc_user does, with a key of its own."""

    def __init__(self) -> None:
        """Make a key."""
        self._key = Ed25519PrivateKey.generate()
        self._id = uuid.uuid4().hex

    async def keys(self) -> dict[str, Any]:
        """Return its public key as a JWKS document: a `chassis.rpc.auth.KeySource`."""
        key = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self._id, "use": "sig", "alg": "EdDSA"}]}

    def token(self, user_id: str, *roles: str, **claims: object) -> str:
        """Return a token of a user; `claims` replaces any claim, None leaves one out."""
        now = int(time.time())
        payload = {
            "iss": Settings().token_issuer,
            "aud": Settings().token_audience,
            "sub": user_id,
            "iat": now,
            "exp": now + 300,
            "jti": uuid.uuid4().hex,
            "roles": list(roles),
            **claims,
        }
        present = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(present, self._key, algorithm="EdDSA", headers={"kid": self._id, "typ": "at+jwt"})


async def eventually(
    probe: Callable[[], Any], condition: Callable[[Any], object] = bool, *, seconds: float = 30.0
) -> Any:
    """Return the value of `probe()`, awaited if needed, once it fulfils `condition`; TimeoutError after `seconds`.

    The longer it takes, the rarer the probes: a probe costs CPU that what it waits for may need.
    """
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while True:
            value = probe()
            if isinstance(value, Awaitable):
                value = await value
            if condition(value):
                return value
            await asyncio.sleep(min(max((time.monotonic() - began) / 10, 0.01), 0.1))


@contextmanager
def as_user(authorization: str = "") -> Iterator[None]:
    """Make the calls in the block with this Authorization header."""
    before = current_call()
    enter_call(Call(method="test", authorization=authorization, traceparent=new_traceparent()))
    try:
        yield
    finally:
        enter_call(before)


#: What a test might change of a database besides rows: tables, columns, constraints, triggers, functions, settings.
_SCHEMA = """
SELECT md5(string_agg(part, chr(10) ORDER BY part)) FROM (
    SELECT concat_ws(' ', 'table', oid, relname, relkind, relacl, relowner, relrowsecurity, reloptions) AS part
        FROM pg_class WHERE relnamespace >= 16384 OR relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', 'column', attrelid, attname, atttypid, attnotnull, atthasdef, attisdropped)
        FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT concat_ws(' ', 'constraint', oid, pg_get_constraintdef(oid)) FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT concat_ws(' ', 'trigger', oid, tgname, tgenabled) FROM pg_trigger
    UNION ALL SELECT concat_ws(' ', 'function', oid, prosrc, proconfig) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT concat_ws(' ', 'schema', nspname) FROM pg_namespace WHERE nspname NOT LIKE 'pg_%'
    UNION ALL SELECT concat_ws(' ', 'setting', setrole, setconfig) FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT concat_ws(' ', 'migration', scope, name, checksum) FROM schema_migration
) AS parts"""
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_WRITTEN_TABLES = """
SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'r' AND relname <> 'schema_migration'
    AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0"""
_RESET_SEQUENCES = """
SELECT setval(seqrelid, seqstart, false) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL"""


class TemplateDatabases:
    """Migrated, empty databases: copied from one template for each package, and emptied for the next borrower.

    Emptying one takes a fifth of the time of copying one. A database whose schema or settings were changed is dropped.
    """

    def __init__(self, admin_url: str) -> None:
        """`admin_url` names a server as a role that may create databases."""
        self._admin_url = admin_url
        #: The schema of each template, as _SCHEMA returns it.
        self._schemas: dict[str, str] = {}
        self._idle: defaultdict[str, list[str]] = defaultdict(list)

    @asynccontextmanager
    async def database(self, package: str) -> AsyncIterator[str]:
        """Yield the URL of a migrated, empty database of a service, or with the chassis's tables alone."""
        if package not in self._schemas:
            await self._create_template(package)
        idle = self._idle[package]
        url = idle.pop() if idle else await self._create(f"{package}_{uuid.uuid4().hex[:12]}", f"template_{package}")
        try:
            yield url
        finally:
            if await self._empty(url, self._schemas[package]):
                idle.append(url)
            else:
                await _execute(self._admin_url, f'DROP DATABASE "{_name(url)}" WITH (FORCE)')

    async def _create_template(self, package: str) -> None:
        url = await self._create(f"template_{package}")
        await migrate(url, None if package == "chassis" else Path(str(files(package))))
        async with _connection(url) as connection:
            self._schemas[package] = await connection.fetchval(_SCHEMA)

    async def _create(self, name: str, template: str = "template1") -> str:
        await _execute(self._admin_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return urlunsplit(urlsplit(self._admin_url)._replace(path=f"/{name}"))

    async def _empty(self, url: str, schema: str) -> bool:
        """Return whether the database is as new, after ending its sessions and emptying its tables."""
        async with _connection(url) as connection:
            await connection.execute(_END_SESSIONS)
            if await connection.fetchval(_SCHEMA) != schema:
                return False
            await connection.execute("SET session_replication_role = replica")  # triggers keep some tables as they are
            if tables := await connection.fetchval(_WRITTEN_TABLES):
                await connection.execute(f"TRUNCATE {tables} CASCADE")
            await connection.execute(_RESET_SEQUENCES)
            return True


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _execute(url: str, statement: str) -> None:
    async with _connection(url) as connection:
        await connection.execute(statement)


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


@asynccontextmanager
async def serving(
    name: str, settings: S, compose: Callable[[App, S], Awaitable[None]], issuer: Issuer
) -> AsyncIterator[App]:
    """Serve a service in this process, as its `__main__` composes it; on a free port unless `settings` names one."""
    app = App(name, replace(settings, drain_seconds=0.2), issuer.keys)
    async with (await build(app, compose, settings)).serving():
        yield app


@asynccontextmanager
async def client_for(address: str, stub: type[Stub], *, caller: str = "edge") -> AsyncIterator[Stub]:
    """Yield a stub that calls the service at `address` as the workload `caller`."""
    clients = Clients(f"*={address}", caller)
    try:
        yield clients.stub(stub)
    finally:
        await clients.close()
