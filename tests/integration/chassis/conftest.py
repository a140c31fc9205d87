"""The chassis on real servers: a database with a scratch table, and services whose handlers each test defines."""

import asyncio
import io
import json
import logging
import os
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from chassis import Database, Settings
from chassis.telemetry import JsonFormatter
from chassis.testing import serving
from mesh.stack.ports import Ports, free_base
from mesh.stack.servers import kafka
from shop.inventory.v1.inventory_service_pb2_grpc import (
    InventoryServiceServicer,
    InventoryServiceStub,
)
from shop.order.v1.order_service_pb2_grpc import (
    OrderServiceServicer,
    OrderServiceStub,
)
from shop.user.v1.auth_service_pb2_grpc import AuthServiceServicer, AuthServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer, UserServiceStub

SERVICES = (
    (InventoryServiceServicer, InventoryServiceStub),
    (OrderServiceServicer, OrderServiceStub),
    (AuthServiceServicer, AuthServiceStub),
    (UserServiceServicer, UserServiceStub),
)


@pytest.fixture
async def database_url(fresh_database):
    """A database of no service: the chassis's own tables, and a table to write notes to."""
    async with fresh_database("tests.integration.chassis.scratch") as url:
        yield url


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, connections=5) as database:
        yield database


@pytest.fixture
def serve(issuer):
    """Serve handlers, by the names of their RPCs, in the real pipeline: `async with serve(GetStock=...) as app`."""

    @asynccontextmanager
    async def serve(*, name="svc_toy", settings=None, compose=None, **handlers):
        async def put_together(app, values):
            if compose:
                await compose(app)
            for servicer, _ in SERVICES:
                toy = type("Toy", (servicer,), {})()
                for rpc, handler in handlers.items():
                    if hasattr(toy, rpc):
                        setattr(toy, rpc, handler)
                app.serve(toy)

        async with serving(name, settings or Settings(), put_together, issuer) as app:
            yield app

    return serve


@pytest.fixture
def connect():
    """Plain gRPC stubs of all services, as any client has them: `async with connect(app.address) as call`."""

    @asynccontextmanager
    async def connect(address):
        async with grpc.aio.insecure_channel(address) as channel:
            stubs = [stub(channel) for _, stub in SERVICES]
            yield SimpleNamespace(**{rpc: method for stub in stubs for rpc, method in vars(stub).items()})

    return connect


@pytest.fixture
def log():
    """The log of the chassis, at every level, in a service's format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("svc_toy"))
    logger = logging.getLogger("chassis")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield Log(stream)
    logger.removeHandler(handler)
    logger.setLevel(before)


class Log:
    def __init__(self, stream):
        self._stream = stream

    @property
    def text(self):
        return self._stream.getvalue()

    def lines(self, message=""):
        lines = map(json.loads, self.text.splitlines())
        return [line for line in lines if message in ("", line["message"])]

    def calls(self):
        return self.lines("rpc")


class Failure:
    """A failed call, as its client sees it."""

    def __init__(self, error):
        self.code = error.code()
        self.text = f"{error.details()} {error.debug_error_string()} {error.trailing_metadata()}"
        self.message = error.details()
        self.details = {}
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                self.status = status_pb2.Status.FromString(value)
                for detail in self.status.details:
                    kind = getattr(error_details_pb2, detail.type_url.rpartition(".")[2])
                    self.details[kind] = kind.FromString(detail.value)

    @property
    def reason(self):
        info = self.details.get(error_details_pb2.ErrorInfo)
        return info.reason if info else None


@pytest.fixture
def failure():
    """Awaits a call that must fail: `await failure(call.GetStock(...))`."""

    async def failure(call):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with asyncio.timeout(20):
                await call
        return Failure(raised.value)

    return failure


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_bootstrap(tmp_path_factory):
    if problem := kafka.missing():
        pytest.skip(f"NOT TESTED on Kafka: {problem}")
    ports = Ports(free_base())
    folder = tmp_path_factory.mktemp("kafka")
    async with kafka.Kafka(folder, port=ports.kafka, controller_port=ports.kafka_controller) as broker:
        yield broker.bootstrap


PATIENCE = 30


class Service:
    """`python -m svc_inventory`, and what it logs."""

    def __init__(self, child):
        self.child = child
        self.lines = []

    async def said(self, message):
        """Wait for a log line."""
        async with asyncio.timeout(PATIENCE):
            while True:
                line = await self.child.stderr.readline()
                assert line, f"it ended without saying {message!r}: {self.lines}"
                self.lines.append(json.loads(line))
                if self.lines[-1]["message"] == message:
                    return self.lines[-1]

    async def ended(self):
        """Wait for its end, and return its exit code."""
        async with asyncio.timeout(PATIENCE):
            rest = await self.child.stderr.read()
            self.lines += [json.loads(line) for line in rest.splitlines()]
            return await self.child.wait()


@pytest.fixture
def start(repository):
    @asynccontextmanager
    async def start(*arguments, **environment):
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "svc_inventory", *arguments),
            cwd=repository,
            env={**inherited, "PYTHONPATH": os.pathsep.join((".", "gen")), **environment},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Service(child)
        finally:
            if child.returncode is None:
                child.kill()
            await child.communicate()

    return start


@pytest.fixture
async def environment(fresh_database, redis_url, event_prefix):
    async with fresh_database("svc_inventory") as url:
        yield {"DATABASE_URL": url, "MIGRATION_DATABASE_URL": url, "REDIS_URL": redis_url, "EVENT_PREFIX": event_prefix}
