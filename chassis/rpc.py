"""The server pipeline, driven by the contract table: every call passes it, handlers stay free of it.

caller and token -> contract's access -> buf.validate rules -> handler -> errors to statuses -> one log line
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, TypeAlias

import asyncpg
import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from protovalidate import Validator

from chassis import access
from chassis.auth import TokenVerifier
from chassis.context import Call, Context, current_call, enter_call
from chassis.db import Overloaded
from chassis.errors import OutcomeUnknown, abort, internal_status, status_of
from chassis.news import Draining
from chassis.redact import redacted
from chassis.telemetry import new_traceparent
from shop.chassis.v1 import chassis_errors as refusals
from shop.contract import RPCS, Rpc
from shop.errors import ShopError

log = logging.getLogger("chassis.rpc")
audit = logging.getLogger("chassis.audit")

RpcMethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_validator = Validator()


class Pipeline(grpc.aio.ServerInterceptor):
    """The one interceptor of every server."""

    def __init__(self, verifier: TokenVerifier) -> None:
        """`verifier` knows the end users' tokens."""
        self._verifier = verifier
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
        serializers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:

            async def stream(request: Message, context: Context) -> AsyncIterator[Message]:
                async with _Outcome(method, rule, request, context):
                    await self._admit(method, rule, request, context)
                    async for message in handler.unary_stream(request, context):
                        yield message

            return grpc.unary_stream_rpc_method_handler(stream, **serializers)

        async def unary(request: Message, context: Context) -> Message:
            async with _Outcome(method, rule, request, context):
                call = await self._admit(method, rule, request, context)
                async with asyncio.timeout(call.remaining()):
                    reply: Message = await handler.unary_unary(request, context)
                if call.trailers:
                    context.set_trailing_metadata(tuple(call.trailers.items()))
                return reply

        return grpc.unary_unary_rpc_method_handler(unary, **serializers)

    async def _admit(self, method: str, rule: Rpc, request: Message, context: Context) -> Call:
        """Make the call current, or raise the refusal that keeps it out."""
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        limits = [limit for limit in (rule.timeout, context.time_remaining()) if limit is not None]
        call = Call(
            method=method,
            caller=access.calling_workload(metadata),
            authorization=metadata.get("authorization", ""),
            traceparent=metadata.get("traceparent") or new_traceparent(),
            deadline=time.monotonic() + min(limits) if limits else None,
        )
        enter_call(call)
        call = await access.admit(rule, call, self._verifier)
        enter_call(call)
        if violations := _validator.collect_violations(request):
            raise _Invalid(violations)
        return call


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
        first = fields[0]
        self.status = status_of(
            refusals.InvalidRequest(field=first.field or "request", problem=first.description),
            [error_details_pb2.BadRequest(field_violations=fields)],
        )


def _path(field: Any) -> str:
    """Return a violation's place as the JSON edge writes paths: `lines[0].quantity`."""
    parts = []
    for element in field.elements if field else ():
        subscript = element.subscript
        suffix = "" if subscript is None else f"[{subscript.value}]"
        parts.append(element.field_name + suffix)
    return ".".join(parts)


class _Outcome:
    """Turns whatever a handler raises into a status, and writes the call's one log line."""

    def __init__(self, method: str, rule: Rpc, request: Message, context: Context) -> None:
        self._method = method
        self._rule = rule
        self._request = request
        self._context = context
        self._started = time.perf_counter()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._log("OK")
        elif isinstance(error, GeneratorExit):
            self._log("CANCELLED")
        elif isinstance(error, asyncio.CancelledError) and _cancelled_from_outside():
            self._log("CANCELLED")  # the client left or its deadline passed: nobody hears a status
        elif not isinstance(error, grpc.aio.AbortError):
            await self._fail(error)

    async def _fail(self, error: BaseException) -> NoReturn:
        status = self._status(error)
        self._log(grpc_name(status.code), reason=getattr(error, "reason", type(error).__name__))
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
                return _retry_later(refusals.Overloaded())
            case Draining():
                return status_pb2.Status(code=14, message="The server is going away; resume the stream.")
            case OutcomeUnknown() | asyncio.CancelledError() | OSError() | asyncpg.InterfaceError():
                # Something below was cut off. To the caller that is a server that may be tried again.
                log.warning("cut off", exc_info=error)
                return status_pb2.Status(code=14, message="A dependency is unavailable; the outcome is unknown.")
            case asyncpg.PostgresConnectionError() | asyncpg.OperatorInterventionError():
                log.warning("database away", exc_info=error)
                return status_pb2.Status(code=14, message="The database is unavailable; the outcome is unknown.")
            case _:
                status, error_id = internal_status()
                log.error("unexpected error", exc_info=error, extra={"error_id": error_id})
                return status

    def _log(self, code: str, **more: object) -> None:
        call = current_call()
        level = logging.INFO if code in ("OK", "CANCELLED") else logging.WARNING
        entry: dict[str, object] = {
            "method": self._method,
            "code": code,
            "milliseconds": round((time.perf_counter() - self._started) * 1000, 2),
            "caller": call.caller if call else "",
            "user": call.user.id if call and call.user else "",
            **more,
        }
        if level > logging.INFO or log.isEnabledFor(logging.DEBUG):
            entry["request"] = redacted(self._request)
        log.log(level, "rpc", extra=entry)
        if self._rule.audit:
            audit.info("audit", extra={**entry, "request": redacted(self._request)})


def grpc_name(code: int) -> str:
    """Return the name of a gRPC status code."""
    return next(status.name for status in grpc.StatusCode if status.value[0] == code)


def _cancelled_from_outside() -> bool:
    """Tell a cancelled call from a CancelledError that leaked out of some inner task.

    grpc.aio leaves a client without an answer when a handler raises CancelledError by itself, and
    `context.cancelled()` is still False when the client is the cause; the task's own count is the one reliable sign.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _retry_later(error: ShopError, seconds: int = 1) -> status_pb2.Status:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromSeconds(seconds)
    return status_of(error, [retry])
