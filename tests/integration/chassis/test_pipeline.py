"""The server pipeline on a real server: for any outcome of a handler the client gets one status in time."""

import asyncio
import json

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from chassis import OutcomeUnknown, Settings, VersionConflict, current_call
from chassis.postgres.database import Overloaded
from chassis.testing import eventually
from shop.chassis.v1.chassis_errors import OperationInFlight
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import InsufficientStock

EDGE = (("x-shop-caller", "edge"),)
ORDER = (("x-shop-caller", "svc_order"),)
CANARY = "canary-52c9"
REQUEST = pb.GetStockRequest(sku="a")


def raising(error):
    async def handler(request, context):
        raise error

    return handler


async def watching(request, context):
    raise ValueError(CANARY)
    yield


async def answering(request, context):
    return pb.Stock(sku=request.sku)


class Waiting:
    """A handler that waits, and records how it ended."""

    def __init__(self):
        self.began = 0
        self.ended = []
        self.go_on = asyncio.Event()

    async def __call__(self, request, _context):
        self.began += 1
        try:
            await self.go_on.wait()
        except BaseException as error:
            self.ended.append(type(error))
            raise
        return pb.Stock(sku=request.sku)


async def test_a_call_is_logged_in_one_line(serve, connect, log):
    async with serve(GetStock=answering) as app, connect(app.address) as call:
        assert (await call.GetStock(REQUEST, metadata=EDGE)).sku == "a"
    (line,) = log.calls()
    assert line["milliseconds"] > 0
    assert (line["method"], line["code"], line["caller"]) == (
        "/shop.inventory.v1.InventoryService/GetStock",
        "OK",
        "edge",
    )


@pytest.mark.parametrize("rpc", ["GetStock", "WatchAvailability"])
async def test_a_cancellation_that_leaks_out_of_an_inner_task_is_a_status_at_once(serve, connect, failure, rpc):
    """grpc.aio alone would leave a client without a deadline waiting without limit."""

    async def unary(request, context):
        inner = asyncio.create_task(asyncio.Event().wait())
        inner.cancel()
        await inner

    async def stream(request, context):
        await unary(request, context)
        yield

    async with serve(GetStock=unary, WatchAvailability=stream) as app, connect(app.address) as call:
        if rpc == "GetStock":
            failed = await failure(call.GetStock(REQUEST, metadata=EDGE))
        else:
            failed = await failure(
                call.WatchAvailability(pb.WatchAvailabilityRequest(skus=["a"]), metadata=EDGE).read()
            )
        assert failed.code is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_cancels_ends_its_handler(serve, connect, log):
    """The handler gets CancelledError, though context.cancelled() is False."""
    waiting = Waiting()
    async with serve(GetStock=waiting) as app, connect(app.address) as call:
        going = call.GetStock(REQUEST, metadata=EDGE)
        await eventually(lambda: waiting.began)
        going.cancel()
        await eventually(lambda: waiting.ended)
        await eventually(log.calls)
    assert waiting.ended == [asyncio.CancelledError]
    assert [line["code"] for line in log.calls()] == ["CANCELLED"]


async def test_a_deadline_of_the_client_ends_its_handler(serve, connect, failure, log):
    waiting = Waiting()
    async with serve(GetStock=waiting) as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE, timeout=1.0))
        assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(log.calls)
    assert waiting.ended == [asyncio.CancelledError]
    assert log.calls()[0]["code"] in ("CANCELLED", "DEADLINE_EXCEEDED")


async def test_a_call_that_ends_after_its_deadline_counts_as_late_and_not_as_cancelled(serve, connect, log):
    """GRPC cancels it in both cases, and the alerts count the late ones."""

    async def late(request, context):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await eventually(lambda: not current_call().remaining())
            raise

    async with serve(GetStock=late) as app, connect(app.address) as call:
        with pytest.raises(grpc.aio.AioRpcError):
            await call.GetStock(REQUEST, metadata=EDGE, timeout=0.5)
        await eventually(log.calls)
    assert [line["code"] for line in log.calls()] == ["DEADLINE_EXCEEDED"]


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_the_contract_bounds_a_call_whose_client_would_wait_longer(serve, connect, failure, timeout):
    waiting = Waiting()
    async with serve(GetStock=waiting) as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE, timeout=timeout))
    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert waiting.ended == [asyncio.CancelledError]


async def test_a_watcher_that_cancels_closes_its_handler(serve, connect, log):
    closed = asyncio.Event()

    async def stream(request, context):
        try:
            yield pb.WatchAvailabilityResponse(resume_token="1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with serve(WatchAvailability=stream) as app, connect(app.address) as call:
        watch = call.WatchAvailability(pb.WatchAvailabilityRequest(skus=["a"]), metadata=EDGE)
        assert (await watch.read()).resume_token == "1"
        watch.cancel()
        await eventually(closed.is_set)
        await eventually(log.calls)
    assert [line["code"] for line in log.calls()] == ["CANCELLED"]


async def test_a_watcher_that_cancels_between_two_messages_closes_its_handler(serve, connect, log):
    """The handler is then suspended at its yield, where it gets no cancellation."""
    closed = asyncio.Event()

    async def stream(request, context):
        try:
            while True:
                yield pb.WatchAvailabilityResponse(resume_token="x" * 100_000)
        finally:
            closed.set()

    async with serve(WatchAvailability=stream) as app, connect(app.address) as call:
        watch = call.WatchAvailability(pb.WatchAvailabilityRequest(skus=["a"]), metadata=EDGE)
        await watch.read()
        watch.cancel()
        await eventually(closed.is_set)
        await eventually(log.calls)
    assert [line["code"] for line in log.calls()] == ["CANCELLED"]


def unspeakable():
    class Unspeakable(Exception):
        def __str__(self):
            raise ValueError(CANARY)

    return Unspeakable()


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"SELECT secret FROM account -- {CANARY}"),
        KeyError(CANARY),
        asyncpg.UndefinedTableError(f'relation "{CANARY}" does not exist'),
        asyncpg.UniqueViolationError(CANARY),
        ExceptionGroup(CANARY, [RuntimeError(CANARY)]),
        AssertionError(CANARY),
        RecursionError(CANARY),
        unspeakable(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_unexpected_error_is_an_id_for_the_client_and_logged_in_full(serve, connect, failure, log, error):
    """grpc.aio alone sends the exception's text to the caller."""
    async with serve(GetStock=raising(error)) as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE))
    assert failed.code is grpc.StatusCode.INTERNAL
    assert CANARY not in failed.text
    (line,) = log.lines("unexpected error")
    assert line["error_id"] in failed.message
    assert line["level"] == "ERROR"
    assert type(error).__name__ in line["exception"]


async def test_an_unexpected_error_of_a_stream_is_an_id_for_the_client(serve, connect, failure, log):
    async with serve(WatchAvailability=watching) as app, connect(app.address) as call:
        watch = call.WatchAvailability(pb.WatchAvailabilityRequest(skus=["a"]), metadata=EDGE)
        failed = await failure(watch.read())
    assert failed.code is grpc.StatusCode.INTERNAL
    assert CANARY not in failed.text
    (line,) = log.lines("unexpected error")
    assert line["error_id"] in failed.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutcomeUnknown("/shop.X/Y", grpc.StatusCode.UNAVAILABLE), "UNAVAILABLE"),
        (ConnectionRefusedError(CANARY), "UNAVAILABLE"),
        (asyncpg.InterfaceError(f"connection is closed {CANARY}"), "UNAVAILABLE"),
        (asyncpg.InternalClientError(CANARY), "UNAVAILABLE"),
        (asyncpg.ConnectionDoesNotExistError(CANARY), "UNAVAILABLE"),
        (asyncpg.AdminShutdownError(CANARY), "UNAVAILABLE"),
        (asyncpg.CannotConnectNowError(CANARY), "UNAVAILABLE"),
        (asyncpg.DiskFullError(CANARY), "UNAVAILABLE"),
        (TimeoutError(CANARY), "DEADLINE_EXCEEDED"),
        (Overloaded(), "RESOURCE_EXHAUSTED"),
        (asyncpg.TooManyConnectionsError(CANARY), "RESOURCE_EXHAUSTED"),
        (VersionConflict(), "ABORTED"),
        (asyncpg.DeadlockDetectedError(CANARY), "ABORTED"),
        (asyncpg.SerializationError(CANARY), "ABORTED"),
        (asyncpg.LockNotAvailableError(CANARY), "ABORTED"),
        (OperationInFlight(), "ABORTED"),
        (NotImplementedError(CANARY), "UNIMPLEMENTED"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_each_known_failure_has_a_code_of_its_own(serve, connect, failure, error, code):
    async with serve(GetStock=raising(error)) as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE))
    assert failed.code.name == code
    assert CANARY not in failed.text


async def test_an_rpc_without_a_handler_is_unimplemented(serve, connect, failure):
    async with serve() as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE))
    assert failed.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("error", [Overloaded(), VersionConflict(), OperationInFlight()], ids=repr)
async def test_a_transient_error_says_when_to_retry(serve, connect, failure, error):
    async with serve(GetStock=raising(error)) as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE))
    assert failed.reason in ("OVERLOADED", "WRITE_CONTENDED", "OPERATION_IN_FLIGHT")
    assert failed.details[error_details_pb2.RetryInfo].retry_delay.seconds >= 1


async def test_an_error_has_its_reason_and_its_request_is_logged(serve, connect, failure, log):
    async with serve(GetStock=raising(InsufficientStock(available="a=1"))) as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE))
    assert failed.reason == "INSUFFICIENT_STOCK"
    assert failed.message == failed.status.message
    (line,) = log.calls()
    assert (line["level"], line["reason"], line["request"]) == ("WARNING", "INSUFFICIENT_STOCK", {"sku": "a"})


async def test_an_error_with_large_metadata_arrives(serve, connect, failure):
    error = InsufficientStock(available=", ".join(f"{'s' * 60}{number}=0" for number in range(100)))
    async with serve(ReserveStock=raising(error)) as app, connect(app.address) as call:
        request = pb.ReserveStockRequest(reservation_id="r", order_id="o", lines=[pb.StockLine(sku="a", quantity=1)])
        failed = await failure(call.ReserveStock(request, metadata=ORDER))
    assert failed.reason == "INSUFFICIENT_STOCK"


async def test_a_violation_names_every_field(serve, connect, failure):
    async with serve() as app, connect(app.address) as call:
        request = pb.ReserveStockRequest(order_id="o\0", lines=[pb.StockLine(sku="a", quantity=-2)])
        failed = await failure(call.ReserveStock(request, metadata=ORDER))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    violations = failed.details[error_details_pb2.BadRequest].field_violations
    assert {violation.field for violation in violations} == {"reservation_id", "lines[0].quantity", "order_id"}
    assert all(violation.description and violation.reason for violation in violations)


async def test_a_request_that_breaks_every_rule_gets_its_status(serve, connect, failure):
    """Metadata of more than 8 KiB would not arrive at all."""
    async with serve() as app, connect(app.address) as call:
        lines = [pb.StockLine(sku="?" * 64, quantity=-number) for number in range(150)]
        failed = await failure(call.ReserveStock(pb.ReserveStockRequest(lines=lines), metadata=ORDER))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(failed.details[error_details_pb2.BadRequest].field_violations) >= 5


@pytest.mark.parametrize("seconds", [2**62, -(2**62)])
async def test_a_request_without_a_json_form_gets_its_reply(serve, connect, failure, seconds):
    """It cannot be logged, which is no error of the client's."""
    async with serve() as app, connect(app.address) as call:
        request = pb.ReserveStockRequest(reservation_id="r", order_id="o")
        request.ttl.seconds = seconds
        failed = await failure(call.ReserveStock(request, metadata=ORDER))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_a_malformed_request_is_invalid_and_reveals_nothing(serve, log):
    async with serve(GetStock=answering) as app, grpc.aio.insecure_channel(app.address) as channel:
        send = channel.unary_unary("/shop.inventory.v1.InventoryService/GetStock")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await send(b"\xff\xff\xff", metadata=EDGE)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "The request is not valid: request: is not a message of its type."
    assert [line["reason"] for line in log.calls()] == ["INVALID_REQUEST"]


async def test_a_reply_of_the_wrong_type_is_internal_and_reveals_nothing(serve, connect, failure):
    async def forgetful(request, context):
        return CANARY

    async with serve(GetStock=forgetful) as app, connect(app.address) as call:
        failed = await failure(call.GetStock(REQUEST, metadata=EDGE))
    assert failed.code is grpc.StatusCode.INTERNAL
    assert failed.message.startswith("Internal error ")


async def test_a_message_over_the_limit_is_rejected_and_one_below_is_read(serve, connect, failure):
    """M5."""
    settings = Settings(max_request_bytes=10_000)
    async with serve(settings=settings, GetStock=answering) as app, connect(app.address) as call:
        big = pb.GetStockRequest(sku="a" * 9_000)
        assert (await failure(call.GetStock(big, metadata=EDGE))).code is grpc.StatusCode.INVALID_ARGUMENT
        huge = pb.GetStockRequest(sku="a" * 11_000)
        assert (await failure(call.GetStock(huge, metadata=EDGE))).code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_has_room_for_a_token_and_a_limit(serve, connect, failure):
    """Between the soft and the hard limit gRPC rejects at random, so our metadata must stay below both."""
    async with serve(GetStock=answering) as app, connect(app.address) as call:
        for _ in range(20):
            await call.GetStock(REQUEST, metadata=(*EDGE, ("padding", "x" * 6_000)))
        failed = await failure(call.GetStock(REQUEST, metadata=(*EDGE, ("padding", "x" * 20_000))))
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_above_the_limit_are_rejected_at_once_and_later_ones_are_served(serve, connect, failure):
    """M6."""
    waiting = Waiting()
    settings = Settings(max_concurrent_rpcs=5)
    async with serve(settings=settings, GetStock=waiting) as app, connect(app.address) as call:
        served = [call.GetStock(REQUEST, metadata=ORDER) for _ in range(5)]
        await eventually(lambda: waiting.began == 5)
        failed = await failure(call.GetStock(REQUEST, metadata=ORDER))
        assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        waiting.go_on.set()
        assert [(await one).sku for one in served] == ["a"] * 5
        assert (await call.GetStock(REQUEST, metadata=ORDER)).sku == "a"


async def test_an_audited_call_is_recorded_whether_it_was_served_or_not(serve, connect, failure, issuer, log):
    async def handler(request, context):
        return pb.StockLevel()

    request = pb.SetStockRequest(sku="a", location_id="bkk", on_hand=1, request_id="k-1")
    async with serve(SetStock=handler) as app, connect(app.address) as call:
        staff = (*EDGE, ("authorization", f"Bearer {issuer.token('staff-1', 'staff')}"))
        await call.SetStock(request, metadata=staff)
        customer = (*EDGE, ("authorization", f"Bearer {issuer.token('customer-1')}"))
        await failure(call.SetStock(request, metadata=customer))
    records = log.lines("audit")
    assert [(one["user"], one["code"]) for one in records] == [("staff-1", "OK"), ("customer-1", "PERMISSION_DENIED")]
    assert all(one["request"]["sku"] == "a" for one in records)


async def test_health_and_reflection_need_no_contract(serve):
    async with serve() as app, grpc.aio.insecure_channel(app.address) as channel:
        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"
        listing = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(
            iter([b"\x3a\x00"])
        )
        assert b"shop.inventory.v1.InventoryService" in await listing.read()
        listing.cancel()


@pytest.mark.parametrize(
    ("symbol", "found"),
    [
        ("shop.inventory.v1.InventoryService", True),
        ("shop.inventory.v1.InventoryService.GetStock", True),
        ("shop.inventory.v1.InventoryService.Nothing", False),
        ("shop.inventory.v1.Nothing.GetStock", False),
    ],
)
async def test_reflection_finds_services_and_their_methods(serve, symbol, found):
    """Grpcurl describes, and ghz calls, a method by its own name."""
    request = ServerReflectionRequest(file_containing_symbol=symbol)
    async with serve() as app, grpc.aio.insecure_channel(app.address) as channel:
        stream = ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        reply = await stream.read()
        stream.cancel()
    assert (reply.WhichOneof("message_response") == "file_descriptor_response") is found


async def test_a_valid_trace_context_is_continued_and_an_invalid_one_replaced(serve, connect, log):
    async with serve(GetStock=answering) as app, connect(app.address) as call:
        await call.GetStock(REQUEST, metadata=(*EDGE, ("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")))
        await call.GetStock(REQUEST, metadata=(*EDGE, ("traceparent", f"00-{CANARY}-b-01")))
    first, second = [line["trace_id"] for line in log.calls()]
    assert first == "a" * 32
    assert len(second) == 32
    assert CANARY not in json.dumps(log.lines())


async def test_a_client_that_pings_too_often_is_disconnected(serve):
    """S20: the services' own clients ping every 300 s at most."""
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678"
    async with serve() as app:
        reader, writer = await asyncio.open_connection(*app.address.rsplit(":", 1))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + ping * 5)
        async with asyncio.timeout(20):
            received = await reader.read()
        writer.close()
    assert b"too_many_pings" in received
