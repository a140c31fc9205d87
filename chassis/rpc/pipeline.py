"""The server pipeline, driven by the contract table: every call passes it, handlers stay free of it.

caller, token -> access and rate limit of the contract -> buf.validate rules -> handler -> status of errors -> log line
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, NoReturn, Self, TypeAlias

import asyncpg
import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2

from chassis.cancellation import cancelled_from_outside
from chassis.context import Audit, Call, Context, assert_owner_checked, current_call, enter_call
from chassis.errors import OutcomeUnknown, abort, internal_status, status_of
from chassis.metrics import Calls
from chassis.postgres.change_feed import Draining
from chassis.postgres.database import CONTENTION_ERRORS, UNAVAILABLE_ERRORS, Overloaded
from chassis.postgres.lane import VersionConflict
from chassis.rpc import access
from chassis.rpc.admission import Admission
from chassis.rpc.auth import TokenVerifier
from chassis.rpc.rate_limit import RateLimiter
from chassis.rpc.redact import redacted
from chassis.rpc.stream_lifetime import StreamLifetime
from chassis.rpc.validation import Invalid, validate
from chassis.settings import Settings
from chassis.telemetry import CallRecord, extract
from shop.chassis.v1 import chassis_errors
from shop.contract import RPCS, IdempotencyLevel, Rpc
from shop.errors import ShopError

log = logging.getLogger("chassis.rpc.pipeline")
audit = logging.getLogger("chassis.audit")

RpcMethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

#: A proxy retries and counts these, unless initial metadata came before them.
_PROXY_CODES = (code_pb2.INTERNAL, code_pb2.UNAVAILABLE)

_CONTENDED = (VersionConflict, *CONTENTION_ERRORS)

#: Seconds by which gRPC's timers may be ahead of the clock.
_DEADLINE_MARGIN = 0.01

_NAMES: dict[int, str] = {status.value[0]: status.name for status in grpc.StatusCode}

#: The metadata of the call: grpc.aio would convert it once more for each `invocation_metadata()` of a context.
_metadata: ContextVar[Sequence[tuple[str, str | bytes]]] = ContextVar("metadata", default=())


class Pipeline(grpc.aio.ServerInterceptor):
    """The one interceptor of every server."""

    def __init__(self, verifier: TokenVerifier, limiter: RateLimiter, settings: Settings) -> None:
        """Identify end users by `verifier`, count calls from outside by `limiter`, bound calls by `settings`."""
        self._verifier = verifier
        self._limiter = limiter
        self._admission = Admission(settings)
        self._max_stream_seconds = settings.max_stream_seconds
        self._wrapped: dict[str, RpcMethodHandler] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails
    ) -> RpcMethodHandler:
        """Wrap the handler of an RPC that has a contract; health and reflection have none and pass as they are."""
        _metadata.set(details.invocation_metadata)
        method = details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler: RpcMethodHandler = await continuation(details)
            if handler is None or method not in RPCS:
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, RPCS[method], handler)
        return wrapped

    def _wrap(self, method: str, rule: Rpc, handler: Any) -> RpcMethodHandler:
        read, write = handler.request_deserializer, handler.response_serializer
        calls = Calls(method, streaming=handler.response_streaming)
        if handler.response_streaming:

            async def stream(data: bytes, context: Context) -> AsyncIterator[bytes]:
                async with _CallScope(method, rule, context, calls) as scope:
                    call = _begin(method, rule, context)
                    request = scope.request = _decoded(read, data)
                    await self._authorize(rule, call)
                    validate(request)
                    lifetime = StreamLifetime(call, min(rule.timeout or math.inf, self._max_stream_seconds))
                    with self._admission.stream(call), lifetime.until_revoked(self._verifier.revocations):
                        await _send_headers(context, call)
                        async with aclosing(handler.unary_stream(request, context)) as messages:
                            while (message := await lifetime.next(messages)) is not None:
                                assert_owner_checked()
                                yield write(message)

            return grpc.unary_stream_rpc_method_handler(stream)

        async def unary(data: bytes, context: Context) -> bytes:
            async with _CallScope(method, rule, context, calls) as scope:
                call = _begin(method, rule, context)
                self._admission.begin_unary(call)
                try:
                    request = scope.request = _decoded(read, data)
                    await self._authorize(rule, call)
                    validate(request)
                    if rule.audit:
                        call.audit = Audit(redacted(request))
                    reply: bytes = write(await _in_time(handler.unary_unary(request, context), rule, context))
                finally:
                    self._admission.end_unary()
                assert_owner_checked()
                _report_missing_audit(rule, call)
                if call.headers:
                    await _send_headers(context, call)
                if call.trailers:
                    context.set_trailing_metadata(tuple(call.trailers.items()))
                return reply

        return grpc.unary_unary_rpc_method_handler(unary)

    async def _authorize(self, rule: Rpc, call: Call) -> None:
        """Set the call's end user, or raise the error that rejects the call."""
        await access.identify(rule, call, self._verifier)
        access.authorize(rule, call)
        if rule.rate_limit is not None:
            await self._limiter.check(rule, call)


async def _send_headers(context: Context, call: Call) -> None:
    if call.headers:
        await context.send_initial_metadata(tuple(call.headers.items()))
        call.headers.clear()


def _begin(method: str, rule: Rpc, context: Context) -> Call:
    """Make the call current, and return it; its end user is not known yet."""
    metadata = {key: value for key, value in _metadata.get() if isinstance(value, str)}
    left = context.time_remaining()
    # A stream's own timeout is its lifetime, not a deadline of what it calls.
    if rule.timeout is not None and not rule.server_streaming and (left is None or rule.timeout < left):
        left = rule.timeout
    call = Call(
        method=method,
        rule=rule,
        caller=access.calling_workload(metadata),
        address=access.client_address(metadata, context.peer),
        authorization=metadata.get("authorization", ""),
        traceparent=extract(metadata),
        deadline=None if left is None else time.monotonic() + left,
    )
    enter_call(call)
    return call


async def _in_time(reply: Awaitable[Message], rule: Rpc, context: Context) -> Message:
    """Return the reply; raises TimeoutError after the contract's time.

    gRPC itself cancels a call at the client's deadline, so that a client that waits for less needs no timer.
    """
    left = context.time_remaining()
    if rule.timeout is None or (left is not None and left <= rule.timeout):
        return await reply
    async with asyncio.timeout(rule.timeout):
        return await reply


def _decoded(read: Callable[[bytes], Message], data: bytes) -> Message:
    # Not by grpc.aio, which sends the exception's text to the client.
    try:
        return read(data)
    except DecodeError:
        raise chassis_errors.InvalidRequest(field="request", problem="is not a message of its type") from None


def _report_missing_audit(rule: Rpc, call: Call) -> None:
    if call.audit and not call.audit.row and rule.idempotency_level is not IdempotencyLevel.NO_SIDE_EFFECTS:
        log.error("a privileged call left no audit row", extra={"method": call.method})


class _CallScope:
    """Turns an error of a handler into a status, and writes the call's one log line."""

    __slots__ = ("_calls", "_context", "_method", "_rule", "_started", "request")

    def __init__(self, method: str, rule: Rpc, context: Context, calls: Calls) -> None:
        self._method = method
        self._calls = calls
        self._rule = rule
        self._context = context
        self._started = time.perf_counter()
        #: For the log; None while it is not decoded.
        self.request: Message | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._log("OK")
        elif isinstance(error, GeneratorExit):
            self._log("CANCELLED")
        elif isinstance(error, asyncio.CancelledError) and cancelled_from_outside():
            self._log(_cancellation(current_call()))  # no status is sent: the client does not wait for one
        elif not isinstance(error, grpc.aio.AbortError):
            await self._fail(error)

    async def _fail(self, error: BaseException) -> NoReturn:
        status = self._status(error)
        self._log(grpc_name(status.code), reason=getattr(error, "reason", type(error).__name__))
        call = current_call()
        if call and status.code not in _PROXY_CODES:
            await _send_headers(self._context, call)
        if call and call.trailers:
            self._context.set_trailing_metadata(tuple(call.trailers.items()))
        await abort(self._context, status)

    def _status(self, error: BaseException) -> status_pb2.Status:  # noqa: PLR0911  a table
        match error:
            case ShopError():
                return status_of(error)
            case Invalid():
                return error.status
            case TimeoutError():
                return status_pb2.Status(code=4, message="The deadline passed; the outcome is unknown.")
            case Overloaded() | asyncpg.TooManyConnectionsError():
                return status_of(chassis_errors.Overloaded())
            case Draining():
                return status_pb2.Status(code=14, message="The server is going away; resume the stream.")
            case _ if isinstance(error, _CONTENDED):
                return status_of(chassis_errors.WriteContended())
            case NotImplementedError():
                return status_pb2.Status(code=12, message="Not implemented.")
            case _ if isinstance(error, (OutcomeUnknown, asyncio.CancelledError, *UNAVAILABLE_ERRORS)):
                # A dependency failed or was cancelled. The caller may retry.
                log.warning("dependency unavailable", exc_info=error)
                return status_pb2.Status(code=14, message="A dependency is unavailable; the outcome is unknown.")
            case _:
                status, error_id = internal_status()
                log.error("unexpected error", exc_info=error, extra={"error_id": error_id})
                return status

    def _log(self, code: str, **more: object) -> None:
        seconds = time.perf_counter() - self._started
        self._calls.record(code, seconds)
        call = current_call()
        level = logging.INFO if code in ("OK", "CANCELLED") else logging.WARNING
        entry: dict[str, object] = {
            "method": self._method,
            "code": code,
            "milliseconds": round(seconds * 1000, 2),
            "caller": call.caller if call else "",
            "user": call.user.id if call and call.user else "",
            **more,
        }
        if self.request is not None and (level > logging.INFO or self._rule.audit or log.isEnabledFor(logging.DEBUG)):
            entry["request"] = redacted(self.request)
        if log.isEnabledFor(level):
            log.handle(CallRecord(log.name, level, entry, call.traceparent if call else ""))
        if self._rule.audit:
            audit.info("audit", extra=entry | dict(call.audit.row if call and call.audit else {}))


def _cancellation(call: Call | None) -> str:
    """Return why gRPC cancelled the call: its client did, or the client's deadline has passed."""
    left = call.remaining() if call else None
    return "DEADLINE_EXCEEDED" if left is not None and left < _DEADLINE_MARGIN else "CANCELLED"


def grpc_name(code: int) -> str:
    """Return the name of a gRPC status code."""
    return _NAMES[code]
