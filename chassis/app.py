"""The resources of a service: opened in order, closed in reverse order; between them it serves and drains."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import asyncpg
import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from chassis.cache import Cache
from chassis.cancellation import cancel_and_wait, cancelled_from_outside
from chassis.events.bus import Bus
from chassis.events.consumer import Consumer, Handler
from chassis.events.redis_bus import RedisBus
from chassis.events.relay import Relay
from chassis.events.retention import retention
from chassis.metrics import Gauges, serving_metrics, work_proceeds, work_waits
from chassis.postgres.change_feed import ChangeFeed
from chassis.postgres.database import UNAVAILABLE_ERRORS, Database
from chassis.postgres.gauges import add_database_gauges
from chassis.rpc.auth import KeySource, TokenVerifier, http_key_source
from chassis.rpc.client import Clients, contract_key_source, contract_revocation_source
from chassis.rpc.pipeline import Pipeline
from chassis.rpc.rate_limit import RateLimiter
from chassis.rpc.reflection import add_reflection
from chassis.rpc.revocations import RevocationSource
from chassis.settings import Settings, SettingsError
from shop.services import service_of_servicer
from shop.topics import EVENTS, TOPICS

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)
Stub = TypeVar("Stub")

_PURGE_SECONDS = 3600.0
#: The relay holds one for its lease and the change feed; the relay and the calls each need one more.
_LEAST_CONNECTIONS = 3


class App:
    """The resources of a service, for its composition root. Made by `run` and by `chassis.testing`."""

    def __init__(self, name: str, settings: Settings, keys: KeySource | None = None) -> None:
        """`name` is the service's folder and its identity as a workload; `keys` replaces the source of token keys."""
        self.name = name
        self.settings = settings
        #: Read when the metrics are scraped.
        self.gauges = Gauges()
        #: `host:port` once serving.
        self.address = ""
        self._closing = AsyncExitStack()
        self._background: list[Coroutine[Any, Any, None]] = []
        self._services: list[str] = []
        self._change_feeds: list[ChangeFeed] = []
        self._clients = Clients(settings.upstreams, name)
        self._closing.push_async_callback(self._clients.close)  # closed last: resources that close may still call
        self._health = health.HealthServicer()
        self._bus: Bus | None = None
        self._verifier = TokenVerifier(keys or self._keys(), settings.token_issuer, settings.token_audience)
        #: Tokens of another issuer have no sessions here.
        self._revocations = None if keys or settings.jwks_url else contract_revocation_source(self._clients)
        limiter = RateLimiter.connect(settings)
        self._closing.push_async_callback(limiter.close)
        self._server = grpc.aio.server(
            interceptors=[Pipeline(self._verifier, limiter, settings)],
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.max_metadata_size", 8_192),
                ("grpc.absolute_max_metadata_size", 16_384),
                ("grpc.so_reuseport", int(settings.reuse_port)),
            ],
        )

    async def database(self) -> Database:
        """Open the service's database, with its outbox relayed to the bus."""
        settings = self.settings
        if settings.database_connections < _LEAST_CONNECTIONS:
            raise SettingsError(f"DATABASE_CONNECTIONS must be at least {_LEAST_CONNECTIONS}")
        with explain_setting("DATABASE_URL"):
            database: Database = await self._open(Database.open(settings.database_url, settings.database_connections))
        self._change_feeds.append(database.change_feed)
        add_database_gauges(self.gauges, database, self.name)
        kept = timedelta(days=settings.outbox_retention_days)
        self.background(Relay(database, await self.bus(), self.name, retention=kept).run())
        for table, time_column, kept in retention(settings):
            self.purge_older_than(database, table, time_column, kept)
        return database

    async def bus(self) -> Bus:
        """Open the event bus that the settings name."""
        if self._bus is None:
            settings = self.settings
            if settings.events == "kafka":
                from chassis.events.kafka_bus import KafkaBus  # noqa: PLC0415  a fifth of a service's imports

                self._bus = await self._open(KafkaBus.open_with(settings))
            else:
                with explain_setting("REDIS_URL"):
                    opening = RedisBus.open(settings.redis_url, settings.event_prefix, settings.redis_consumer_url)
                    self._bus = await self._open(opening)
        return self._bus

    def cache(self) -> Cache:
        """Return the service's cache."""
        cache = Cache.connect(
            self.settings.cache_url or self.settings.redis_url, self.settings.event_prefix + self.name
        )
        self._closing.push_async_callback(cache.close)
        return cache

    def client(self, stub: type[Stub], *, retries: bool = True) -> Stub:
        """Return a stub of another service, such as `app.client(CatalogServiceStub)`; raises UpstreamError.

        Without `retries` each call is one attempt, for callers that repeat calls themselves.
        """
        return self._clients.stub(stub, retries=retries)

    def serve(self, *servicers: object) -> None:
        """Serve servicers, each an instance of a generated servicer class; raises LookupError for anything else."""
        for servicer in servicers:
            service = service_of_servicer(servicer)
            service.register(servicer, self._server)
            self._services.append(service.name)

    async def consume(self, database: Database, handlers: Mapping[type[Message], Handler]) -> None:
        """Apply events, each in a transaction of `database`; called once, with all handlers.

        Raises LookupError for an event whose topic does not name this service among its consumers.
        """
        for event in handlers:
            topic = TOPICS[EVENTS[event.DESCRIPTOR.full_name].topic]
            if self.name not in topic.consumers:
                raise LookupError(f"{topic.name} does not name {self.name} among its consumers")
        retry_seconds = self.settings.event_retry_seconds
        worker = Consumer(self.name, database, await self.bus(), handlers, retry_seconds=retry_seconds)
        self.gauges.add("consumer_lag_seconds", "Age of the oldest event received and not applied.", worker.lag_seconds)
        self.background(worker.run())
        self.background(worker.redrive())

    def token_keys(self, source: KeySource) -> None:
        """Verify access tokens by the keys of `source`: for the service that issues them, and knows their sessions."""
        self._verifier.source = source
        self._revocations = None

    def token_revocations(self, source: RevocationSource) -> None:
        """Reject the access tokens of the sessions that `source` streams."""
        self._revocations = source

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` from the start of serving until shutdown; its failure ends the process, which is restarted."""
        self._background.append(work)

    def repeat(self, work: Callable[[], Awaitable[bool]], every: float, *, name: str = "") -> None:
        """Repeat `work` while serving: at once when it returns True, else after `every` seconds.

        A run that fails is logged, and the next one follows as usual. `name` is that of the work, for metrics.
        """
        self.background(_repeat(work, every, name or getattr(work, "__name__", "repeat")))

    def purge_older_than(self, database: Database, table: str, time_column: str, retention: timedelta) -> None:
        """Delete the rows of `table` whose `time_column` is older than `retention`, now and every hour."""
        self.repeat(
            partial(database.purge_older_than, table, time_column, retention), _PURGE_SECONDS, name=f"purge_{table}"
        )

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` at shutdown, before resources that were opened earlier are closed."""
        self._closing.push_async_callback(close)

    async def close_unserved(self) -> None:
        """Close the resources of a service that will not be served."""
        for work in self._background:
            work.close()
        await self._closing.aclose()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve for as long as the block runs; then drain and close in reverse order."""
        async with self._closing:
            self._add_operations()
            if self._revocations is not None:
                self.background(self._verifier.revocations.follow(self._revocations))
            port = self._server.add_insecure_port(self.settings.listen)
            self.address = f"{self.settings.listen.rpartition(':')[0]}:{port}"
            if self.settings.metrics_listen:
                with explain_setting("METRICS_LISTEN"):
                    serving = serving_metrics(
                        self.settings.metrics_listen, self.gauges, reuse_port=self.settings.reuse_port
                    )
                    await self._open(serving)
            await self._server.start()
            tasks = [asyncio.create_task(self._watched(work)) for work in self._background]
            await self._set_health(health_pb2.HealthCheckResponse.SERVING)
            try:
                yield
            finally:
                await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
                for feed in self._change_feeds:
                    feed.close()
                await self._server.stop(self.settings.drain_seconds)
                await cancel_and_wait(*tasks)

    async def _open(self, opening: Any) -> Any:
        return await self._closing.enter_async_context(opening)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (Exception, asyncio.CancelledError):
            if cancelled_from_outside():
                raise
            log.exception("background work failed")
            signal.raise_signal(signal.SIGTERM)

    async def _set_health(self, status: Any) -> None:
        for service in ("", *self._services):
            await self._health.set(service, status)

    def _add_operations(self) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection(self._server, (*self._services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name))

    def _keys(self) -> KeySource:
        url = self.settings.jwks_url
        return http_key_source(url) if url else contract_key_source(self._clients)


async def _repeat(work: Callable[[], Awaitable[bool]], every: float, name: str) -> None:
    while True:
        try:
            more = await work()
            work_proceeds(name)
        except UNAVAILABLE_ERRORS as error:
            work_waits(name, type(error).__name__)
            log.warning("background work waits for the database", extra={"error": type(error).__name__})
            more = False
        except Exception as error:
            work_waits(name, type(error).__name__)
            log.exception("background work failed")
            more = False
        if not more:
            await asyncio.sleep(every)


async def build(app: App, compose: Callable[[App, S], Awaitable[None]], settings: S) -> App:
    """Return the app after `compose` has built the service; close its resources when that fails."""
    try:
        await compose(app, settings)
    except BaseException:
        await app.close_unserved()
        raise
    return app


@contextmanager
def explain_setting(setting: str) -> Iterator[None]:
    """Raise SettingsError, which names the setting, for an error in the block."""
    try:
        yield
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise SettingsError(f"{setting} cannot be used: {error}") from error
