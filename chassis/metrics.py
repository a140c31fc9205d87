"""Metrics of a process, for Prometheus: what its parts record, and gauges that are read when they are scraped.

Names and units are those of OpenTelemetry as Prometheus spells them. Recording a value takes about a microsecond, since
the children of a metric, one for each combination of labels, are looked up once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import Metric

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]

#: What all parts of the process record.
REGISTRY = CollectorRegistry()

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)

SERVED = Histogram(
    "rpc_server_duration_seconds", "Served calls.", ("method", "code"), registry=REGISTRY, buckets=_SECONDS
)
STREAMS = Counter("rpc_server_streams", "Streams that ended.", ("method", "code"), registry=REGISTRY)
CALLED = Histogram(
    "rpc_client_duration_seconds", "Calls of services.", ("method", "code"), registry=REGISTRY, buckets=_SECONDS
)
EXTERNAL = Histogram(
    "external_call_duration_seconds", "Calls of external APIs.", ("api", "result"), registry=REGISTRY, buckets=_SECONDS
)
BREAKER_OPEN = Gauge("external_breaker_open", "1 while no call of the API is made.", ("api",), registry=REGISTRY)
POOL_WAIT = Histogram(
    "db_pool_wait_seconds", "Waits for a database connection.", registry=REGISTRY, buckets=(0.001, *_SECONDS)
)
POOL_TIMEOUTS = Counter("db_pool_timeouts", "Calls rejected because no connection became free.", registry=REGISTRY)
LANE_BATCH = Histogram(
    "lane_batch_size", "Requests of a batch.", registry=REGISTRY, buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
LANE_CONFLICTS = Counter("lane_conflicts", "Batches repeated after a conflict.", registry=REGISTRY)
JOBS = Counter("background_jobs", "Attempts at background jobs.", ("work", "outcome"), registry=REGISTRY)
WAITING = Gauge("background_work_waiting", "1 while the work cannot proceed.", ("work", "reason"), registry=REGISTRY)
RELAY_LEADER = Gauge("outbox_relay_leader", "1 while this process publishes the outbox.", registry=REGISTRY)
PUBLISHED = Counter("outbox_events_published", "Events published to the bus.", ("type",), registry=REGISTRY)
EVENTS_LOST = Counter("bus_events_lost", "Events that were deleted before they were applied.", registry=REGISTRY)
APPLIED = Counter("consumer_events", "Consumed events.", ("type", "outcome"), registry=REGISTRY)
EVENT_AGE = Histogram(
    "consumer_event_age_seconds", "Age of events when applied.", registry=REGISTRY, buckets=_LONG_SECONDS
)
LOOP_LAG = Histogram("event_loop_lag_seconds", "Delay of a due timer.", registry=REGISTRY, buckets=(0.001, *_SECONDS))
UNREAD = Counter("metrics_unread_gauges", "Gauges that could not be read.", ("gauge",), registry=REGISTRY)

#: A gauge is not read again before this time, in seconds, so that frequent scrapes cost no queries.
_FRESH_SECONDS = 3.0
#: Seconds that reading a gauge may take.
_READ_SECONDS = 2.0
_LOOP_SECONDS = 0.5
_REQUEST_SECONDS = 5.0
_REQUEST_BYTES = 8_192


class Calls:
    """Records the calls of one method; the duration of a stream says how long its client listened, and is left out."""

    def __init__(self, method: str, *, streaming: bool = False, histogram: Histogram = SERVED) -> None:
        """Record calls of `method`, a path: /package.Service/Method."""
        self._method = method
        self._streaming = streaming
        self._histogram = histogram
        self._records: dict[str, Callable[[float], None]] = {}

    def record(self, code: str, seconds: float) -> None:
        """Record a call that ended with the status code, by its name, after `seconds`."""
        record = self._records.get(code)
        if record is None:
            if self._streaming:
                count = STREAMS.labels(self._method, code).inc
                record = self._records[code] = lambda _: count()
            else:
                record = self._records[code] = self._histogram.labels(self._method, code).observe
        record(seconds)


_reasons: dict[str, str] = {}


def work_waits(work: str, reason: str) -> None:
    """Record that background work of this name cannot proceed, and why: the class of the error."""
    work_proceeds(work)
    _reasons[work] = reason
    WAITING.labels(work, reason).set(1)


def work_proceeds(work: str) -> None:
    """Record that the work proceeds."""
    if (reason := _reasons.pop(work, None)) is not None:
        WAITING.remove(work, reason)


#: A gauge's value, or several with their labels.
Reading = float | Sequence[tuple[Mapping[str, str], float]]


@dataclass
class _Reader:
    name: str
    description: str
    read: Callable[[], Awaitable[Reading]]
    values: Sequence[tuple[Mapping[str, str], float]] = ()
    read_at: float = float("-inf")


class Gauges:
    """The gauges of one service that are read when its metrics are scraped."""

    def __init__(self) -> None:
        """Start without any."""
        self._readers: dict[str, _Reader] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add(self, name: str, description: str, read: Callable[[], Awaitable[Reading]]) -> None:
        """Add a gauge, whose value or values `read` returns."""
        self._readers[name] = _Reader(name, description, read)

    async def scrape(self) -> bytes:
        """Return all metrics of the process and the service in Prometheus's text format."""
        await asyncio.gather(*map(self._refresh, self._readers.values()))
        return generate_latest(REGISTRY) + generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges with the values that were read last: prometheus_client calls this."""
        for reader in self._readers.values():
            family = Metric(reader.name, reader.description, "gauge")
            for labels, value in reader.values:
                family.add_sample(reader.name, dict(labels), value)
            yield family

    async def _refresh(self, reader: _Reader) -> None:
        if time.monotonic() < reader.read_at + _FRESH_SECONDS:
            return
        reader.read_at = time.monotonic()
        try:
            async with asyncio.timeout(_READ_SECONDS):
                value = await reader.read()
            reader.values = value if isinstance(value, Sequence) else [({}, value)]
        except Exception as error:  # noqa: BLE001  whatever is wrong with one gauge, the others are shown
            reader.values = ()  # an old value would hide that the state is unknown
            UNREAD.labels(reader.name).inc()
            log.warning("gauge not read", extra={"gauge": reader.name, "error": repr(error)})


@asynccontextmanager
async def serving_metrics(listen: str, gauges: Gauges, *, reuse_port: bool = False) -> AsyncIterator[None]:
    """Answer GET /metrics at `listen`, host:port, and measure the lag of the event loop."""
    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(
        partial(_serve_scrape, gauges), host.strip("[]"), int(port), limit=_REQUEST_BYTES, reuse_port=reuse_port
    )
    lag = asyncio.create_task(_measure_loop())
    try:
        async with server:
            yield
    finally:
        lag.cancel()


async def _serve_scrape(gauges: Gauges, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            request = await reader.readuntil(b"\r\n\r\n")
            found = request.startswith((b"GET /metrics ", b"GET /metrics?"))
            status, body = (b"200 OK", await gauges.scrape()) if found else (b"404 Not Found", b"")
            head = b"HTTP/1.1 %b\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n" % status
            writer.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client's own fault, or it is gone
    finally:
        with suppress(OSError):
            writer.close()


async def _measure_loop() -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + _LOOP_SECONDS
        await asyncio.sleep(_LOOP_SECONDS)
        LOOP_LAG.observe(max(clock() - due, 0.0))
