"""Every RPC of the contract checks its request before the handler runs, unary or streaming."""

import asyncio
import importlib
from pathlib import Path

import grpc
import protovalidate
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from chassis import Settings
from chassis.testing import serving
from shop.contract import RPCS, Access
from shop.inventory.v1 import inventory_service_pb2 as inventory

#: Requests that no value can invalidate, and webhooks, whose body has the format of its sender.
WITHOUT_RULES = {
    HttpBody.DESCRIPTOR.full_name,
    "shop.user.v1.GetJwksRequest",
    "shop.user.v1.GetMeRequest",
    "shop.user.v1.LogoutRequest",
    "shop.user.v1.WatchRevocationsRequest",
}


def generated(repository: Path):
    """The generated module of each gRPC service, by the service's name."""
    modules = {}
    for path in sorted((repository / "gen").glob("shop/*/v1/*_pb2_grpc.py")):
        name = ".".join(path.relative_to(repository / "gen").with_suffix("").parts)
        messages = importlib.import_module(name.removesuffix("_grpc"))
        for service in messages.DESCRIPTOR.services_by_name.values():
            modules[service.full_name] = importlib.import_module(name)
    return modules


def wrong_values(field: FieldDescriptor):
    """Values of a field's type that rules usually forbid."""
    kinds = {
        FieldDescriptor.CPPTYPE_STRING: ["\0" * 10_000]
        if field.type == FieldDescriptor.TYPE_STRING
        else [b"\0" * 10**6],
        FieldDescriptor.CPPTYPE_INT32: [-1, 2**31 - 1],
        FieldDescriptor.CPPTYPE_INT64: [-1, 2**63 - 1],
        FieldDescriptor.CPPTYPE_UINT32: [2**32 - 1],
        FieldDescriptor.CPPTYPE_UINT64: [2**64 - 1],
        FieldDescriptor.CPPTYPE_ENUM: [9_999],
    }
    return kinds.get(field.cpp_type, [])


def invalid_request(type_name: str):
    """A request of this type that breaks a rule, or None if none is found."""
    kind = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(type_name))
    if protovalidate.collect_violations(kind()):
        return kind()
    for field in kind.DESCRIPTOR.fields:
        for value in wrong_values(field):
            request = kind(**{field.name: [value] if field.is_repeated else value})
            if protovalidate.collect_violations(request):
                return request
    return None


@pytest.fixture
async def served(issuer, repository):
    """Every gRPC service, with handlers that only record their calls."""
    called = []

    def handler(path, *, streams):
        async def unary(request, context):
            called.append(path)
            raise LookupError(path)

        async def stream(request, context):
            called.append(path)
            return
            yield

        return stream if streams else unary

    modules = generated(repository)

    async def compose(app, _settings):
        for service, module in modules.items():
            name = service.rpartition(".")[2]
            handlers = {
                rpc.method: staticmethod(handler(path, streams=rpc.server_streaming))
                for path, rpc in RPCS.items()
                if rpc.service == service
            }
            servicer = type("Servicer", (getattr(module, f"{name}Servicer"),), handlers)()
            app.serve(servicer)

    async with (
        serving("svc_toy", Settings(), compose, issuer) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        stubs = {
            service: getattr(module, f"{service.rpartition('.')[2]}Stub")(channel)
            for service, module in modules.items()
        }
        yield stubs, called


async def outcome(stub, rpc, request, metadata):
    """The status of a call."""
    call = getattr(stub, rpc.method)(request, metadata=metadata)
    try:
        await (call.read() if rpc.server_streaming else call)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_every_rpc_rejects_a_request_that_breaks_a_rule_before_its_handler_runs(served, issuer):
    stubs, called = served
    tried = {
        path: (rpc, invalid_request(rpc.request_type))
        for path, rpc in RPCS.items()
        if rpc.request_type not in WITHOUT_RULES
    }
    assert [rpc.request_type for rpc, request in tried.values() if request is None] == [], "no value breaks a rule"

    async def attempt(rpc, request):
        metadata = [("x-shop-caller", rpc.callers[0])]
        if rpc.access is not Access.WORKLOAD:
            metadata.append(("authorization", f"Bearer {issuer.token('user-1', *rpc.roles)}"))
        return await outcome(stubs[rpc.service], rpc, request, metadata)

    outcomes = await asyncio.gather(*(attempt(*one) for one in tried.values()))
    accepted = {
        path: code for path, code in zip(tried, outcomes, strict=True) if code is not grpc.StatusCode.INVALID_ARGUMENT
    }
    assert accepted == {}
    assert called == []
    assert {rpc.server_streaming for rpc, _ in tried.values()} == {True, False}


async def test_of_a_large_invalid_request_one_violation_is_found_and_an_outline_is_logged(serve, connect, failure, log):
    """5,000 violations took 120 ms of the event loop, and 1.5 MB of the log."""
    request = inventory.BatchGetStockRequest(skus=[f"!{number:045}" for number in range(5_000)])
    async with serve() as app, connect(app.address) as call:
        rejected = await failure(call.BatchGetStock(request, metadata=(("x-shop-caller", "edge"),)))
    assert rejected.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(rejected.details[error_details_pb2.BadRequest].field_violations) == 1
    (line,) = log.text.splitlines()
    assert len(line) < 2_500
