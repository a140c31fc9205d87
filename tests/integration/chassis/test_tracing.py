"""Spans: a service with a collector exports a span of every call, event and job, in the trace of its cause."""

import asyncio
import os
import signal
import sys

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from chassis import Database
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.user.v1 import auth_service_pb2 as user

TRACE = "a1" * 16


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that records every span with the service that sent it."""

    def __init__(self):
        self.spans = []

    async def Export(self, request, _context):  # noqa: N802  gRPC's name
        for resource_spans in request.resource_spans:
            names = {one.key: one.value.string_value for one in resource_spans.resource.attributes}
            self.spans += [
                (names["service.name"], span) for scope in resource_spans.scope_spans for span in scope.spans
            ]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def collector():
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield collector
    await server.stop(0)


@pytest.fixture
async def users(issuer, serve):
    """svc_user as far as svc_inventory calls it, with the metadata that it was called with."""
    seen = []

    async def get_jwks(request, context):
        seen.extend(context.invocation_metadata())
        return user.JsonWebKeySet(keys=[user.JsonWebKey(**key) for key in (await issuer.keys())["keys"]])

    async with serve(GetJwks=get_jwks) as app:
        app.seen = seen
        yield app


@pytest.fixture
async def service(start, environment, collector, users):
    """svc_inventory as a process of its own: tracing changes gRPC for the whole process."""
    places = {"UPSTREAMS": f"*={users.address}", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}"}
    async with start(**environment, **places) as service:
        yield service


async def ended(service):
    """Stop it, so that it exports its buffered spans."""
    service.child.send_signal(signal.SIGTERM)
    assert await service.ended() == 0


async def test_every_call_is_a_span_of_its_service_in_the_callers_trace(service, collector):
    metadata = (("x-shop-caller", "svc_order"), ("traceparent", f"00-{TRACE}-{'b2' * 8}-01"))
    async with grpc.aio.insecure_channel((await service.said("serving"))["address"]) as channel:
        stub = InventoryServiceStub(channel)
        await stub.BatchGetStock(pb.BatchGetStockRequest(skus=["a"]), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStock(pb.GetStockRequest(sku="a"), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as invalid:
            await stub.GetStock(pb.GetStockRequest(sku="?"), metadata=metadata)
        assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await ended(service)
    spans = [(name, span) for name, span in collector.spans if span.trace_id.hex() == TRACE]
    assert {name for name, _ in spans} == {"svc_inventory"}
    assert sorted(span.name for _, span in spans) == [
        "/shop.inventory.v1.InventoryService/BatchGetStock",
        "/shop.inventory.v1.InventoryService/GetStock",
        "/shop.inventory.v1.InventoryService/GetStock",
    ]
    assert {span.parent_span_id.hex() for _, span in spans} == {"b2" * 8}


async def test_an_outgoing_call_is_a_span_below_and_carries_one_trace_context(service, collector, users, issuer):
    metadata = (
        ("x-shop-caller", "edge"),
        ("traceparent", f"00-{TRACE}-{'b2' * 8}-01"),
        ("authorization", f"Bearer {issuer.token('staff-1', 'staff')}"),
    )
    async with grpc.aio.insecure_channel((await service.said("serving"))["address"]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await InventoryServiceStub(channel).ListStockLevels(pb.ListStockLevelsRequest(sku="a"), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    await ended(service)
    spans = {span.name.rpartition("/")[2]: span for _, span in collector.spans if span.trace_id.hex() == TRACE}
    assert spans["GetJwks"].parent_span_id == spans["ListStockLevels"].span_id
    contexts = [value for key, value in users.seen if key == "traceparent"]
    assert contexts == [f"00-{TRACE}-{spans['GetJwks'].span_id.hex()}-01"]


async def test_an_event_of_a_call_carries_the_calls_span(service, collector, environment, issuer):
    metadata = (
        ("x-shop-caller", "edge"),
        ("traceparent", f"00-{TRACE}-{'b2' * 8}-01"),
        ("authorization", f"Bearer {issuer.token('staff-1', 'staff')}"),
    )
    request = pb.SetStockRequest(sku="a", location_id="bkk", on_hand=1, request_id="k")
    async with grpc.aio.insecure_channel((await service.said("serving"))["address"]) as channel:
        await InventoryServiceStub(channel).SetStock(request, metadata=metadata)
    await ended(service)
    spans = {span.name.rpartition("/")[2]: span for _, span in collector.spans if span.trace_id.hex() == TRACE}
    async with Database.open(environment["DATABASE_URL"]) as database:
        stored = await database.pool.fetchval("SELECT traceparent FROM outbox")
    assert stored == f"00-{TRACE}-{spans['SetStock'].span_id.hex()}-01"


#: The work of a consumer or a worker: in the trace of its cause, it calls another service and may fail.
WORK = """
import asyncio, sys
from chassis import telemetry
from chassis.rpc.client import Clients
from shop.user.v1.auth_service_pb2 import GetJwksRequest
from shop.user.v1.auth_service_pb2_grpc import AuthServiceStub

async def main(upstream, traceparent):
    clients = Clients("*=" + upstream, "svc_toy")
    with telemetry.traced(traceparent, "the event"):
        print(telemetry.inject()["traceparent"])
        await clients.stub(AuthServiceStub).GetJwks(GetJwksRequest())
    try:
        with telemetry.traced(traceparent, "the failure"):
            raise ValueError("canary")
    except ValueError:
        pass
    with telemetry.traced("", "without a cause"):
        pass
    await clients.close()

telemetry.start_tracing("svc_toy")
asyncio.run(main(*sys.argv[1:]))
"""


async def test_work_outside_of_a_call_is_a_span_between_its_cause_and_its_calls(collector, users, repository):
    parent = f"00-{TRACE}-{'b2' * 8}-01"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORK, users.address, parent),
        cwd=repository,
        env={
            "PYTHONPATH": os.pathsep.join((".", "gen")),
            "PATH": os.environ["PATH"],
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    spans = {span.name.rpartition("/")[2]: span for _, span in collector.spans}
    event, failure, call = spans["the event"], spans["the failure"], spans["GetJwks"]
    assert event.parent_span_id.hex() == failure.parent_span_id.hex() == "b2" * 8
    assert call.parent_span_id == event.span_id
    assert {span.trace_id.hex() for span in (event, failure, call)} == {TRACE}
    assert output.decode().strip() == f"00-{TRACE}-{event.span_id.hex()}-01"
    contexts = [value for key, value in users.seen if key == "traceparent"]
    assert contexts == [f"00-{TRACE}-{call.span_id.hex()}-01"]
    assert failure.status.code == failure.status.STATUS_CODE_ERROR
    assert "canary" not in str(failure)
    assert spans["without a cause"].trace_id.hex() != TRACE
    assert not spans["without a cause"].parent_span_id
