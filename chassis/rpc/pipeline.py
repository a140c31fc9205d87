"""The server pipeline, driven by the contract table: every call passes it, handlers stay free of it.

caller, token -> access and rate limit of the contract -> buf.validate rules -> handler -> status of errors -> log line
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NoReturn, Self, TypeAlias

import asyncpg
import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from protovalidate import Validator

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
from chassis.settings import Settings
from chassis.telemetry import extract
from shop.chassis.v1 import chassis_errors
from shop.contract import RPCS, Access, IdempotencyLevel, Rpc
from shop.errors import ShopError

log = logging.getLogger("chassis.rpc.pipeline")
audit = logging.getLogger("chassis.audit")

RpcMethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

#: A status reports no more violations of one request than fit into metadata: see chassis.errors.
_VIOLATIONS_BYTES = 1_500
#: Of a larger request only the first violation is found.
_THOROUGH_BYTES = 16_384

#: A proxy retries and counts these, unless initial metadata came before them.
_PROXY_CODES = (code_pb2.INTERNAL, code_pb2.UNAVAILABLE)

_CONTENDED = (VersionConflict, *CONTENTION_ERRORS)

_validator = Validator()


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
        method = details.method
        if method not in self._wrapped:
            handler: RpcMethodHandler = await continuation(details)
            if handler is None or method not in RPCS:
                return handler
            self._wrapped[method] = self._wrap(method, RPCS[method], handler)
        return self._wrapped[method]

    def _wrap(self, method: str, rule: Rpc, handler: Any) -> RpcMethodHandler:
        read, write = handler.request_deserializer, handler.response_serializer
        calls = Calls(method, streaming=handler.response_streaming)
        if handler.response_streaming:

            async def stream(data: bytes, context: Context) -> AsyncIterator[bytes]:
                async with _CallScope(method, rule, context, calls) as scope:
                    call = _begin(method, rule, context)
                    request = scope.request = _decoded(read, data)
                    call = await self._authorized(rule, call)
                    _check(request)
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
                with self._admission.unary(call):
                    request = scope.request = _decoded(read, data)
                    call = await self._authorized(rule, call)
                    _check(request)
                    if rule.audit:
                        call = replace(call, audit=Audit(redacted(request)))
                        enter_call(call)
                    async with asyncio.timeout(call.remaining()):
                        reply: bytes = write(await handler.unary_unary(request, context))
                assert_owner_checked()
                _report_missing_audit(rule, call)
                await _send_headers(context, call)
                if call.trailers:
                    context.set_trailing_metadata(tuple(call.trailers.items()))
                return reply

        return grpc.unary_unary_rpc_method_handler(unary)

    async def _authorized(self, rule: Rpc, call: Call) -> Call:
        """Return the current call with its end user, or raise the error that rejects it."""
        call = await access.identify(rule, call, self._verifier)
        enter_call(call)
        access.authorize(rule, call)
        await self._limiter.check(rule, call)
        return call


async def _send_headers(context: Context, call: Call) -> None:
    if call.headers:
        await context.send_initial_metadata(tuple(call.headers.items()))
        call.headers.clear()


def _begin(method: str, rule: Rpc, context: Context) -> Call:
    """Make the call current, and return it; its end user is not known yet."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    # A stream's own timeout is its lifetime, not a deadline of what it calls.
    timeout = None if rule.server_streaming else rule.timeout
    limits = [limit for limit in (timeout, context.time_remaining()) if limit is not None]
    call = Call(
        method=method,
        caller=access.calling_workload(metadata),
        address=access.client_address(metadata, context.peer()),
        authorization=metadata.get("authorization", ""),
        traceparent=extract(metadata),
        deadline=time.monotonic() + min(limits) if limits else None,
        needs_owner_check=rule.access is Access.OWNER,
    )
    enter_call(call)
    return call


def _decoded(read: Callable[[bytes], Message], data: bytes) -> Message:
    # Not by grpc.aio, which sends the exception's text to the client.
    try:
        return read(data)
    except DecodeError:
        raise chassis_errors.InvalidRequest(field="request", problem="is not a message of its type") from None


def _report_missing_audit(rule: Rpc, call: Call) -> None:
    if call.audit and not call.audit.row and rule.idempotency_level is not IdempotencyLevel.NO_SIDE_EFFECTS:
        log.error("a privileged call left no audit row", extra={"method": call.method})


def _check(request: Message) -> None:
    # The rules of a long list would be checked, and reported, item by item.
    if violations := _validator.collect_violations(request, fail_fast=request.ByteSize() > _THOROUGH_BYTES):
        raise _Invalid(violations)


class _Invalid(Exception):
    """The request breaks buf.validate rules."""

    def __init__(self, violations: list[Any]) -> None:
        super().__init__()
        fields = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_path(violation.proto.field),
                description=violation.proto.message or f"breaks the rule {violation.proto.rule_id}",
                reason=violation.proto.rule_id.upper().replace(".", "_"),
            )
            for violation in violations
        ]
        reported = error_details_pb2.BadRequest()
        for field in fields:
            reported.field_violations.append(field)
            if reported.ByteSize() > _VIOLATIONS_BYTES:
                del reported.field_violations[-1]
                break
        first = fields[0]
        error = chassis_errors.InvalidRequest(field=first.field or "request", problem=first.description)
        self.status = status_of(error, [reported])


def _path(field: Any) -> str:
    """Return a violation's place as the JSON edge writes paths: `lines[0].quantity`."""
    parts = []
    for element in field.elements if field else ():
        subscript = element.subscript
        suffix = "" if subscript is None else f"[{subscript.value}]"
        parts.append(element.field_name + suffix)
    return ".".join(parts)


class _CallScope:
    """Turns an error of a handler into a status, and writes the call's one log line."""

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
            self._log("CANCELLED")  # the client cancelled or its deadline passed: no status is sent
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
            case _Invalid():
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
        call = current_call()
        seconds = time.perf_counter() - self._started
        self._calls.record(code, seconds)
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
        log.log(level, "rpc", extra=entry)
        if self._rule.audit:
            audit.info("audit", extra=entry | dict(call.audit.row if call and call.audit else {}))


def grpc_name(code: int) -> str:
    """Return the name of a gRPC status code."""
    return next(status.name for status in grpc.StatusCode if status.value[0] == code)
