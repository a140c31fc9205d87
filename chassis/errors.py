"""Errors across the wire: generated error classes to google.rpc.Status. The way back is the client's: shop.channel.

Domain code raises and catches classes:

* ShopError (generated base: an error with a reason)
  x one class for each reason, in shop.<domain>.v1.<domain>_errors
* OutcomeUnknown (the call may or may not have happened)
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from chassis.context import Context
from shop.channel import DETAILS_KEY, OutcomeUnknown, error_from_call, error_from_status
from shop.errors import ShopError

__all__ = ["OutcomeUnknown", "abort", "error_from_call", "error_from_status", "internal_status", "status_of"]

#: A status travels in metadata twice, its message also percent-encoded, and clients reject more than 8 KiB of it.
_STATUS_BYTES = 4_500
_TEXT_BYTES = 700

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status_of(error: ShopError, details: Sequence[object] = ()) -> status_pb2.Status:
    """Return the error as google.rpc.Status: one ErrorInfo, a RetryInfo if it has one, and those `details` that fit."""
    metadata = {name: _cut(value) for name, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=metadata)
    status = status_pb2.Status(code=error.code, message=_cut(error.message))
    retry = [] if error.retry_seconds is None else [_retry_info(error.retry_seconds)]
    for detail in (info, *retry, *details):
        packed = AnyMessage()
        packed.Pack(detail)  # type: ignore[arg-type]
        if detail is info or status.ByteSize() + packed.ByteSize() <= _STATUS_BYTES:
            status.details.append(packed)
    return status


def internal_status() -> tuple[status_pb2.Status, str]:
    """Return an INTERNAL status with an error id alone, and the id, under which the cause is logged."""
    error_id = uuid.uuid4().hex
    return status_pb2.Status(code=code_pb2.INTERNAL, message=f"Internal error {error_id}."), error_id


async def abort(context: Context, status: status_pb2.Status) -> NoReturn:
    """End the call with `status`. No initial metadata was sent, so that proxies may retry and count it."""
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), (DETAILS_KEY, status.SerializeToString())))
    await context.abort(_CODES[status.code], status.message)
    raise AssertionError("abort always raises")


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return info


def _cut(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= _TEXT_BYTES else encoded[:_TEXT_BYTES].decode(errors="ignore") + "…"
