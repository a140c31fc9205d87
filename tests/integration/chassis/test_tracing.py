"""Spans: a service that is told of a collector exports a span of every call, in the caller's trace."""

import signal

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.user.v1 import auth_service_pb2 as user

TRACE = "a1" * 16


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What stands in the place of a collector: it keeps every span with the service that sent it."""

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
    """Have it stop, and so export what it still holds."""
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


async def test_a_call_that_it_makes_itself_is_a_span_below_and_carries_one_trace_context(
    service, collector, users, issuer
):
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
