"""The Redis servers of a stack, the durable one of the event bus and the one of caches, and how services reach them."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from mesh.services import SERVICES
from mesh.stack import redis_accounts
from mesh.stack.process import Program
from mesh.stack.redis_accounts import MakeAccount
from mesh.stack.secrets import Secrets
from mesh.stack.servers.redis import CACHE, Account, Redis

_BUS, _CACHE = "redis", "redis_cache"
_READER = "verify"


class RedisServers:
    """Servers with an account for each use of each service; those that the environment names are used as they are."""

    def __init__(self, folder: Path, run: Path, secrets: Secrets, events: Literal["redis", "kafka"]) -> None:
        """Store data below `folder`, and listen on sockets in `run`."""
        self._secrets = secrets
        self._bus_url = os.environ.get("REDIS_URL", "")
        self._cache_url = os.environ.get("CACHE_URL", "") or self._bus_url
        self._bus = self._cache = None
        if events == "redis" and not self._bus_url:
            makes = (redis_accounts.publisher, redis_accounts.consumer)
            accounts = [self._account(_BUS, make, name) for name in SERVICES for make in makes]
            accounts.append(self._account(_BUS, redis_accounts.reader, _READER))
            self._bus = Redis(folder / _BUS, run, name=_BUS, accounts=accounts)
        if not self._cache_url:
            accounts = [self._account(_CACHE, redis_accounts.cache, name) for name in SERVICES]
            self._cache = Redis(folder / _CACHE, run, name=_CACHE, settings=CACHE, accounts=accounts)

    def programs(self) -> Iterator[Program]:
        """Yield the programs of the servers."""
        yield from (server.program() for server in (self._bus, self._cache) if server)

    def environment(self, service: str) -> dict[str, str]:
        """Return the settings of a service that name the servers and its accounts."""
        urls = {"REDIS_URL": self._bus_url, "CACHE_URL": self._cache_url}
        if self._bus:
            urls["REDIS_URL"] = self._bus.url_of(self._account(_BUS, redis_accounts.publisher, service))
            urls["REDIS_CONSUMER_URL"] = self._bus.url_of(self._account(_BUS, redis_accounts.consumer, service))
        if self._cache:
            urls["CACHE_URL"] = self._cache.url_of(self._account(_CACHE, redis_accounts.cache, service))
        return urls

    def _account(self, server: str, make: MakeAccount, service: str) -> Account:
        return make(service, partial(self._secrets.account, server))


def bus_reader_url(folder: Path, run: Path, secrets: Secrets) -> str:
    """Return the URL of a stack's own bus for the account that only reads."""
    account = redis_accounts.reader(_READER, partial(secrets.account, _BUS))
    return Redis(folder / _BUS, run, name=_BUS).url_of(account)
