"""For tests: a service's real code on a real server and a database of its own, and users with real tokens."""

import asyncio
import time
import uuid
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
        kept = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(kept, self._key, algorithm="EdDSA", headers={"kid": self._id, "typ": "at+jwt"})


async def eventually(look: Callable[[], Any], wanted: Callable[[Any], object] = bool, *, seconds: float = 30.0) -> Any:
    """Return what `look()`, or what it is awaited to, sees once it is `wanted`; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            seen = look()
            if isinstance(seen, Awaitable):
                seen = await seen
            if wanted(seen):
                return seen
            await asyncio.sleep(0.01)


@contextmanager
def as_user(authorization: str = "") -> Iterator[None]:
    """Make the calls in the block as the user whose Authorization header this is."""
    before = current_call()
    enter_call(Call(method="test", authorization=authorization, traceparent=new_traceparent()))
    try:
        yield
    finally:
        enter_call(before)


class TemplateDatabases:
    """Fresh databases, copied from one migrated template for each package."""

    def __init__(self, admin_url: str) -> None:
        """`admin_url` names a server as a role that may create databases."""
        self._admin_url = admin_url
        self._made: dict[str, str] = {}

    @asynccontextmanager
    async def database(self, package: str) -> AsyncIterator[str]:
        """Lend the URL of a new, migrated, empty database of a service, or with the chassis's tables alone."""
        if package not in self._made:
            self._made[package] = await self._create(f"template_{package}")
            await migrate(self._made[package], None if package == "chassis" else Path(str(files(package))))
        url = await self._create(f"{package}_{uuid.uuid4().hex[:12]}", template=f"template_{package}")
        try:
            yield url
        finally:
            await self._execute(f'DROP DATABASE "{_name(url)}" WITH (FORCE)')

    async def _create(self, name: str, template: str = "template1") -> str:
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return urlunsplit(urlsplit(self._admin_url)._replace(path=f"/{name}"))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


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
async def client_for(
    address: str, stub: Callable[[Any], Stub], service: str, *, caller: str = "edge"
) -> AsyncIterator[Stub]:
    """Lend a stub that calls the service at `address` as the workload `caller`."""
    clients = Clients(f"{service}={address}", caller)
    try:
        yield clients.stub(stub, service)
    finally:
        await clients.close()
