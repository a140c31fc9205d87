"""Errors across the wire: generated error classes to google.rpc.Status and back. The only code that knows statuses.

Domain code raises and catches classes:

* ShopError (generated base: a refusal with a reason)
  x one class for each reason, in shop.<domain>.v1.<domain>_errors
* OutcomeUnknown (the call may or may not have happened)
"""

import uuid
from collections.abc import Sequence
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from chassis.context import Context
from shop.errors import ShopError, error_class

#: A status travels in metadata twice, its message also percent-encoded, and clients refuse more than 8 KiB of that.
_STATUS_BYTES = 4_500
_TEXT_BYTES = 700

_DETAILS_KEY = "grpc-status-details-bin"
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

#: After these nobody can say whether the call took effect.
_UNKNOWN_CODES = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class OutcomeUnknown(Exception):
    """A call to another service ended without saying whether it took effect: ask, or repeat it with the same key."""

    def __init__(self, method: str, code: grpc.StatusCode) -> None:
        """`method` is the full method path."""
        super().__init__(f"{method}: {code.name}")
        self.method = method
        self.code = code


def status_of(error: ShopError, details: Sequence[object] = ()) -> status_pb2.Status:
    """Return the error as google.rpc.Status: exactly one ErrorInfo, then whatever else tells more and still fits."""
    metadata = {name: _cut(value) for name, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=metadata)
    status = status_pb2.Status(code=error.code, message=_cut(error.message))
    for detail in (info, *details):
        packed = AnyMessage()
        packed.Pack(detail)  # type: ignore[arg-type]
        if detail is info or status.ByteSize() + packed.ByteSize() <= _STATUS_BYTES:
            status.details.append(packed)
    return status


def internal_status() -> tuple[status_pb2.Status, str]:
    """Return an INTERNAL status that says nothing but an id, and the id, under which the cause is logged."""
    error_id = uuid.uuid4().hex
    return status_pb2.Status(code=code_pb2.INTERNAL, message=f"Internal error {error_id}."), error_id


async def abort(context: Context, status: status_pb2.Status) -> NoReturn:
    """End the call with `status`. No initial metadata was sent, so that proxies may retry and count it."""
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), (_DETAILS_KEY, status.SerializeToString())))
    await context.abort(_CODES[status.code], status.message)
    raise AssertionError("abort always raises")


def error_from_status(status: status_pb2.Status) -> ShopError | None:
    """Return the error that the status was made from, or None when this build knows no such reason."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            kind = error_class(info.domain, info.reason)
            return kind.restored(status.message, info.metadata) if kind else None
    return None


def error_from_call(method: str, error: grpc.aio.AioRpcError) -> Exception:
    """Return what the failed call to another service means: a refusal by class, or OutcomeUnknown."""
    if error.code() in _UNKNOWN_CODES:
        return OutcomeUnknown(method, error.code())
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return error_from_status(status_pb2.Status.FromString(value)) or OutcomeUnknown(method, error.code())
            except DecodeError:
                break
    return OutcomeUnknown(method, error.code())


def _cut(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= _TEXT_BYTES else encoded[:_TEXT_BYTES].decode(errors="ignore") + "…"
