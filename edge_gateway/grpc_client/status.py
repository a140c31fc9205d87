"""Converts the status of a failed call: decodes its details, maps its HTTP status, and redacts internals."""

import re
from base64 import b64encode
from typing import Any

from protobuf import Message, Registry, message_to_json_value

from edge_gateway.errors import Detail, EdgeError, retry_info
from edge_gateway.grpc_client.upstreams import RawMetadata, UpstreamError

_DETAILS = "grpc-status-details-bin"
#: Messages to redact: gRPC's connection errors name addresses, and grpc.aio's quote exceptions.
_ADDRESSES = re.compile(r"(?:ipv4|ipv6|unix|dns|xds):|errno|[Cc]onnect|[Ss]ocket|GOAWAY|DNS|RST_STREAM")
_EXCEPTIONS = re.compile(r"^Unexpected <class|^Exception (?:calling|iterating)")
_LEAKS = ((_ADDRESSES, 14, "the service cannot be reached"), (_EXCEPTIONS, 2, "the service failed"))
_TOO_LARGE = re.compile(r"^(CLIENT|SERVER): (?:Received|Decompressed|Sent) message.* larger than max")


class StatusReader:
    """Converts UpstreamError to EdgeError."""

    def __init__(self, registry: Registry, statuses: dict[str, int]) -> None:
        status = registry.message("google.rpc.Status")
        assert status is not None
        self._status = status.type
        self._registry = registry
        #: ErrorInfo.reason -> HTTP status, where it overrides the status of the code.
        self._statuses = statuses

    def read(self, failure: UpstreamError) -> EdgeError:
        """Convert a failure; ignore details that cannot be decoded."""
        too_large = _TOO_LARGE.match(failure.message)
        if failure.code == 8 and too_large:
            if too_large[1] == "CLIENT":
                return EdgeError(13, "the reply is larger than this edge accepts")
            return EdgeError(8, "the request is larger than the service accepts", (), 413)
        error = EdgeError(failure.code, failure.message, tuple(self._details(failure.trailing)))
        for pattern, code, text in _LEAKS:
            if failure.code == code and not error.details and pattern.search(failure.message):
                error.message = text
        if failure.code == 14 and not error.details:
            error.details = (retry_info(1),)
        error.status = self._statuses.get(error.reason)
        return error

    def _details(self, trailing: RawMetadata) -> list[Detail]:
        raw = next((value for key, value in trailing if key == _DETAILS), None)
        if not isinstance(raw, bytes):
            return []
        try:
            status: Any = self._status.from_binary(raw)
        except (ValueError, RecursionError):
            return []
        return [self._detail(detail) for detail in status.details]

    def _detail(self, detail: Message) -> Detail:
        try:
            value = message_to_json_value(detail, registry=self._registry)
            if isinstance(value, dict):
                return value
        except (ValueError, TypeError, RecursionError):
            pass
        packed: Any = detail
        return {"@type": packed.type_url, "value": b64encode(packed.value).decode()}
